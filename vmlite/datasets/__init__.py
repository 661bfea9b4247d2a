"""Data sets: raw examples decoded on the training device from compact storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmlite.datasets import images, sensors, speech
from vmlite.datasets.base import Dataset, Options, Splits
from vmlite.datasets.images import ImageDataset
from vmlite.datasets.sensors import SensorDataset
from vmlite.datasets.speech import SpeechDataset
from vmlite.environment import find_device, project_path

__all__ = ["DATASETS", "TOPICS", "Dataset", "ImageDataset", "SensorDataset", "SpeechDataset", "Splits", "load"]

TOPICS = {"images": tuple(images.LOADERS), "speech": tuple(speech.LOADERS), "sensors": tuple(sensors.LOADERS)}
DATASETS = tuple(name for names in TOPICS.values() for name in names)
_LOADERS = {**images.LOADERS, **speech.LOADERS, **sensors.LOADERS}
_DOWNLOADED = ("cifar10", "pamap2", "pamap2-11")


def load(dataset: str, data_dir: str | Path | None = None, device: str = "auto", **options: Any) -> Splits:
    """The training and test examples of a data set, on `device` ("auto": a GPU where there is one).

    Args:
        dataset: one of DATASETS.
        data_dir: where its files are or are downloaded to; below the project's root if relative; None: data/.
        options: see `vmlite.datasets.base.Options`.
    """
    if dataset not in _LOADERS:
        raise ValueError(f"unknown dataset {dataset!r}; choose from {', '.join(DATASETS)}.")
    if dataset in ("image-folder", "audio-folder") and data_dir is None:
        raise ValueError(f"dataset {dataset!r} needs data_dir, the folder that holds train/<class>/ and test/<class>/.")
    asked = Options(**options)
    if dataset in TOPICS["images"] and (asked.sample_rate or asked.window_seconds or asked.held_out):
        raise ValueError(f"sample_rate, window_seconds and held_out are for recordings; {dataset} has images.")
    place, folder = find_device(device), project_path(data_dir or "data")
    if dataset in _DOWNLOADED and data_dir is not None and not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; make it if {dataset} is to be downloaded there.")
    splits = _LOADERS[dataset](folder, asked)
    limits = (asked.train_size, asked.test_size)
    sizes = [None if n is None else min(n, len(part)) for part, n in zip(splits, limits, strict=True)]
    return Splits(*(part.first(n).to(place) for part, n in zip(splits, sizes, strict=True)))
