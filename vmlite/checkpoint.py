"""Checkpoints: the state of a run in one file, written atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vmlite.pretrain import Run


def save(run: Run, path: Path) -> None:
    """Write the run's state to `path`. A kill at any moment leaves either the old file or the new one."""
    state: dict[str, Any] = {name: part.state_dict() for name, part in run.stateful().items()}
    state |= {"recipe": run.recipe.to_json(), "step": run.step, "history": run.history}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(run: Run, path: Path) -> None:
    """Bring `run` to the state saved in `path`.

    Raises ValueError where the file is damaged or was written by another recipe.
    """
    try:
        state = torch.load(path, map_location=run.device, weights_only=True)
        written = state["recipe"]
    except Exception as error:
        reason = type(error).__name__
        raise ValueError(f"the checkpoint {path} cannot be read ({reason}); delete it to start anew.") from error
    if written != run.recipe.to_json():
        raise ValueError(
            f"the checkpoint {path} was written by another recipe: {_difference(written, run.recipe.to_json())}. "
            "Use the same settings, or another out_dir."
        )
    for name, part in run.stateful().items():
        part.load_state_dict(state[name])
    run.step, run.history = state["step"], state["history"]


def _difference(old: str, new: str) -> str:
    there, here = json.loads(old), json.loads(new)
    names = [name for name in there | here if there.get(name) != here.get(name)]
    return "; ".join(f"{name} is {there.get(name)!r} there, {here.get(name)!r} here" for name in names)
