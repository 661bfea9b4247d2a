"""Measure `vmlite.datasets.pamap2.cached` at the size of Pamap2: first caching, then opening, each in a new process.

Writes one text file of 320,000 rows and eight copies of it into a temporary folder (1.3 GB; the cache takes 0.6 GB).
Opening includes the checksums of all samples. Run from the project's root: python notebooks/results/04_sensors/reading/measure.py
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, KINDS, RUNS, CORES = 320_000, 5_000, 3, {0, 1}


def write(folder: Path) -> None:
    """Values with the digits of the real files, repeated after KINDS rows; a heart rate in every eleventh row."""
    import numpy as np

    from vmlite.datasets.pamap2 import PARTICIPANTS

    generator = np.random.default_rng(0)
    values = generator.normal(0, 1, (KINDS, 51)) * generator.choice([0.05, 3, 40], 51)
    kinds = [" ".join(f"{v:.6g}" for v in row) for row in values.tolist()]
    first = folder / "subject101.dat"
    with first.open("w") as file:
        for i in range(ROWS):
            heart = 100 + i % 7 if i % 11 == 0 else "NaN"
            file.write(f"{8.38 + i / 100:.2f} {i // 25_000 % 8} {heart} {kinds[i % KINDS]}\n")
    for participant in PARTICIPANTS[1:]:
        shutil.copyfile(first, folder / f"subject10{participant}.dat")


def measure(folder: Path) -> None:
    """Print the seconds that one call takes, as JSON; called in a process of its own."""
    from vmlite.datasets.pamap2 import cached, find

    wall, processor = time.perf_counter(), time.process_time()
    recordings = cached("measured", find(folder), folder / "cache", progress=False)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    rows = sum(r.samples.shape[1] for r in recordings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "seconds": wall, "seconds_processor": processor, "peak_MiB": peak}))


def run(folder: Path) -> dict[str, float]:
    """What `measure` prints."""
    return json.loads(subprocess.run([sys.executable, __file__, folder], check=True, capture_output=True).stdout)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
    else:
        os.sched_setaffinity(0, CORES & os.sched_getaffinity(0))
        os.environ["OMP_NUM_THREADS"] = "1"
        with tempfile.TemporaryDirectory() as made:
            write(Path(made))
            for _ in range(RUNS):
                shutil.rmtree(Path(made) / "cache", ignore_errors=True)
                caching, opening = run(Path(made)), run(Path(made))
                print(json.dumps({"text_MB": sum(f.stat().st_size for f in Path(made).glob("*.dat")) / 1e6, **caching,
                                  "seconds_to_open": opening["seconds"], "peak_MiB_to_open": opening["peak_MiB"]}),
                      flush=True)  # fmt: skip
