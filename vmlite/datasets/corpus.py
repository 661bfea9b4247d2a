"""A corpus: all recordings of a data set in one memory-mapped file, so that training never opens an audio file."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vmlite.datasets.base import first_of
from vmlite.datasets.corpus_files import (
    PADDING,
    VERSION,
    Entry,
    Files,
    Recording,
    ahead,
    alone,
    damaged,
    digest,
    read_audio,
    read_index,
    whole_cache,
    write_index,
)
from vmlite.hardware import total_memory

__all__ = ["Corpus", "Recording", "cache", "in_memory", "verify"]

THREADS = 4
SPOT_CHECKS = 32  # recordings whose checksums are compared when a cache is opened


@dataclass(frozen=True)
class Corpus:
    """Recordings, one after the other.

    Attributes:
        samples: (M,) int16, memory-mapped or on the device; ends in PADDING zeros.
        starts, lengths: (N,) of each recording, in samples.
        sample_rate: in Hz.
        labels: for each task the class of each recording.
        splits: "train" or "test" for each recording.
        sources: where each came from, for messages.
        mapped: the file that `samples` lie in, where they are memory-mapped.
    """

    samples: Tensor
    starts: Tensor
    lengths: Tensor
    sample_rate: int
    labels: dict[str, list[str]]
    splits: list[str]
    sources: list[str]
    mapped: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def windows(self, rows: Tensor, length: int, tail: Tensor) -> Tensor:
        """Stretches (N, length) in [-1, 1] of the recordings `rows` (N,), at the tail where `tail` is 1, else the head.

        What a recording lacks in length is silence after it. The result lies on the device of `rows`.
        """
        device, rows, tail = rows.device, rows.to(self.lengths.device), tail.to(self.lengths.device)
        lengths = self.lengths[rows]
        starts = self.starts[rows] + tail * (lengths - length).clamp_min(0)
        if self.mapped is not None and hasattr(mmap, "MADV_WILLNEED"):
            for start in (2 * starts).tolist():  # asks for all stretches at once; faults fetch them one by one
                page = start - start % mmap.PAGESIZE
                self.mapped.madvise(mmap.MADV_WILLNEED, page, start + 2 * length - page)
        cut = self.samples.unfold(0, length, 1)[starts].to(device) / 32768
        return cut.masked_fill_(torch.arange(length, device=device) >= lengths.to(device)[:, None], 0)

    def to(self, device: torch.device) -> Self:
        """The same corpus on `device`; a file that takes more than half of its memory stays on the disk."""
        if self.mapped is not None and 2 * self.samples.nbytes > total_memory(device):
            return self
        moved = {name: getattr(self, name).to(device) for name in ("samples", "starts", "lengths")}
        return dataclasses.replace(self, **moved, mapped=self.mapped if device.type == "cpu" else None)


def in_memory(waves: Tensor, sample_rate: int, labels: dict[str, list[str]], splits: list[str]) -> Corpus:
    """A corpus of waveforms (N, T) of one length: int16, or floats in [-1, 1]."""
    if waves.is_floating_point():
        waves = (waves * 32768).round_().clamp_(-32768, 32767).short()
    n, length = waves.shape
    return Corpus(
        samples=torch.cat([waves.flatten(), waves.new_zeros(PADDING)]),
        starts=torch.arange(n, device=waves.device) * length,
        lengths=torch.full((n,), length, device=waves.device),
        sample_rate=sample_rate,
        labels=labels,
        splits=splits,
        sources=[f"recording {i}" for i in range(n)],
    )


def cache(
    name: str,
    recordings: Sequence[Recording],
    folder: Path,
    sample_rate: int,
    skip_bad: bool = False,
    progress: bool = True,
) -> Corpus:
    """The corpus of `recordings`, from one file of int16 samples below `folder` that is made at the first use.

    Stereo is averaged and other rates are resampled. An interrupted call goes on where it stopped. A cache that was
    made of other files, at another rate, or that is damaged, is made again, and a line says why.

    Args:
        name: of the data set, for file names and messages.
        recordings: at least one.
        folder: for caches, for example data/cache.
        sample_rate: of the corpus, in Hz.
        skip_bad: leave out recordings that cannot be read and print their number.
        progress: show a bar.

    Raises ValueError for no recordings, for recordings that are missing, corrupt, empty or not finite (at the end, with
    their number and three names), and for a cache that must be made again from files that are gone.
    """
    if not recordings:
        raise ValueError(f"{name} has no recordings; check the folder that it is read from.")
    folder.mkdir(parents=True, exist_ok=True)
    files = Files.of(name, folder)
    sizes = [r.file.stat().st_size if r.file.is_file() else -1 for r in recordings]
    with alone(files.index.with_suffix(".lock")):
        found = _found(files, recordings, sizes, sample_rate)
        if found and isinstance(found, str):
            gone = [str(r.file) for r, size in zip(recordings, sizes, strict=True) if size < 0]
            if gone and not skip_bad:
                raise ValueError(
                    f"the cache {files.data} cannot be used ({found}) and not be made again, because sources are missing: "
                    f"{first_of(gone)}. Restore them or the cache."
                )
            print(f"{name}: the cache is made again, because {found}.")
        entries = _made(name, files, recordings, sizes, sample_rate, progress) if isinstance(found, str) else found
        if bad := [f"{e.file} ({e.error})" for e in entries if e.error]:
            if not skip_bad or len(bad) == len(entries):
                raise ValueError(
                    f"{len(bad)} of {len(entries)} recordings of {name} cannot be read: {first_of(bad)}. Mend or remove "
                    "them, or leave them out with skip_bad=True; what has been read is kept."
                )
            print(f"{name}: {len(bad)} of {len(entries)} recordings cannot be read and are left out: {first_of(bad)}.")
        if isinstance(found, str):
            _finish(files, entries, recordings, sample_rate)
    return _opened(files.data, entries, recordings, sample_rate)


def verify(name: str, folder: Path) -> list[str]:
    """The sources of all recordings in a cache whose samples are damaged; empty where all is well.

    Raises ValueError where there is no complete cache of this name.
    """
    files = Files.of(name, folder)
    whole = whole_cache(files)
    if isinstance(whole, str):
        raise ValueError(f"there is no complete cache of {name} in {folder}: {whole or 'it was never finished'}.")
    return damaged(files.data, tqdm(whole[1], desc=f"verifying {name}", leave=False, delay=1))


def _found(files: Files, recordings: Sequence[Recording], sizes: list[int], sample_rate: int) -> list[Entry] | str:
    """The entries of a finished cache, one for each recording, or why it does not fit; "" where there is none."""
    whole = whole_cache(files)
    if isinstance(whole, str):
        return whole
    header, entries = whole
    if sample_rate != header["sample_rate"]:
        return f"it was made at {header['sample_rate']} Hz and {sample_rate} Hz are asked"
    if [e.file for e in entries] != [str(r.file) for r in recordings]:
        return "the list of recordings has changed"
    if changed := [e.file for e, size in zip(entries, sizes, strict=True) if size not in (e.size, -1)]:
        return f"sources have changed in size: {first_of(changed)}"
    if broken := damaged(files.data, entries[:: -(-len(entries) // SPOT_CHECKS)]):
        return f"the samples of recordings are damaged: {first_of(broken)}"
    if header["labels"] != digest(recordings):
        write_index(files.index, entries, recordings, sample_rate)
    return entries


def _made(
    name: str, files: Files, recordings: Sequence[Recording], sizes: list[int], sample_rate: int, progress: bool
) -> list[Entry]:
    """Read what the unfinished cache lacks. An entry for each recording, with its error where it cannot be read."""
    part = files.part()
    kept = _resumed(part, {"version": VERSION, "sample_rate": sample_rate})
    end = kept[-1].start + kept[-1].length if kept else 0
    entries = {(e.file, e.size): e for e in kept}
    sources = [(str(r.file), size) for r, size in zip(recordings, sizes, strict=True)]
    todo = [source for source in dict.fromkeys(sources) if source not in entries]
    done = len(sources) - len(todo)
    bar = tqdm(total=len(sources), initial=done, desc=f"caching {name}", leave=False, delay=1, disable=not progress)
    with bar, part.data.open("ab") as data, part.index.open("a") as index, ThreadPoolExecutor(THREADS) as pool:
        for source, samples in ahead(pool, lambda source: read_audio(source[0], sample_rate), todo):
            bar.update()
            if isinstance(samples, str):
                entries[source] = Entry(*source, 0, 0, 0, samples)
                continue
            entries[source] = Entry(*source, end, len(samples), zlib.crc32(samples.data))
            end += len(samples)
            data.write(samples.data)
            data.flush()  # before the line that vouches for it
            index.write(json.dumps(entries[source]._asdict()) + "\n")
            index.flush()
    return [entries[source] for source in sources]


def _resumed(part: Files, header: dict[str, Any]) -> list[Entry]:
    """The recordings that an interrupted call has finished; whatever lies behind them is cut off."""
    found, entries = read_index(part.index) if part.index.exists() else ({}, [])
    size = part.data.stat().st_size if part.data.exists() else 0
    kept = [e for e in entries if 2 * (e.start + e.length) <= size] if found == header else []
    with part.data.open("ab") as data:
        data.truncate(2 * (kept[-1].start + kept[-1].length) if kept else 0)
    part.index.write_text("".join(json.dumps(line) + "\n" for line in (header, *(e._asdict() for e in kept))))
    return kept


def _finish(files: Files, entries: list[Entry], recordings: Sequence[Recording], sample_rate: int) -> None:
    part = files.part()
    with part.data.open("ab") as data:
        data.write(bytes(2 * PADDING))
        os.fsync(data.fileno())
    files.index.unlink(missing_ok=True)  # the old index must not be taken for one of the new samples
    part.data.replace(files.data)
    write_index(files.index, entries, recordings, sample_rate)
    part.index.unlink()


def _opened(data: Path, entries: list[Entry], recordings: Sequence[Recording], sample_rate: int) -> Corpus:
    kept = [(e, r) for e, r in zip(entries, recordings, strict=True) if not e.error]
    with data.open("rb") as file:  # read-only: Linux refuses copy-on-write for files larger than the memory
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        samples = torch.from_numpy(np.frombuffer(mapped, np.int16))
    return Corpus(
        samples=samples,
        starts=torch.tensor([e.start for e, _ in kept]),
        lengths=torch.tensor([e.length for e, _ in kept]),
        sample_rate=sample_rate,
        labels={
            task: [r.labels.get(task, "") for _, r in kept]
            for task in dict.fromkeys(t for _, r in kept for t in r.labels)
        },
        splits=[r.split for _, r in kept],
        sources=[e.file for e, _ in kept],
        mapped=mapped,
    )
