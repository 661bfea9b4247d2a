"""Does a faster step learn the same? Whole runs of the preset quick (images) for each step, six seeds, and floors.

Writes results.json beside this file after each run; runs that it already holds are not repeated. The step is named in
the rows' `condition`. Takes an hour and a half on one core.

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
    "noise": {"views": "noise"},
    "random-encoder": {"views": "noise", "epochs": 1},
}
SEEDS = 6
OUT = Path(__file__).parent

if __name__ == "__main__":
    kept = results.read(OUT / "results.json") if (OUT / "results.json").exists() else {"rows": [], "seconds": 0.0}
    rows, spent, began = kept["rows"], kept["seconds"], time.time()
    base = preset("quick", device="cpu")
    data = load_data(base)
    done = {(row["condition"] or row["views"], row["seed"]) for row in rows}
    for seed in range(SEEDS):
        for name, changes in STEPS.items():
            if (name, seed) in done:
                continue
            recipe = base.replace(seed=seed, **changes)
            run = start(recipe, data.train)
            if name != "random-encoder":
                train(run)
            value = evaluate(run, data.test, metrics=["linear_accuracy"])["linear_accuracy"]
            views = name if name == "random-encoder" else recipe.views
            about = {"condition": None if name in ("noise", "random-encoder") else name}
            rows.append(results.row(recipe, data.test.name, views, "linear_accuracy", value, len(data.test), **about))
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
