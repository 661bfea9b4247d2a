"""Measure `vmlite.datasets.corpus.cache`: speed on one core, and peak memory at two sizes of the corpus.

Writes 200 generated FLAC files of 10 to 15 s at 16 kHz, and hard links to them for larger corpora, into a temporary
folder; each size is cached by a new process. Run from the project's root: python notebooks/results/03_speech/caching/measure.py
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATE, FILES, SIZES = 16_000, 200, (200, 800, 200, 800, 200, 800)


def write(folder: Path) -> None:
    """Noise with the spectrum and the pauses of speech, roughly: FLAC makes about 150 kbit/s of it."""
    import numpy as np
    import soundfile

    generator = np.random.default_rng(0)
    for i in range(max(SIZES)):
        file = folder / f"{i:04d}.flac"
        if i >= FILES:
            os.link(folder / f"{i % FILES:04d}.flac", file)
            continue
        n = int(RATE * generator.uniform(10, 15))
        smooth = np.convolve(generator.standard_normal(n), np.hanning(12) / 6, "same")
        loudness = np.repeat(generator.uniform(0, 1, n // 2000 + 1) ** 3, 2000)[:n]
        soundfile.write(file, 0.1 * smooth * loudness, RATE)


def measure(folder: Path, n: int) -> None:
    """Print what caching the first n files takes, as JSON; called in a process of its own."""
    from vmlite.datasets.corpus import Recording, cache

    recordings = [Recording(file, {"speaker": str(i % 20)}) for i, file in enumerate(sorted(folder.glob("*.flac"))[:n])]
    with tempfile.TemporaryDirectory() as place:
        wall, processor = time.perf_counter(), time.process_time()
        corpus = cache("measured", recordings, Path(place), RATE, progress=False)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        seconds = int(corpus.lengths.sum()) / RATE
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"files": n, "hours": seconds / 3600, "times_real_time": seconds / wall,
                      "times_real_time_processor": seconds / processor, "peak_MiB": peak}))  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        os.sched_setaffinity(0, {0})
        os.environ["OMP_NUM_THREADS"] = "1"
        with tempfile.TemporaryDirectory() as made:
            write(Path(made))
            for size in SIZES:
                subprocess.run([sys.executable, __file__, made, str(size)], check=True)
