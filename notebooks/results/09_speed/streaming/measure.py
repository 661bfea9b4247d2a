"""Recordings a second out of a corpus of 1, 4 and 16 times the memory limit of the process that reads it.

Writes 10 GiB of noise in the layout of a speech cache into a temporary folder (TMPDIR, which must be on a disk). Each
measurement is a new process in a memory cgroup, whose limit also counts the page cache, and starts with no page of the
file in memory. It asks for random recordings, in turns as waveforms (`batch`) and through the front end (`inputs`),
whose spectrograms are not kept. Prints one line of JSON: medians of three interleaved rounds.

Linux, as root. Run from the project's root: python notebooks/results/09_speed/streaming/measure.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT, TIMES, ROUNDS = 640 * 2**20, (1, 4, 16), 3
RATE, RECORDING, WINDOW, BATCH, BATCHES = 16_000, 12 * 16_000, 150_526, 64, 12
V1 = Path("/sys/fs/cgroup/memory")
GROUP = (V1 if V1.is_dir() else V1.parent) / "vmlite-streaming"


def write(file: Path) -> None:
    """Noise for the largest corpus, on the disk."""
    generator = np.random.default_rng(0)
    with file.open("wb") as data:
        for _ in range(max(TIMES) * LIMIT // 2**26):
            data.write(generator.bytes(2**26))
        os.fsync(data.fileno())


def measure(file: Path, times: int, seed: int) -> None:
    """Print recordings a second and the process's own memory, as JSON; called in a process of its own."""
    (GROUP / "cgroup.procs").write_text(str(os.getpid()))  # before torch, so that its memory counts
    os.posix_fadvise(os.open(file, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    import torch

    from vmlite.datasets import speech
    from vmlite.datasets.corpus import _opened
    from vmlite.datasets.corpus_files import Entry, Recording

    speech.CACHE_LIMIT = 0
    n = times * LIMIT // (2 * RECORDING)
    entries = [Entry("", 0, i * RECORDING, RECORDING, 0) for i in range(n)]
    corpus = _opened(file, entries, [Recording(file, {})] * n, RATE)
    data = speech.SpeechDataset("noise", corpus, torch.arange(n), {}, {}, WINDOW, 64, speech.LogMel(RATE, WINDOW, 64))
    torch.manual_seed(seed)
    seconds = {"batch": 0.0, "inputs": 0.0}
    for _ in range(BATCHES):
        for name in seconds:
            began = time.perf_counter()
            getattr(data, name)(torch.randint(n, (BATCH,)), random=True)
            seconds[name] += time.perf_counter() - began
    own = int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024
    print(json.dumps({name: BATCH * BATCHES / s for name, s in seconds.items()} | {"own_MiB": own}))


def main() -> None:
    """Set the limit and measure all sizes in turns."""
    found: dict[int, list[dict[str, float]]] = {times: [] for times in TIMES}
    try:
        try:
            GROUP.mkdir(exist_ok=True)
            (GROUP / ("memory.limit_in_bytes" if V1.is_dir() else "memory.max")).write_text(str(LIMIT))
        except OSError as error:
            sys.exit(f"no memory limit can be set ({error}); run as root on Linux with a cgroup controller for memory.")
        with tempfile.TemporaryDirectory() as folder:
            write(file := Path(folder) / "noise.int16")
            for turn in range(ROUNDS):
                for times in TIMES:
                    command = [sys.executable, __file__, str(file), str(times), str(turn)]
                    found[times].append(json.loads(subprocess.check_output(command)))
    finally:
        if GROUP.is_dir():
            GROUP.rmdir()
    medians = {f"{t}x": {k: round(statistics.median(r[k] for r in rows)) for k in rows[0]} for t, rows in found.items()}
    print(json.dumps({"limit_MiB": LIMIT // 2**20, "threads": os.environ.get("OMP_NUM_THREADS"), "sizes": medians}))


if __name__ == "__main__":
    if sys.argv[1:]:
        measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
