"""Pretraining: one readable loop that trains an encoder and its views together.

`pretrain(run)` is a generator that yields after every step; progress bars, checkpoints and live panels consume it.
Two updates exist. "alternating" is the paper's: a step of the encoder, then a step of the viewmaker on fresh views
against the updated, frozen encoder. "joint" takes both steps from one forward and one backward pass: a gradient
reversal between viewmaker and encoder turns the encoder's loss into the viewmaker's.

    python -m vmlite.pretrain recipe.json --checkpoint runs/mine/viewmaker.pt
    torchrun --standalone --nproc-per-node 2 -m vmlite.pretrain recipe.json --checkpoint runs/mine/viewmaker.pt
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vmlite import checkpoint, distributed, hardware
from vmlite.build import build_encoder, build_objective, build_views, place, with_front_end
from vmlite.datasets import Dataset, Splits, load
from vmlite.datasets.base import Options
from vmlite.encoders import Encoder
from vmlite.objectives import Batch, Objective, Views
from vmlite.recipes import Recipe
from vmlite.viewmaker import Viewmaker

Losses = Callable[[Views, Batch], tuple[Tensor, Tensor]]
_seeding = threading.RLock()


@dataclass
class Run:
    """A pretraining run and its state.

    `views` maps a batch from `draw` to views that the encoder accepts. `losses` are the objective's of both players, in
    the form that each of them takes its gradient from. `history` (steps, 2) holds them, on the device, NaN where a step
    is still to come.
    """

    recipe: Recipe
    train: Dataset
    device: torch.device
    encoder: Encoder
    views: nn.Module
    raw_views: bool
    objective: Objective
    losses: dict[str, Losses]
    optimizers: dict[str, torch.optim.Optimizer]
    history: Tensor
    step: int = 0

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return len(self.history)

    def draw(self, index: Tensor) -> Tensor:
        """What the views start from: raw examples where some of them act there, else the network's inputs."""
        return self.train.batch(index, random=True) if self.raw_views else self.train.inputs(index, random=True)

    def stateful(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything whose state a checkpoint keeps, besides `history` and `step`."""
        return {"encoder": self.encoder, "views": self.views, "objective": self.objective, **self.optimizers}


def load_data(recipe: Recipe, device: torch.device | None = None) -> Splits:
    """The recipe's training and test examples, on its device where no other is given."""
    hardware.keep_memory()
    options = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Options)}
    return load(recipe.dataset, recipe.data_dir, str(device or recipe.device), **options)


