"""Pretraining in processes of their own, for notebooks: side by side on a CPU, or by torchrun on several devices.

Layers of thin networks are too short to keep two cores busy. Two arms on one core each are done sooner than one after
the other on both, and the notebook goes on meanwhile (`begin`). Of a large network torchrun spreads each arm over GPUs,
before the kernel touches one (`pretrain_apart`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from vmlite import distributed
from vmlite.environment import find_device
from vmlite.parameters import Settings
from vmlite.recipes import Recipe

_begun: list[Background] = []
RESTARTS = 3  # how often torchrun starts all processes again, from the last checkpoint, where one of them dies


def begin(settings: Settings) -> Background:
    """Start to pretrain the arms side by side, and return at once; `finish` of what is returned waits for them.

    Nothing is started on a GPU, on one core, for one arm, or after `pretrain_apart` on several processes: then the
    notebook pretrains by itself.
    """
    while _begun:  # by a cell that is now run again
        _begun.pop().stop()
    at_once = min(len(settings.arms), distributed.cores())
    here = settings.processes > 1 or at_once == 1 or find_device(settings.recipe.device).type != "cpu"
    _begun.append(Background(settings, 0 if here else at_once))
    return _begun[-1]


class Background:
    """Arms of a notebook that are pretrained so many at once, each in a process with its share of the cores.

    Until `finish` the notebook computes on as many threads as each of them. They make what it would make with that
    many, and end with its kernel.
    """

    def __init__(self, settings: Settings, at_once: int) -> None:
        self.settings, self.at_once = settings, at_once
        self.told: dict[str, dict[str, int]] = {}
        self.errors: list[Exception] = []
        self.stopped, self.trained = not at_once, False
        self._left = iter(sorted(settings.arms, key=lambda arm: "viewmaker" not in arm.views))  # the longest first
        self._usual_threads = torch.get_num_threads()
        self._share = distributed.cores() // max(at_once, 1)
        if at_once:
            torch.set_num_threads(self._share)
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(at_once)]
        for worker in self._workers:
            worker.start()

    def _work(self) -> None:
        try:
            while not (self.stopped or self.errors) and (arm := next(self._left, None)):
                show = functools.partial(self._note, arm.views)
                launch(arm, self.settings.checkpoint(arm), 1, self.settings.resume, show, self._share)
        except Exception as error:
            self.errors.append(error)

    def _note(self, views: str, told: dict[str, int]) -> None:
        if self.stopped or self.errors:
            raise RuntimeError("stopped")
        self.told[views] = told

    def stop(self) -> None:
        """End the processes, where any are left. Checkpoints stay."""
        if not self.stopped:
            torch.set_num_threads(self._usual_threads)
        self.stopped = True
        for worker in self._workers:
            worker.join()

    def finish(self) -> Settings:
        """Wait for the arms, with a progress bar; settings with which the notebook goes on from there.

        Raises RuntimeError where an arm failed. That stops the others, as an interrupt does, and the next call returns
        the settings as they were: the notebook then pretrains by itself.
        """
        bar = tqdm(desc=", ".join(arm.views for arm in self.settings.arms), mininterval=0.5, disable=self.stopped)
        try:
            while any(worker.is_alive() for worker in self._workers):
                time.sleep(0.2)
                told = list(self.told.values())
                bar.total = len(self.settings.arms) * told[0]["steps"] if told else None
                bar.update(sum(each["step"] for each in told) - bar.n)
            if self.errors and not self.stopped:
                raise self.errors[0]
            self.trained = self.trained or not self.stopped
        finally:
            bar.close()
            self.stop()
        return dataclasses.replace(self.settings, resume=True) if self.trained else self.settings


def pretrain_apart(settings: Settings) -> Settings:
    """Pretrain every arm on `settings.processes` processes; settings with which the notebook goes on from there.

    With one process nothing is done here.
    """
    if settings.processes == 1:
        return settings
    for arm in settings.arms:
        with tqdm(desc=f"{arm.views} on {settings.processes} processes") as bar:
            show = functools.partial(move, bar)
            launch(arm, settings.checkpoint(arm), settings.processes, settings.resume, show)
    return dataclasses.replace(settings, resume=True)


def launch(
    recipe: Recipe,
    checkpoint_file: Path,
    processes: int,
    resume: bool = False,
    show: Callable[[dict[str, int]], object] = lambda told: None,
    threads: int | None = None,
) -> None:
    """Run `vmlite.pretrain` to its end, by torchrun where there are several processes.

    `show` is called with every line of progress, a dictionary with step, steps and loss; what it raises ends the
    processes. `threads` is how many each may use. Raises RuntimeError where they fail.
    """
    recipe_file = checkpoint_file.with_suffix(".json")
    recipe_file.parent.mkdir(parents=True, exist_ok=True)
    recipe_file.write_text(recipe.to_json())
    torchrun = f"torch.distributed.run --standalone --nproc-per-node={processes} --max-restarts={RESTARTS} -m".split()
    command = [sys.executable, "-m", *torchrun * (processes > 1), "vmlite.pretrain", str(recipe_file)]
    command += ["--checkpoint", str(checkpoint_file), "--lines", *["--resume"] * resume]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    apart = processes == 1  # from the notebook's interrupts, which may be meant for another cell
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=apart
        ) as child,
    ):
        try:
            for line in child.stdout or ():
                if told := progress(line):
                    show(told)
        except BaseException:  # above all the kernel's interrupt
            child.terminate()
            raise
        if child.wait():
            errors.seek(0)
            why = reason(errors.read()) or f"it ended with code {child.returncode}"
            what = f"on {processes} processes" if processes > 1 else f"with {recipe.views}"
            raise RuntimeError(f"pretraining {what} failed: {why}")


def move(bar: tqdm, told: dict[str, int]) -> None:
    """Bring the bar to where a line of progress says."""
    bar.total, bar.n = told["steps"], told["step"]
    bar.set_postfix(loss=f"{told['loss']:.3f}")


def progress(line: str) -> dict[str, int] | None:
    """What a line of progress says; None for other lines."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and told.keys() >= {"step", "steps", "loss"} else None


def reason(text: str) -> str:
    """The last error that a traceback names in what the processes wrote, else the end of it."""
    lines = [line.partition("]:")[2] or line for line in text.splitlines()]
    errors = [line.strip() for line in lines if line.strip().partition(":")[0].endswith("Error")]
    ours = [line for line in errors if not line.startswith(("torch.", "ChildFailed"))]
    return ours[-1] if ours else text.strip()[-500:]
