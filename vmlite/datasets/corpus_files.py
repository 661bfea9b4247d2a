"""The files of a corpus: the index of its cache, and reading audio into it."""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import soundfile
import torch
import torchaudio

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PADDING = 2**18  # samples of silence after the last recording, so that every window lies within the file
VERSION = 1  # of the cache's files
LOOK_AHEAD = 8  # recordings that are decoded before their turn

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Recording:
    """An audio file, its labels (task -> class) and the split it belongs to, "train" or "test"."""

    file: Path
    labels: dict[str, str]
    split: str = "train"


class Entry(NamedTuple):
    """A line of the index: a source file, its size in bytes, and where its samples are, or why there are none."""

    file: str
    size: int
    start: int
    length: int
    crc: int
    error: str = ""


@dataclass(frozen=True)
class Files:
    """Where a cache has its samples and its index."""

    data: Path
    index: Path

    @classmethod
    def of(cls, name: str, folder: Path) -> Self:
        """The files of the data set `name` below `folder`."""
        stem = re.sub(r"[^\w.-]", "-", name)
        return cls(folder / f"{stem}.int16", folder / f"{stem}.jsonl")

    def part(self) -> Self:
        """The same files while they are being made."""
        return type(self)(*(file.with_name(f"{file.name}.part") for file in (self.data, self.index)))


def whole_cache(files: Files) -> tuple[dict[str, Any], list[Entry]] | str:
    """Header and entries of a cache whose files have their full size, or what they lack; "" where there are none."""
    if not files.index.exists():
        return ""
    header, entries = read_index(files.index)
    if header.get("version") != VERSION or "recordings" not in header:
        return "its index is damaged or of another version"
    if len(entries) != header["recordings"]:
        return f"its index has {len(entries)} of {header['recordings']} recordings"
    size = files.data.stat().st_size if files.data.exists() else 0
    if size != 2 * header["samples"]:
        return f"its samples have {size} of {2 * header['samples']} bytes"
    return header, entries


def read_index(index: Path) -> tuple[dict[str, Any], list[Entry]]:
    """Header and entries up to the first line that is not whole."""
    header: dict[str, Any] = {}
    entries = []
    with index.open(errors="replace") as file, contextlib.suppress(ValueError, KeyError, TypeError):
        header = dict(json.loads(next(file, "")))
        for line in file:
            fields = json.loads(line)
            entries.append(Entry(*(fields[key] for key in Entry._fields)))
    return header, entries


def write_index(index: Path, entries: list[Entry], recordings: Sequence[Recording], sample_rate: int) -> None:
    """Replace the index at once: a header, then a line for each recording with its entry, labels and split."""
    samples = max(e.start + e.length for e in entries) + PADDING
    header = {"version": VERSION, "sample_rate": sample_rate, "recordings": len(entries), "samples": samples}
    new = index.with_suffix(".new")
    with new.open("w") as file:
        file.write(json.dumps(header | {"labels": digest(recordings)}) + "\n")
        for entry, recording in zip(entries, recordings, strict=True):
            line = entry._asdict() | {"labels": recording.labels, "split": recording.split}
            file.write(json.dumps(line) + "\n")
    new.replace(index)


def digest(recordings: Sequence[Recording]) -> int:
    """A checksum of all labels and splits."""
    return zlib.crc32(json.dumps([(r.labels, r.split) for r in recordings]).encode())


def damaged(data: Path, entries: Iterable[Entry]) -> list[str]:
    """The sources of those entries whose samples do not have their checksum."""
    samples = np.memmap(data, np.int16, mode="r")
    return [e.file for e in entries if not e.error and zlib.crc32(samples[e.start : e.start + e.length].data) != e.crc]


def read_audio(file: str, sample_rate: int) -> np.ndarray | str:
    """The samples (T,) of a file as int16, or why they cannot be read."""
    if not Path(file).exists():
        return "it does not exist"
    try:
        with soundfile.SoundFile(file) as sound:
            exact = sound.subtype == "PCM_16" and sound.channels == 1
            wave = sound.read(dtype="int16" if exact else "float32")
            rate, frames = sound.samplerate, sound.frames
            cut = re.search(r"^ *data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    except (OSError, soundfile.SoundFileError) as error:
        return str(getattr(error, "error_string", error)).rstrip(".")
    if len(wave) < frames or (cut and int(cut[2]) < int(cut[1]) < 2**31):  # streams state 2**32 - 1 or the like
        return "it is cut short"
    if not len(wave):
        return "it has no samples"
    if exact and rate == sample_rate:
        return wave
    wave = wave / np.float32(32768) if exact else wave
    wave = wave.mean(1) if wave.ndim == 2 else wave
    if not np.isfinite(wave).all():
        return "it has samples that are NaN or infinite"
    if rate != sample_rate:
        wave = torchaudio.functional.resample(torch.from_numpy(wave), rate, sample_rate).numpy()
    return to_int16(wave)


def to_int16(wave: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] as int16; what lies beyond is clipped."""
    return np.rint(wave * 32768).clip(-32768, 32767).astype(np.int16)


def ahead(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Each item with its result, in order, at most LOOK_AHEAD of them ahead of the caller."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > LOOK_AHEAD:
            first, result = waiting.popleft()
            yield first, result.result()
    for first, result in waiting:
        yield first, result.result()


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time; the others wait and find the cache made."""
    with lock.open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
