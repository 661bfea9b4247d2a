"""Small trained networks that come with the package: our own runs, something to look at before one's own training.

    python -m vmlite.shipped              train all of them again, as `make weights` does
    python -m vmlite.shipped spirograph   only this one

Each network is a safetensors file: its weights in half precision and, as metadata, the recipe, what it takes, and the
version of torch; an encoder's also says how much it has learned, measured with the weights as they are in the file.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import nn

from vmlite.build import Inputs, build_encoder, build_views
from vmlite.datasets import Dataset
from vmlite.encoders import Encoder
from vmlite.evaluate import evaluate, labelled
from vmlite.pretrain import Run, load_data, seeded, start, train
from vmlite.recipes import Recipe, one_of, preset
from vmlite.viewmaker import Viewmaker

FOLDER = Path(__file__).with_name("weights")
BUDGETS = {  # the sweep of notebook 04; of these runs the viewmakers alone
    f"motions-eps{eps}": preset("quick", "sensors", eps=eps, device="cpu") for eps in (0.02, 0.05, 0.1, 0.2, 0.5, 2.0)
}
SHIPPED: dict[str, Recipe] = {  # encoders of width 12: in half precision below a megabyte
    "spirograph": preset("quick", "images", encoder_width=12, device="cpu"),
    "voices": preset("quick", "speech", encoder_width=12, device="cpu"),
    "motions": preset("quick", "sensors", encoder_width=12, device="cpu"),
    **BUDGETS,
}


class Shipped(NamedTuple):
    """Trained networks on the CPU, in eval mode and single precision.

    `accuracy` is the linear accuracy of the encoder's features on `task`, in percent. `encoder`, `accuracy` and `task`
    are None where the viewmaker comes alone.
    """

    recipe: Recipe
    viewmaker: Viewmaker
    encoder: Encoder | None = None
    accuracy: float | None = None
    task: str | None = None


def load(name: str) -> Shipped:
    """The networks called `name`, one of SHIPPED. Needs no data set and leaves torch's generator as it is.

    Raises ValueError for other names, and for a file that is missing, damaged, or does not fit the recipe in it.
    """
    one_of("shipped network", name, SHIPPED)
    viewmaker, about = _read(name, "viewmaker")
    assert isinstance(viewmaker, Viewmaker)
    recipe = Recipe.from_json(about["recipe"])
    if name in BUDGETS:
        return Shipped(recipe, viewmaker)
    encoder, about = _read(name, "encoder")
    assert isinstance(encoder, Encoder)
    return Shipped(recipe, viewmaker, encoder, float(about["linear_accuracy"]), about["task"])


def make(name: str) -> None:
    """Train and evaluate the run called `name`, one of SHIPPED, and write its files."""
    one_of("shipped network", name, SHIPPED)
    data = load_data(SHIPPED[name])
    run = start(SHIPPED[name], data.train)
    print(f"{name}: {run.steps} steps")
    save(name, train(run), None if name in BUDGETS else data.test)


def save(name: str, run: Run, test: Dataset | None = None) -> None:
    """Write the run's viewmaker and, where test examples are given, its encoder with its linear accuracy on them.

    The run's networks are rounded to half precision, so that what is measured is what is written.
    """
    viewmaker = next(view for view in run.views.modules() if isinstance(view, Viewmaker))
    for network in (viewmaker, run.encoder):
        network.half().float()
    inputs = Inputs(run.train.topic, run.train.shape, run.train.clamp)
    about = {"recipe": run.recipe.to_json(), "inputs": json.dumps(inputs._asdict()), "torch": torch.__version__}
    _write(name, "viewmaker", viewmaker, about)
    if test is not None:
        task = next(iter(test.targets))
        accuracy = evaluate(run, test, task, ("linear_accuracy",))["linear_accuracy"]
        found = {"task": task, "n": str(len(labelled(test, task))), "linear_accuracy": f"{accuracy:.4f}"}
        _write(name, "encoder", run.encoder, about | found)


def _file(name: str, kind: str) -> Path:
    return FOLDER / f"{name}.{kind}.safetensors"


def _write(name: str, kind: str, network: nn.Module, about: dict[str, str]) -> None:
    """Write a network's weights, integers as they are. A kill at any moment leaves either the old file or the new one."""
    weights = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
    }
    file = _file(name, kind)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_bytes(safetensors.torch.save(weights, about))
    os.replace(temporary, file)


def _read(name: str, kind: str) -> tuple[nn.Module, dict[str, str]]:
    """The network in a file, built from the recipe in it, and the metadata."""
    file = _file(name, kind)
    try:
        with safetensors.safe_open(file, "pt") as stored:
            about, keys = stored.metadata(), stored.keys()
            weights = {key: stored.get_tensor(key) for key in keys}
        recipe = Recipe.from_json(about["recipe"])
        stated = json.loads(about["inputs"]).items()
        arguments: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stated}
        inputs = Inputs(**arguments)
        with seeded("shipped"):
            network = build_encoder(recipe, inputs) if kind == "encoder" else build_views(recipe, inputs)[0]
        network.load_state_dict(weights)
    except Exception as error:
        reasons = {FileNotFoundError: "is missing", RuntimeError: "holds weights that do not fit its recipe"}
        reason = reasons.get(type(error), f"cannot be read ({type(error).__name__})")
        raise ValueError(f"the shipped file {file.name} {reason}; make it again with `make weights`.") from error
    return network.eval(), about


def main() -> None:
    """Train the shipped networks again and write them into the package."""
    parser = argparse.ArgumentParser(prog="vmlite.shipped", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(SHIPPED)}; none: all of them")
    names = parser.parse_args().names or list(SHIPPED)
    for name in names:
        one_of("shipped network", name, SHIPPED)
    for name in names:
        make(name)


if __name__ == "__main__":
    main()
