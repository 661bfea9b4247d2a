"""Data sets: raw examples decoded on the training device from compact storage."""

from __future__ import annotations

from pathlib import Path

from vmlite.datasets.base import Dataset, Splits
from vmlite.datasets.images import LOADERS, ImageDataset
from vmlite.environment import find_device, project_path

__all__ = ["DATASETS", "Dataset", "ImageDataset", "Splits", "load"]

DATASETS = tuple(LOADERS)


def load(
    dataset: str,
    data_dir: str | Path | None = None,
    input_size: int | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    device: str = "auto",
) -> Splits:
    """The training and test examples of a data set, on `device` ("auto": a GPU where there is one).

    Args:
        dataset: one of DATASETS.
        data_dir: where its files are or are downloaded to; below the project's root if relative; None: data/.
        input_size: side to generate or to resize to; None: as stored.
        train_size, test_size: how many examples to generate, or at most to keep; None: all.
    """
    if dataset not in LOADERS:
        raise ValueError(f"unknown dataset {dataset!r}; choose from {', '.join(DATASETS)}.")
    if dataset == "image-folder" and data_dir is None:
        raise ValueError(
            "dataset 'image-folder' needs data_dir, the folder that holds train/<class>/ and test/<class>/."
        )
    place = find_device(device)
    splits = LOADERS[dataset](project_path(data_dir or "data"), input_size, train_size, test_size)
    sizes = [None if n is None else min(n, len(part)) for part, n in zip(splits, (train_size, test_size), strict=True)]
    return Splits(*(part.first(n).to(place) for part, n in zip(splits, sizes, strict=True)))