def start(recipe: Recipe, train: Dataset) -> Run:
    """Build the networks and optimisers of a run from the recipe's seed, on the device where the data are.

    Raises ValueError for settings that do not work together, before anything long begins.
    """
    n = len(train)
    if recipe.batch_size > n:
        raise ValueError(f"batch_size is {recipe.batch_size}, but there are only {n} training examples; lower it.")
    distributed.check_batch(distributed.processes(), recipe.batch_size)
    device = train.batch(torch.zeros(1, dtype=torch.long)).device
    hardware.check_precision(recipe.precision, device)
    with seeded(recipe.seed):
        encoder = place(build_encoder(recipe, train), device)
        views, raw_views = with_front_end(build_views(recipe, train), train.front_end)
        objective = build_objective(recipe, encoder, n).to(device)
    if recipe.update == "joint" and not objective.zero_sum:
        raise ValueError(f"update 'joint' needs a zero-sum objective, {recipe.objective} is not: use 'alternating'.")
    views = place(views, device)
    if recipe.compile:
        hardware.compile_networks([encoder, *(view for view in views if isinstance(view, Viewmaker))], device)
    learned = [p for module in (encoder, objective) for p in module.parameters() if p.requires_grad]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "encoder_optimizer": torch.optim.SGD(
            learned, recipe.encoder_lr, momentum=recipe.encoder_momentum, weight_decay=recipe.weight_decay, fused=True
        )
    }
    if learned_views := [p for p in views.parameters() if p.requires_grad]:
        optimizers["viewmaker_optimizer"] = torch.optim.Adam(learned_views, recipe.viewmaker_lr, fused=True)
    trained: dict[str, list[nn.Module]] = (
        {"both": [encoder, objective, views]}
        if recipe.update == "joint"
        else {"encoder": [encoder, objective], "viewmaker": [views]}
    )
    losses = {
        player: distributed.synchronised(functools.partial(objective, encoder), modules)
        for player, modules in trained.items()
    }
    history = torch.full((recipe.epochs * (n // recipe.batch_size), 2), torch.nan, device=device)
    return Run(recipe, train, device, encoder, views, raw_views, objective, losses, optimizers, history)


def pretrain(run: Run) -> Iterator[Run]:
    """Train to the end of the recipe, yielding `run` after every step; a resumed run goes on where it stopped.

    A step draws all its randomness from (seed, step) and an epoch its order from (seed, epoch), and of several processes
    each takes its piece of the batch. So a resumed run repeats an undisturbed one (on a GPU up to the rounding of its
    non-deterministic kernels), and whatever a consumer draws in between changes nothing.
    """
    recipe, n = run.recipe, len(run.train)
    take_step = joint_step if recipe.update == "joint" else alternating_step
    run.encoder.train(), run.views.train()
    order, order_epoch = torch.empty(0), -1
    part = (distributed.rank(),) if distributed.rank() else ()  # other noise for each process, the first's as ever
    while run.step < run.steps:
        epoch, position = divmod(run.step, n // recipe.batch_size)
        if epoch != order_epoch:
            with seeded(recipe.seed, "order", epoch):
                order, order_epoch = torch.randperm(n).to(run.device), epoch
        index = distributed.piece(order[position * recipe.batch_size : (position + 1) * recipe.batch_size])
        set_learning_rates(run)
        with (
            seeded(recipe.seed, "step", run.step, *part),
            hardware.memory_advice(recipe.batch_size, recipe.precision),
            torch.autocast(run.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"),
        ):
            batch = Batch(run.draw(index), index)
            run.history[run.step] = distributed.mean(torch.stack(take_step(run, batch)))
        run.step += 1
        yield run


def set_learning_rates(run: Run) -> None:
    """Give both optimisers the rates of the current step: constant, or with "cosine" falling to zero over the run."""
    recipe = run.recipe
    factor = 0.5 * (1 + math.cos(math.pi * run.step / run.steps)) if recipe.schedule == "cosine" else 1.0
    rates = {"encoder_optimizer": recipe.encoder_lr, "viewmaker_optimizer": recipe.viewmaker_lr}
    for name, optimizer in run.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = factor * rates[name]


def alternating_step(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """A step of the encoder, then of the viewmaker on fresh views against the frozen encoder. Returns both losses."""
    encoder_loss, viewmaker_loss = run.losses["encoder"](without_gradient(run.views), batch)
    _descend(encoder_loss, run.optimizers["encoder_optimizer"])
    run.objective.after_step()
    if "viewmaker_optimizer" in run.optimizers:
        with frozen(run.encoder, run.objective):
            _, viewmaker_loss = run.losses["viewmaker"](run.views, batch)
            _descend(viewmaker_loss, run.optimizers["viewmaker_optimizer"])
    return encoder_loss.detach(), viewmaker_loss.detach()


def joint_step(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """Both players' steps from one forward and one backward pass. Returns both losses."""
    loss, viewmaker_loss = run.losses["both"](with_reversed_gradient(run.views), batch)
    _descend(loss, *run.optimizers.values())
    run.objective.after_step()
    return loss.detach(), viewmaker_loss.detach()


def _descend(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return -gradient


def with_reversed_gradient(views: Views) -> Views:
    """The same views; gradients that flow back into them change sign (Ganin and Lempitsky 2015)."""
    return lambda x, count=1: _ReverseGradient.apply(views(x, count=count))


def without_gradient(views: Views) -> Views:
    """The same views, made without recording a graph."""
    return torch.no_grad()(lambda x, count=1: views(x, count=count))


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Within the block the modules' parameters need no gradient; gradients still flow through them."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


@contextmanager
def seeded(*key: object) -> Iterator[None]:
    """Within the block torch's generators start from a seed derived from `key`; afterwards they are as before.

    Threads have one generator, so their blocks wait for each other.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=7).digest()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # not those of other processes
    with _seeding, torch.random.fork_rng(devices):
        torch.manual_seed(int.from_bytes(digest, "little"))
        yield


def train(
    run: Run, checkpoint_file: Path | None = None, resume: bool = False, progress: bool = True, lines: bool = False
) -> Run:
    """Run `pretrain` to its end with a progress bar, writing a checkpoint after every epoch where a file is given.

    Of several processes the first shows progress and writes. `lines` prints progress as JSON, about a line a second.
    """
    first = distributed.rank() == 0
    if checkpoint_file and resume:
        if checkpoint_file.exists():
            checkpoint.load(run, checkpoint_file)
        elif first:
            print(f"there is no checkpoint {checkpoint_file.name} yet: starting anew")
    per_epoch, told = run.steps // run.recipe.epochs, 0.0
    bar = tqdm(
        total=run.steps, initial=run.step, desc=run.recipe.views, disable=not progress or not first, mininterval=0.5
    )
    with bar:
        for _ in pretrain(run):
            bar.update()
            if lines and first and (time.monotonic() > told + 1 or run.step == run.steps):
                told = time.monotonic()
                loss = float(run.history[run.step - 1, 0])
                print(json.dumps({"step": run.step, "steps": run.steps, "loss": loss}), flush=True)
            if run.step % per_epoch == 0:
                bar.set_postfix(epoch=run.step // per_epoch, loss=f"{run.history[run.step - 1, 0]:.3f}")
                if checkpoint_file and first:
                    checkpoint.save(run, checkpoint_file)
    return run


def main() -> None:
    """Pretrain as a recipe says, alone or as one of the processes that torchrun started."""
    parser = argparse.ArgumentParser(prog="vmlite.pretrain", description=main.__doc__)
    parser.add_argument("recipe", type=Path, help="a recipe as JSON, see vmlite.recipes.Recipe")
    parser.add_argument("--checkpoint", type=Path, required=True, help="written after every epoch")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint; a restarted worker always does"
    )
    parser.add_argument("--lines", action="store_true", help="print progress as JSON lines")
    asked = parser.parse_args()
    recipe = Recipe.from_json(asked.recipe.read_text())
    run = start(recipe, load_data(recipe, distributed.join(recipe.device)).train)
    resume = asked.resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    train(run, asked.checkpoint, resume, progress=not asked.lines, lines=asked.lines)
    distributed.leave()


if __name__ == "__main__":
    main()
