"""Timing a training step: variants in turns, its parts, and the memory it takes."""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vmlite import hardware
from vmlite.datasets import Dataset
from vmlite.datasets.images import ImageDataset
from vmlite.environment import find_device
from vmlite.objectives import nt_xent
from vmlite.pretrain import Run, pretrain, start
from vmlite.recipes import Recipe, one_of

PLAIN, PRODUCT = "plain", "joint + channels-last + kept memory"
MANY = 10_000  # epochs that no measurement reaches the end of


@dataclass(frozen=True)
class Variant:
    """One way to compute a training step; the defaults are the straightforward one."""

    update: str = "alternating"
    precision: str = "float32"
    batch_norm: str = "both"
    compile: bool = False
    channels_last: bool = False
    kept_memory: bool = False


VARIANTS = {
    PLAIN: Variant(),
    "joint": Variant(update="joint"),
    "bf16": Variant(precision="bf16"),
    "channels-last": Variant(channels_last=True),
    "kept memory": Variant(kept_memory=True),
    "compile": Variant(compile=True),
    "batch norm each": Variant(batch_norm="each"),
    PRODUCT: Variant("joint", channels_last=True, kept_memory=True),
    f"{PRODUCT} + bf16": Variant("joint", "bf16", channels_last=True, kept_memory=True),
}


class Ratio(NamedTuple):
    """How many times faster than the baseline: the median over rounds, the least and the most."""

    median: float
    low: float
    high: float


def random_images(shape: Sequence[int], n: int, device: torch.device | str = "cpu") -> ImageDataset:
    """Noise in place of a data set: n examples of `shape` (C, H, W). A step's time does not depend on what is in them."""
    images = torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageDataset("random", images.to(device), {}, {})


def stepper(recipe: Recipe, train: Dataset, variant: Variant) -> Callable[[], Tensor]:
    """A function that takes the next step of a run of its own, computed as `variant` says, and returns both losses (2,).

    Kept memory is a setting of the whole process, so each call makes it as the variant wants, and leaves it off.
    """
    fields = {name: getattr(variant, name) for name in ("update", "precision", "batch_norm", "compile")}
    run = start(recipe.replace(epochs=MANY, **fields), train)
    if not variant.channels_last:
        for network in (run.encoder, run.views):
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    steps = pretrain(run)

    def step() -> Tensor:
        hardware.keep_memory(variant.kept_memory)
        try:
            next(steps)
        finally:
            hardware.keep_memory(False)
        return run.history[run.step - 1]

    return step


def interleaved(
    variants: Mapping[str, Callable[[], object]], rounds: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, (rounds,) for each variant. They take turns, in reversed order every other round.

    So what slows the machine for a while slows all of them. Waits for a GPU before and after each call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(-warmup, rounds):
        for name in list(variants) if number % 2 == 0 else reversed(list(variants)):
            _synchronise()
            begun = time.perf_counter()
            variants[name]()
            _synchronise()
            if number >= 0:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Ratio]:
    """How many times faster than `baseline` each variant is, from the ratio within each round."""
    one_of("baseline", baseline, seconds)
    found = {
        name: [base / own for base, own in zip(seconds[baseline], times, strict=True)]
        for name, times in seconds.items()
    }
    return {name: Ratio(statistics.median(values), min(values), max(values)) for name, values in found.items()}


def parts(run: Run) -> dict[str, Callable[[], object]]:
    """The parts of a joint step with two views of each example, one function each; networks with their backward pass."""
    n, size = run.recipe.batch_size, len(run.train)
    index = torch.arange(n, device=run.device)
    run.encoder.train(), run.views.train()
    next(pretrain(run))  # fills gradients and the optimisers' state
    raw, x = run.train.batch(index), run.draw(index)
    both = torch.cat([x, x]).requires_grad_()
    z = torch.randn(2 * n, run.recipe.embedding_dim, device=run.device, requires_grad=True)
    mixed = torch.autocast(run.device.type, torch.bfloat16, enabled=run.recipe.precision == "bf16")

    def through(output: Callable[[], Tensor], inputs: Sequence[Tensor]) -> Callable[[], object]:
        def call() -> object:
            with mixed:
                y = output()
            return torch.autograd.grad(y, inputs, torch.ones_like(y))

        return call

    def loss() -> Tensor:
        z1, z2 = z.chunk(2)
        return nt_xent(z1, z2, run.recipe.temperature, run.recipe.loss_form)

    return {
        "data": lambda: run.draw(torch.randint(size, (n,), device=run.device)),
        "front end": lambda: run.train.front_end(raw),
        "viewmaker": through(lambda: run.views(x, count=2), list(run.views.parameters())),
        "encoder": through(lambda: run.encoder(both), [both, *run.encoder.parameters()]),
        "loss": through(loss, [z]),
        "optimisers": lambda: [optimizer.step() for optimizer in run.optimizers.values()],
    }


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: of a GPU in tensors, of a CPU's memory altogether."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # on Linux ru_maxrss would begin with the size of the process that started this
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+)", status.read_text())):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of(recipe: Recipe, variant: str, steps: int = 2) -> int:
    """`peak_memory` of a new process after a few steps, so that nothing else is in it."""
    command = [sys.executable, "-m", "vmlite.speed", recipe.to_json(), variant, str(steps)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])


def main(recipe_json: str, variant: str, steps: str) -> None:
    """Take a few steps of one variant and print this process's peak memory."""
    recipe = Recipe.from_json(recipe_json)
    device, size = find_device(recipe.device), recipe.input_size or 32
    step = stepper(recipe, random_images((3, size, size), recipe.batch_size, device), VARIANTS[variant])
    for _ in range(int(steps)):
        step()
    print(peak_memory(device))


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])
