"""Pretraining in processes of their own, for notebooks: torchrun does it before the kernel touches a GPU."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from vmlite.parameters import Settings
from vmlite.recipes import Recipe

RESTARTS = 3  # how often torchrun starts all processes again, from the last checkpoint, where one of them dies


def pretrain_apart(settings: Settings) -> Settings:
    """Pretrain every arm on `settings.processes` processes; settings with which the notebook goes on from there.

    With one process nothing is done here, and the notebook pretrains in its own.
    """
    if settings.processes == 1:
        return settings
    for arm in settings.arms:
        launch(arm, settings.checkpoint(arm), settings.processes, settings.resume)
    return dataclasses.replace(settings, resume=True)


def launch(recipe: Recipe, checkpoint_file: Path, processes: int, resume: bool = False) -> None:
    """Run `torchrun -m vmlite.pretrain` to its end, with a progress bar. Raises RuntimeError where it fails."""
    recipe_file = checkpoint_file.with_suffix(".json")
    recipe_file.parent.mkdir(parents=True, exist_ok=True)
    recipe_file.write_text(recipe.to_json())
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        f"--max-restarts={RESTARTS}", "-m", "vmlite.pretrain", str(recipe_file), "--checkpoint", str(checkpoint_file), "--lines",
    ]  # fmt: skip
    with (
        tempfile.TemporaryFile("w+") as errors,
        tqdm(desc=f"{recipe.views} on {processes} processes") as bar,
        subprocess.Popen(command + ["--resume"] * resume, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        try:
            for line in child.stdout or ():
                show(bar, line)
        except BaseException:  # above all the kernel's interrupt
            child.terminate()
            raise
        if child.wait():
            errors.seek(0)
            raise RuntimeError(f"pretraining on {processes} processes failed: {reason(errors.read())}")


def show(bar: tqdm, line: str) -> None:
    """Bring the bar to where a line of progress says; other lines are left out."""
    try:
        told = json.loads(line)
        bar.total, bar.n = told["steps"], told["step"]
    except (ValueError, TypeError, KeyError):
        return
    bar.set_postfix(loss=f"{told['loss']:.3f}")


def reason(text: str) -> str:
    """The last error that a traceback names in what the processes wrote, else the end of it."""
    lines = [line.partition("]:")[2] or line for line in text.splitlines()]
    errors = [line.strip() for line in lines if line.strip().partition(":")[0].endswith("Error")]
    ours = [line for line in errors if not line.startswith(("torch.", "ChildFailed"))]
    return ours[-1] if ours else text.strip()[-500:]
