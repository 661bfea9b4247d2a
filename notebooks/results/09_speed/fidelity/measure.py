"""Does a faster step learn the same? Whole runs of the preset quick (images) for each step, eight seeds.

Writes results.json beside this file after each run; runs that it already holds are not repeated. The step is named in
the rows' `condition`. Takes about an hour on one core.

Run from the project's root: OMP_NUM_THREADS=1 python notebooks/results/09_speed/fidelity/measure.py
"""

import time
from pathlib import Path

from vmlite import results
from vmlite.evaluate import evaluate
from vmlite.pretrain import load_data, start, train
from vmlite.recipes import preset

STEPS = {
    "alternating, float32": {"update": "alternating"},
    "joint, float32": {},
    "joint, bf16": {"precision": "bf16"},
    "joint, batch norm each": {"batch_norm": "each"},
    "joint, compiled": {"compile": True},
}
SEEDS = 8
OUT = Path(__file__).parent

if __name__ == "__main__":
    kept = results.read(OUT / "results.json") if (OUT / "results.json").exists() else {"rows": [], "seconds": 0.0}
    rows, spent, began = kept["rows"], kept["seconds"], time.time()
    base = preset("quick", device="cpu")
    data = load_data(base)
    done = {(row["condition"], row["seed"]) for row in rows}
    for seed in range(SEEDS):
        for name, changes in STEPS.items():
            if (name, seed) in done:
                continue
            recipe = base.replace(seed=seed, **changes)
            run = train(start(recipe, data.train))
            value = evaluate(run, data.test, metrics=["linear_accuracy"])["linear_accuracy"]
            rows.append(
                results.row(
                    recipe, data.test.name, "viewmaker", "linear_accuracy", value, len(data.test), condition=name
                )
            )
            print(seed, name, round(value, 1), flush=True)
            results.write(
                OUT,
                rows,
                notebook="09_speed",
                preset="quick",
                params={},
                device="cpu",
                seconds=spent + time.time() - began,
            )
