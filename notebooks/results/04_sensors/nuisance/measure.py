"""How sensitive encoders are to nuisance, what marks a recording and not the activity: python .../nuisance/measure.py RUN [RUN ...]

A RUN is the `out_dir` of a run of notebook 04, which holds its checkpoints. Prints a line of JSON for the raw input, for
each arm, and for the encoder that noise began with, as that notebook measures it: on participant 5's labelled windows,
and the same movements recorded by units that sit, rattle and err otherwise.
"""

import functools
import json
import sys
from pathlib import Path

from vmlite import checkpoint
from vmlite.datasets import sensors
from vmlite.evaluate import extract, labelled, raw_inputs, sensitivity
from vmlite.pretrain import load_data, start
from vmlite.recipes import Recipe

files = [file for folder in sys.argv[1:] for file in sorted(Path(folder).glob("*.pt"))]
recipes = [Recipe.from_json(file.with_suffix(".json").read_text()) for file in files]
data = load_data(recipes[0])
pair = data.test.only("5"), sensors.other_nuisance(data.test.only("5"))
asked = labelled(pair[0], "activity")


def tell(file, views, features_of):
    value = sensitivity(*(features_of(part, index=asked) for part in pair))
    print(json.dumps({"run": file and file.parent.name, "views": views, "sensitivity": round(value, 3)}), flush=True)


tell(None, "raw-input", raw_inputs)
for file, recipe in zip(files, recipes, strict=True):
    run = start(recipe, data.train)
    features_of = functools.partial(extract, run.encoder)
    if recipe.views == "noise":
        tell(file, "random-encoder", features_of)
    checkpoint.load(run, file)
    tell(file, recipe.views, features_of)
