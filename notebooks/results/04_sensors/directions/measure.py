"""Along how many directions the features of trained encoders spread: python .../directions/measure.py RUN [RUN ...]

A RUN is the `out_dir` of a run of notebook 04, which holds its checkpoints. Prints a line of JSON for each of its arms,
about the features of the labelled training windows: the participation ratio of the eigenvalues of their covariance,
which is the number of directions where all are equal, and the share of the variance that lies between activities.
"""

import json
import sys
from pathlib import Path

import torch

from vmlite import checkpoint
from vmlite.evaluate import extract, labelled
from vmlite.pretrain import load_data, start
from vmlite.recipes import Recipe

for folder in map(Path, sys.argv[1:]):
    for arm in ("noise", "viewmaker"):
        recipe = Recipe.from_json((folder / f"{arm}.json").read_text())
        run = start(recipe, load_data(recipe).train)
        checkpoint.load(run, folder / f"{arm}.pt")
        known = labelled(run.train, "activity")
        x, y = extract(run.encoder, run.train, index=known), run.train.targets["activity"][known]
        x = x - x.mean(0)
        size = torch.linalg.eigvalsh(x.T @ x)
        within = sum((x[y == c] - x[y == c].mean(0)).square().sum() for c in y.unique())
        line = {"run": folder.name, "views": arm, "directions": float(size.sum() ** 2 / size.square().sum())}
        line["between_activities"] = float(1 - within / size.sum())
        print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in line.items()}), flush=True)
