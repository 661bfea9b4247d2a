"""Does a faster step learn the same? Whole runs of the preset quick (images) for each step, and floors.

Writes results.json beside this file, or in cifar10/, after each run; runs that it already holds are not repeated. The
step is named in the rows' `condition`. Takes two to three hours on one core for either data set.

Run from the project's root, for CIFAR-10 with the folder that holds cifar10-jpeg.npz:

    OMP_NUM_THREADS=1 python notebooks/results/09_speed/fidelity/measure.py [DATA_DIR]
"""

import sys
import time
from pathlib import Path
from typing import Any

from vmlite import results
from vmlite.evaluate import evaluate
from vmlite.pretrain import load_data, start, train
from vmlite.recipes import preset

STEPS: dict[str, tuple[int, dict[str, Any]]] = {  # the number of seeds, and what differs from the preset
    "joint, float32": (8, {}),
    "noise": (6, {"views": "noise"}),
    "random-encoder": (6, {"views": "noise", "epochs": 1}),
    "alternating, float32": (8, {"update": "alternating"}),
    "joint, bf16": (8, {"precision": "bf16"}),
    "joint, batch norm each": (3, {"batch_norm": "each"}),
    "joint, compiled": (8, {"compile": True}),
}
CIFAR10 = {"noise": 3, "random-encoder": 3, "joint, batch norm each": 5}  # seeds; of the others ten

if __name__ == "__main__":
    steps, out, other = STEPS, Path(__file__).parent, {}
    if len(sys.argv) > 1:
        steps = {name: (CIFAR10.get(name, 10), changes) for name, (_, changes) in STEPS.items()}
        out = out / "cifar10"
        other = {"dataset": "cifar10-jpeg", "data_dir": sys.argv[1], "input_size": 20}
    kept = results.read(out) if (out / "results.json").exists() else {"rows": [], "seconds": 0.0}
    rows, spent, began = kept["rows"], kept["seconds"], time.time()
    done = {(row["condition"] or row["views"], row["seed"]) for row in rows}
    asked = [(seed, name) for name, (seeds, _) in steps.items() for seed in range(seeds)]
    base = preset("quick", device="cpu", **other)
    data = load_data(base)
    for seed, name in sorted(asked):
        if (name, seed) in done:
            continue
        recipe = base.replace(seed=seed, **steps[name][1])
        run = start(recipe, data.train)
        if name != "random-encoder":
            train(run)
        value = evaluate(run, data.test, metrics=["linear_accuracy"])["linear_accuracy"]
        print(name, seed, round(value, 1), flush=True)
        views = name if name == "random-encoder" else recipe.views
        condition = None if name in ("noise", "random-encoder") else name
        about = (recipe, data.test.name, views, "linear_accuracy", value, len(data.test))
        rows.append(results.row(*about, condition=condition))
        seconds = spent + time.time() - began
        results.write(out, rows, notebook="09_speed", preset="quick", params={}, device="cpu", seconds=seconds)
