"""Recordings in the format of Pamap2 (Reiss and Stricker 2012): a strict reader, its cache, and the download.

A file holds one participant's recording. Each line is 10 ms: timestamp in s, activity id, then the 52 channels, separated
by spaces, NaN where a value is missing.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vmlite.datasets.base import first_of
from vmlite.datasets.corpus_files import alone

SAMPLE_RATE = 100  # Hz
PARTICIPANTS = ("1", "2", "3", "4", "5", "6", "7", "8", "9")
URL = "https://archive.ics.uci.edu/static/public/231/pamap2+physical+activity+monitoring.zip"

SENSORS = ("acceleration 16g", "acceleration 6g", "gyroscope", "magnetometer")
AXES = tuple(f"{sensor} {axis}" for sensor in SENSORS for axis in "xyz")
PER_LIMB = ("temperature", *AXES, *(f"orientation {i}" for i in "1234"))
CHANNELS = ("heart rate", *(f"{limb} {quantity}" for limb in ("hand", "chest", "ankle") for quantity in PER_LIMB))
COLUMNS = ("timestamp", "activity", *CHANNELS)

TRANSIENT = 0
ACTIVITIES: dict[int, str] = {
    1: "lying", 2: "sitting", 3: "standing", 4: "walking", 5: "running", 6: "cycling", 7: "Nordic walking",
    12: "ascending stairs", 13: "descending stairs", 16: "vacuum cleaning", 17: "ironing", 24: "rope jumping",
}  # fmt: skip
OPTIONAL: dict[int, str] = {
    9: "watching TV", 10: "computer work", 11: "car driving",
    18: "folding laundry", 19: "house cleaning", 20: "playing soccer",
}  # fmt: skip

LAST_TIME = 2**15  # s; up to here float32 holds timestamps to 2 ms, well within the tolerance of half a step
VERSION = 1  # of the cache's files
HEADER = 4096  # bytes


@dataclass(frozen=True)
class Recording:
    """One participant's recording.

    Attributes:
        participant: "1" to "9" in Pamap2.
        samples: (52, T) float32 in the file's units. Missing values lie on a line between their known neighbours in the
            same channel; before the first and after the last known value they are that value.
        activity: (T,) int16, ids as in the file.
        stretches: (S, 2) int64, first row and one past the last row of each stretch in which every timestamp is 0.01 s
            after the one before, give or take half of that.
    """

    participant: str
    samples: Tensor
    activity: Tensor
    stretches: Tensor


def find(data_dir: Path) -> dict[str, Path]:
    """The file of each participant, in `data_dir` or in PAMAP2_Dataset/ or Protocol/ below it.

    Raises ValueError naming those that are missing, and where they should be.
    """
    folder = folder_of(data_dir) or data_dir / "PAMAP2_Dataset" / "Protocol"
    files = {participant: folder / f"subject10{participant}.dat" for participant in PARTICIPANTS}
    if missing := [file.name for file in files.values() if not file.is_file()]:
        raise ValueError(f"Pamap2 lacks {first_of(missing, 9)}; put them into {folder}.")
    return files


def folder_of(data_dir: Path) -> Path | None:
    """`data_dir`, or the folder below it, that holds at least one participant's file."""
    folders = (data_dir, data_dir / "Protocol", data_dir / "PAMAP2_Dataset" / "Protocol")
    return next((folder for folder in folders if any(folder.glob("subject10[1-9].dat"))), None)


def read(file: Path) -> Recording:
    """Read one file; the participant is the last digit of subject101.dat to subject109.dat, else the file's name.

    Raises ValueError, with file and line, for a file that is missing, empty or cut off, another number of columns, values
    that are no number or infinite, a missing timestamp or activity, unknown activities, and channels without any value.
    """
    table = _table(file)
    _check(file, table)
    samples = np.ascontiguousarray(table[:, 2:].T)
    if empty := [CHANNELS[i] for i in np.isnan(samples).all(1).nonzero()[0]]:
        raise ValueError(f"{file} has no value but NaN for {first_of(empty)}; every channel needs at least one.")
    return Recording(
        participant=re.sub(r"^subject10([1-9])$", r"\1", file.stem),
        samples=torch.from_numpy(interpolated(samples)),
        activity=torch.from_numpy(table[:, 1].astype(np.int16)),
        stretches=torch.from_numpy(steady(table[:, 0])),
    )


