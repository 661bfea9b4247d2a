"""Notebook parameters: checked and turned into a recipe before anything long starts.

papermill only warns of a parameter it does not know, and passes `-p resume true` as the text "true". The cell after a
notebook's parameters therefore calls `read_parameters(globals(), "images", "02_images")`.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlite.distributed import check_processes
from vmlite.environment import find_device, project_path
from vmlite.evaluate import METRICS
from vmlite.recipes import Recipe, one_of, preset

COMMON = (
    "preset", "dataset", "data_dir", "out_dir", "views", "objective", "eps", "norm", "update", "epochs", "batch_size",
    "seed", "device", "precision", "compile", "processes", "resume", "metrics", "floors", "loss_form", "temperature", "batch_norm", "input_size", "train_size", "test_size",
    "sample_rate", "window_seconds", "held_out", "skip_bad",
)  # fmt: skip
DEFAULT_METRICS = "linear_accuracy,mlp_accuracy,knn_accuracy"


@dataclass(frozen=True)
class Settings:
    """What a notebook runs.

    `arms` are the recipes to compare, equal but for their views. `supervised` asks for the same network trained on
    labels beside them, `floors` for a linear classifier on the raw input and for a random encoder, `metrics` for these
    numbers of each encoder, `processes` for pretraining on so many (see `vmlite.launch`).
    """

    notebook: str
    preset: str
    recipe: Recipe
    arms: tuple[Recipe, ...]
    supervised: bool
    floors: bool
    metrics: tuple[str, ...]
    out_dir: Path
    resume: bool
    processes: int
    params: dict[str, Any]

    def checkpoint(self, recipe: Recipe) -> Path:
        """Where an arm's checkpoint is kept."""
        return self.out_dir / f"{recipe.views.replace(':', '-')}.pt"


def read_parameters(namespace: dict[str, Any], topic: str, notebook: str, **defaults: Any) -> Settings:
    """The settings that a notebook's globals ask for.

    Args:
        namespace: `globals()` of the notebook. Parameters that are None take the preset's value.
        topic: whose presets to use.
        notebook: its name, such as "02_images"; the default `out_dir` is runs/<notebook>.
        defaults: further recipe fields that this notebook fixes.

    Raises ValueError for unknown parameters, for values of a wrong type or range, for an absent device, for more
    processes than devices or than the batch divides into, and for an `out_dir` that cannot be written to.
    """
    refuse_unknown(namespace, COMMON)
    given = {name: namespace[name] for name in COMMON if namespace.get(name) is not None}
    chosen = given.get("preset", "quick")
    fields = {f.name for f in dataclasses.fields(Recipe)} - {"views"}
    own = {name: value for name, value in given.items() if name in fields}
    own |= {name: as_bool(name, own[name]) for name in ("skip_bad", "compile") if name in own}
    recipe = preset(chosen, topic, **(defaults | own))
    processes = given.get("processes", 1)
    check_processes(processes, recipe.device, recipe.batch_size)
    if processes == 1:
        find_device(recipe.device)
    views = _names(given.get("views", "noise,viewmaker"))
    if not set(views) - {"supervised"}:
        raise ValueError("views names none to pretrain with; give at least one, or None for noise,viewmaker.")
    metrics = _names(given.get("metrics", DEFAULT_METRICS))
    if not metrics:
        raise ValueError(f"metrics names none; choose from {', '.join(METRICS)}.")
    for metric in metrics:
        one_of("metric", metric, METRICS)
    return Settings(
        notebook=notebook,
        preset=chosen,
        recipe=recipe,
        arms=tuple(recipe.replace(views=name) for name in views if name != "supervised"),
        supervised="supervised" in views,
        floors=as_bool("floors", given.get("floors", True)),
        metrics=metrics,
        out_dir=writable(project_path(given.get("out_dir", f"runs/{notebook}"))),
        resume=as_bool("resume", given.get("resume")),
        processes=processes,
        params=given,
    )


def refuse_unknown(namespace: dict[str, Any], known: Iterable[str] | None = None) -> None:
    """Raise ValueError for a parameter that papermill put in and that the notebook's own cell does not offer.

    `namespace` is the notebook's `globals()`; `known` are the names that parameters may have, None for any.
    """
    offered, injected = _assigned(namespace)
    valid = offered if known is None else [name for name in known if name in offered]
    for name in injected:
        one_of("parameter", name, valid or list(known or ()))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in str(text).split(",") if name.strip())


def as_bool(name: str, value: object) -> bool:
    """True or False from a boolean or from the text that papermill passes; None is False."""
    texts = {"true": True, "false": False, "none": False, "1": True, "0": False}
    if str(value).lower() not in texts:
        raise ValueError(f"{name} must be true or false, got {value!r}.")
    return texts[str(value).lower()]


def writable(folder: Path) -> Path:
    """Make `folder` and try to write into it. Raises ValueError where that is impossible."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"out_dir {folder} cannot be written to ({error.strerror}); choose another folder.") from error
    return folder


def _assigned(namespace: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Names assigned in the parameters cell, and in the one that papermill put after it with a comment of its own."""
    cells = [str(cell) for cell in namespace.get("In", [])]
    place = next((i for i, cell in enumerate(cells) if cell.startswith("# Parameters\n")), None)
    if place is None:
        return [], []
    return _names_in(cells[max(place - 1, 0)]), _names_in(cells[place])


def _names_in(cell: str) -> list[str]:
    nodes = [node for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
    return [target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)]
