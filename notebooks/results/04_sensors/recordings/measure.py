"""Is the viewmaker ahead of noise for other people too? The preset quick of notebook 04 on recordings of other seeds.

Appends a line of JSON to measured.jsonl beside this file for each run: linear accuracy on participants 5 and 6, with the
labels of all training participants and with those of participant 1. Runs that it already holds are not repeated. Three to
four minutes for a seed of the networks, on one core. Run from the project's root:

    OMP_NUM_THREADS=1 python notebooks/results/04_sensors/recordings/measure.py 1 2 3 4
    OMP_NUM_THREADS=1 python notebooks/results/04_sensors/recordings/measure.py --precision bf16 1 2 3 4
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from vmlite.datasets import Splits
from vmlite.datasets.synthetic import motion_files
from vmlite.environment import project_path
from vmlite.evaluate import extract, labelled, linear_predictions, percent, raw_inputs
from vmlite.pretrain import load_data, start, train
from vmlite.recipes import PRECISIONS, preset

SEEDS = (0, 1, 2)
OUT = Path(__file__).with_name("measured.jsonl")


def accuracies(data: Splits, index: tuple[Tensor, Tensor], x: Tensor, x_test: Tensor) -> dict[str, dict[str, float]]:
    """Percent of each test participant's labelled windows, by whose labels the classifier was fitted on."""
    (known, asked), task = index, "activity"
    y, y_test, person = data.train.targets[task][known], data.test.targets[task][asked], data.test.participants[asked]
    first = data.train.participants[known] == 1
    told = {
        "all": linear_predictions(x, y, x_test),
        "1": linear_predictions(x[first], y[first], x_test),
    }
    return {
        whose: {str(who): round(percent(answer[person == who], y_test[person == who]), 1) for who in (5, 6)}
        for whose, answer in told.items()
    }


def measure(recordings: int, precision: str, done: set[tuple[int, str, str, int | None]]) -> None:
    """Noise and viewmaker with each seed of the networks, on recordings of one seed; in float32 the raw input too."""
    folder = project_path(f"runs/motions-{recordings}")
    if not (folder / "Protocol").is_dir():
        motion_files.write(folder, recordings)
    recipe = preset(
        "quick", "sensors", dataset="pamap2", data_dir=folder, window_seconds=4.9, device="cpu", precision=precision
    )
    data = load_data(recipe)
    index = labelled(data.train, "activity"), labelled(data.test, "activity")
    runs: list[tuple[str, int | None]] = [(views, seed) for seed in SEEDS for views in ("noise", "viewmaker")]
    for views, seed in runs if precision == "bf16" else [("raw-input", None), *runs]:
        if (recordings, precision, views, seed) in done:
            continue
        if seed is None:
            features = [raw_inputs(part, i) for part, i in zip(data, index, strict=True)]
        else:
            encoder = train(start(recipe.replace(views=views, seed=seed), data.train)).encoder
            features = [extract(encoder, part, index=i) for part, i in zip(data, index, strict=True)]
        found = accuracies(data, index, *features)
        about = {"recordings": recordings, "precision": precision, "views": views, "seed": seed}
        line = about | {"torch": torch.__version__, "labels": found}
        print(json.dumps(line), flush=True)
        with OUT.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=int, nargs="+", help="seeds of the recordings")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    asked = parser.parse_args()
    lines = map(json.loads, OUT.read_text().splitlines() if OUT.exists() else [])
    kept = {(line["recordings"], line["precision"], line["views"], line["seed"]) for line in lines}
    for wanted in asked.recordings:
        measure(wanted, asked.precision, kept)