def interpolated(samples: np.ndarray) -> np.ndarray:
    """Fill what is NaN in `samples` (C, T), in place, linearly between known neighbours; each row needs a known value."""
    for channel in samples:
        missing = np.isnan(channel)
        if missing.any():
            rows, known = missing.nonzero()[0], (~missing).nonzero()[0]
            channel[rows] = np.interp(rows, known, channel[known])
    return samples


def steady(timestamps: np.ndarray) -> np.ndarray:
    """Stretches (S, 2) without a jump, as first row and one past the last, of `timestamps` (T,) in s."""
    steps = np.diff(timestamps.astype(np.float64)) * SAMPLE_RATE
    jumps = (np.abs(steps - 1) > 0.5).nonzero()[0] + 1
    return np.stack([np.append(0, jumps), np.append(jumps, len(timestamps))], axis=1).astype(np.int64)


def cached(name: str, files: Mapping[str, Path], folder: Path, progress: bool = True) -> list[Recording]:
    """The recordings of `files` (participant -> file), each from a file below `folder` that is made at the first use.

    The samples are memory-mapped; writing to them changes no file. A recording is made again, and a line says why, where
    its source has another size or modification time than at the first use, or where its checksum is wrong. A source that
    is gone is not needed while its cache is sound. An interrupted call keeps the recordings that were finished.

    Args:
        name: of the data set, for file names and messages.
        files: of each participant.
        folder: for caches, for example data/cache.
        progress: show a bar.

    Raises ValueError as `read` does.
    """
    place = folder / re.sub(r"[^\w.-]", "-", name)
    place.mkdir(parents=True, exist_ok=True)
    stores = {p: place / re.sub(r"[^\w.-]", "-", f"{p}.cache") for p in files}
    with alone(place / "lock"):
        found = {p: _opened(stores[p], _stamp(p, file)) for p, file in files.items()}
        todo = [p for p, result in found.items() if isinstance(result, str)]
        if reasons := [f"{p} ({found[p]})" for p in todo if found[p]]:
            print(f"{name}: the cache is made again for participant {first_of(reasons)}.")
        for p in tqdm(todo, desc=f"caching {name}", leave=False, delay=1, disable=not progress):
            stamp = _stamp(p, files[p])
            _write(stores[p], read(files[p]), stamp)
            found[p] = _opened(stores[p], stamp)
    recordings = [result for result in found.values() if not isinstance(result, str)]
    if len(recordings) < len(files):
        raise ValueError(f"the cache of {name} in {place} cannot be read back after writing; check the disk.")
    return recordings


def download(data_dir: Path, url: str = URL) -> None:
    """Fetch the archive (about 690 MB) into `data_dir` and unpack PAMAP2_Dataset/Protocol/ (about 1.3 GB) beside it.

    Nothing is fetched where the recordings or the archive are there already. No checksum has been published; the archive's
    own are compared. Raises ValueError where there is no network, or a damaged archive.
    """
    from torchvision.datasets.utils import download_url

    archive = data_dir / url.rsplit("/", 1)[-1]
    part = archive.with_name(f"{archive.name}.part")
    with contextlib.suppress(ValueError):
        find(data_dir)
        return
    try:
        if not archive.exists():
            part.unlink(missing_ok=True)  # torchvision would take it for the whole
            download_url(url, str(data_dir), part.name)
            zipfile.ZipFile(part).close()
            part.replace(archive)
        _unpack(archive, data_dir / "PAMAP2_Dataset" / "Protocol")
    except (OSError, HTTPException, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"Pamap2 could not be downloaded or unpacked ({error}). Put {archive.name} from "
            f"https://archive.ics.uci.edu/dataset/231 into {data_dir} by hand and run again."
        ) from error
    find(data_dir)


def _table(file: Path) -> np.ndarray:
    """The file's numbers (T, 54) as float32."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 1))
            ended = opened.read() == b"\n"
        table = np.loadtxt(file, np.float32, comments=None, ndmin=2, encoding="latin-1") if ended else None
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ValueError(_bad_line(file) or f"{file} cannot be read ({error}).") from error
    if table is None or table.shape[1] != len(COLUMNS):
        raise ValueError(_bad_line(file) or f"{file} is empty; copy or download it again.")
    return table


def _check(file: Path, table: np.ndarray) -> None:
    """Raise ValueError for the first line with a timestamp, an activity or a value that cannot be."""
    known = sorted((TRANSIENT, *ACTIVITIES, *OPTIONAL))
    time, activity = table[:, 0], table[:, 1]
    if (bad := ~(np.abs(time) < LAST_TIME)).any():  # NaN is bad too
        row, wrong = bad.argmax(), f"timestamp {time[bad][0]:g}; it must be in seconds, below {LAST_TIME}"
    elif (bad := ~np.isin(activity, known)).any():
        row, wrong = bad.argmax(), f"activity {activity[bad][0]:g}; it must be one of {', '.join(map(str, known))}"
    elif (bad := np.isinf(table)).any():
        row, column = np.argwhere(bad)[0]
        wrong = f"{COLUMNS[column]} {table[row, column]:g}; it must be finite, or NaN where it is missing"
    else:
        return
    raise ValueError(f"{file}, line {_line(file, int(row))} has the {wrong}.")


def _bad_line(file: Path) -> str | None:
    """What is wrong with the first line that does not hold 54 numbers."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place, fields = f"{file}, line {number}", line.split()
            if not line.endswith(b"\n"):
                return f"{file} is cut off in line {number}, which has no end; copy or download it again."
            if len(fields) not in (0, len(COLUMNS)):
                return f"{place} has {len(fields)} columns; it must have {len(COLUMNS)}."
            for column, field in zip(COLUMNS, fields, strict=False):
                try:
                    float(field)
                except ValueError:
                    return f"{place} has {field.decode('latin-1')!r} for {column}; it must be a number or NaN."
    return None


def _line(file: Path, row: int) -> int:
    """Number of the line, from 1, that holds `row` of the table: blank lines are not in it."""
    with file.open("rb") as lines:
        full = (number for number, line in enumerate(lines, 1) if line.strip())
        return next(number for i, number in enumerate(full) if i == row)


def _stamp(participant: str, file: Path) -> dict[str, Any]:
    """What a cache must have been made from; without size and time where the file is gone."""
    stamp: dict[str, Any] = {"version": VERSION, "participant": participant, "source": file.name}
    if file.exists():
        stamp |= {"bytes": file.stat().st_size, "modified": file.stat().st_mtime_ns}
    return stamp


def _write(store: Path, recording: Recording, stamp: dict[str, Any]) -> None:
    """A header of JSON, padded with spaces, then samples, stretches and activity as they lie in memory."""
    arrays = [t.numpy() for t in (recording.samples, recording.stretches, recording.activity)]
    crc = functools.reduce(lambda crc, array: zlib.crc32(array.data, crc), arrays, 0)
    header = stamp | {"rows": arrays[0].shape[1], "stretches": len(arrays[1]), "crc": crc}
    part = store.with_suffix(".part")
    with part.open("wb") as file:
        file.write(json.dumps(header).encode().ljust(HEADER))
        file.writelines(array.data for array in arrays)
    part.replace(store)


def _opened(store: Path, stamp: dict[str, Any]) -> Recording | str:
    """The recording in a cache, or why it cannot be used; "" where there is none."""
    if not store.exists():
        return ""
    try:
        raw = np.memmap(store, np.uint8, mode="c")
        header, body = json.loads(bytes(raw[:HEADER])), raw[HEADER:]
        rows = header["rows"]
        ends = np.cumsum([4 * len(CHANNELS) * rows, 16 * header["stretches"], 2 * rows])
        changed = [key for key, value in stamp.items() if header[key] != value]
    except (ValueError, KeyError, TypeError):
        return "it is damaged"
    if changed:
        return "it is of another version" if "version" in changed else f"{stamp['source']} has changed"
    if len(body) != ends[-1] or zlib.crc32(body.data) != header.get("crc"):
        return "it is damaged"
    samples, stretches, activity = (torch.from_numpy(part) for part in np.split(body, ends[:-1]))
    return Recording(
        participant=header["participant"],
        samples=samples.view(torch.float32).view(len(CHANNELS), rows),
        activity=activity.view(torch.int16),
        stretches=stretches.view(torch.int64).view(-1, 2),
    )


def _unpack(archive: Path, folder: Path) -> None:
    """The recordings of the archive within the archive, each complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as inner:
        with zipfile.ZipFile(archive) as outer, outer.open("PAMAP2_Dataset.zip") as packed:
            shutil.copyfileobj(packed, inner, 2**20)
        with zipfile.ZipFile(inner) as files:
            for member in files.namelist():
                if name := re.fullmatch(r"(?:.*/)?Protocol/(subject10[1-9]\.dat)", member):
                    part = folder / f"{name[1]}.part"
                    with files.open(member) as source, part.open("wb") as target:
                        shutil.copyfileobj(source, target, 2**20)
                    part.replace(folder / name[1])
