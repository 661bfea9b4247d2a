"""Pretraining: one readable loop that trains an encoder and its views together.

`pretrain(run)` is a generator that yields after every step; progress bars, checkpoints and live panels consume it.
Two updates exist. "alternating" is the paper's: a step of the encoder, then a step of the viewmaker on fresh views
against the updated, frozen encoder. "joint" takes both steps from one forward and one backward pass: a gradient
reversal between viewmaker and encoder turns the encoder's loss into the viewmaker's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vmlite import checkpoint
from vmlite.datasets import Dataset, SpeechDataset, Splits, load
from vmlite.datasets.base import Options
from vmlite.encoders import ENCODERS, Encoder
from vmlite.objectives import BYOL, Batch, InstDisc, NTXent, Objective, Views
from vmlite.recipes import Recipe
from vmlite.viewmaker import Viewmaker
from vmlite.views import EXPERTS, ImageExpert, L1Noise
from vmlite.views_speech import SpectralMasks, WaveformExpert

M = TypeVar("M", bound=nn.Module)


@dataclass
class Run:
    """A pretraining run and its state.

    `views` maps a batch from `draw` to views that the encoder accepts. `history` (steps, 2) holds both players'
    losses, on the device, NaN where a step is still to come.
    """

    recipe: Recipe
    train: Dataset
    device: torch.device
    encoder: Encoder
    views: nn.Module
    raw_views: bool
    objective: Objective
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


def load_data(recipe: Recipe) -> Splits:
    """The recipe's training and test examples, on its device."""
    options = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Options)}
    return load(recipe.dataset, recipe.data_dir, recipe.device, **options)


def start(recipe: Recipe, train: Dataset) -> Run:
    """Build the networks and optimisers of a run from the recipe's seed, on the device where the data are.

    Raises ValueError for settings that do not work together, before anything long begins.
    """
    n = len(train)
    if recipe.batch_size > n:
        raise ValueError(f"batch_size is {recipe.batch_size}, but there are only {n} training examples; lower it.")
    device = train.batch(torch.zeros(1, dtype=torch.long)).device
    with seeded(recipe.seed):
        encoder = place(build_encoder(recipe, train), device)
        views, raw_views = with_front_end(build_views(recipe, train), train.front_end)
        objective = build_objective(recipe, encoder, n).to(device)
    if recipe.update == "joint" and not objective.zero_sum:
        raise ValueError(f"update 'joint' needs a zero-sum objective, {recipe.objective} is not: use 'alternating'.")
    views = place(views, device)
    learned = [p for module in (encoder, objective) for p in module.parameters() if p.requires_grad]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "encoder_optimizer": torch.optim.SGD(
            learned, recipe.encoder_lr, momentum=recipe.encoder_momentum, weight_decay=recipe.weight_decay
        )
    }
    if learned_views := [p for p in views.parameters() if p.requires_grad]:
        optimizers["viewmaker_optimizer"] = torch.optim.Adam(learned_views, recipe.viewmaker_lr)
    history = torch.full((recipe.epochs * (n // recipe.batch_size), 2), torch.nan, device=device)
    return Run(recipe, train, device, encoder, views, raw_views, objective, optimizers, history)


def pretrain(run: Run) -> Iterator[Run]:
    """Train to the end of the recipe, yielding `run` after every step; a resumed run goes on where it stopped.

    A step draws all its randomness from (seed, step) and an epoch its order from (seed, epoch). So a resumed run repeats
    an undisturbed one (on a GPU up to the rounding of its non-deterministic kernels), and whatever a consumer draws in between changes nothing.
    """
    recipe, n = run.recipe, len(run.train)
    take_step = joint_step if recipe.update == "joint" else alternating_step
    run.encoder.train(), run.views.train()
    order, order_epoch = torch.empty(0), -1
    while run.step < run.steps:
        epoch, position = divmod(run.step, n // recipe.batch_size)
        if epoch != order_epoch:
            with seeded(recipe.seed, "order", epoch):
                order, order_epoch = torch.randperm(n).to(run.device), epoch
        index = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
        set_learning_rates(run)
        with (
            seeded(recipe.seed, "step", run.step),
            torch.autocast(run.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"),
        ):
            batch = Batch(run.draw(index), index)
            run.history[run.step] = torch.stack(take_step(run, batch))
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
    encoder_loss, viewmaker_loss = run.objective(run.encoder, without_gradient(run.views), batch)
    _descend(encoder_loss, run.optimizers["encoder_optimizer"])
    run.objective.after_step()
    if "viewmaker_optimizer" in run.optimizers:
        with frozen(run.encoder, run.objective):
            _, viewmaker_loss = run.objective(run.encoder, run.views, batch)
            _descend(viewmaker_loss, run.optimizers["viewmaker_optimizer"])
    return encoder_loss.detach(), viewmaker_loss.detach()


def joint_step(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """Both players' steps from one forward and one backward pass. Returns both losses."""
    loss, viewmaker_loss = run.objective(run.encoder, with_reversed_gradient(run.views), batch)
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
    return lambda x: _ReverseGradient.apply(views(x))


def without_gradient(views: Views) -> Views:
    """The same views, made without recording a graph."""
    return torch.no_grad()(lambda x: views(x))


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
    """Within the block torch's generators start from a seed derived from `key`; afterwards they are as before."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=7).digest()
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(digest, "little"))
        yield


def place(module: M, device: torch.device) -> M:
    """The module on the device, its weights in the order of memory that convolutions are fastest in."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_encoder(recipe: Recipe, data: Dataset) -> Encoder:
    """The recipe's encoder for the shape and the statistics of the data."""
    return ENCODERS[recipe.encoder](
        data.shape[0], recipe.encoder_width, recipe.stem,
        embedding_dim=recipe.embedding_dim, head=recipe.head, mean=data.mean, std=data.std,
    )  # fmt: skip


def build_views(recipe: Recipe, data: Dataset) -> nn.Sequential:
    """The recipe's views for the data: the terms of `recipe.views`, applied from left to right.

    "viewmaker:untrained" keeps its random weights, "viewmaker:deterministic" gets no noise: two ablations.
    """
    budget = (recipe.eps, recipe.norm, data.clamp)
    channels, size = data.shape[0], data.shape[1:]
    made: list[nn.Module] = []
    for term in recipe.views.split("+"):
        kind, _, qualifier = term.partition(":")
        if kind == "viewmaker":
            noise_scale = 0.0 if qualifier == "deterministic" else 1.0
            viewmaker = Viewmaker(channels, *budget, recipe.viewmaker_width, recipe.viewmaker_blocks, noise_scale)
            made.append(viewmaker.requires_grad_(qualifier != "untrained"))
        elif kind == "noise":
            made.append(L1Noise(*budget))
        elif term not in EXPERTS[data.topic]:
            raise ValueError(
                f"views {term!r} are not for {data.topic}, whose experts are {', '.join(EXPERTS[data.topic])}."
            )
        elif isinstance(data, SpeechDataset) and term == "expert:time":
            made.append(WaveformExpert(data.sample_rate))
        elif kind == "expert" and data.topic == "images":
            made.append(ImageExpert(size, channels, qualifier or "all"))
        else:
            made.append(SpectralMasks(size, noise=0.25 if qualifier == "spectral-noise" else 0.0))
    return nn.Sequential(*made)


def with_front_end(views: nn.Sequential, front_end: nn.Module) -> tuple[nn.Sequential, bool]:
    """The views with the front end after those that act on raw examples, and whether there are any such."""
    raw = [view for view in views if view.domain == "raw"]
    if list(views)[: len(raw)] != raw:
        raise ValueError("views of raw examples must come before views of the network's input.")
    return (nn.Sequential(*raw, front_end, *list(views)[len(raw) :]), True) if raw else (views, False)


def build_objective(recipe: Recipe, encoder: Encoder, n_examples: int) -> Objective:
    """The recipe's objective."""
    if recipe.objective == "simclr":
        return NTXent(recipe.temperature, recipe.loss_form)
    if recipe.objective == "instdisc":
        return InstDisc(n_examples, recipe.embedding_dim, recipe.temperature)
    return BYOL(encoder, recipe.embedding_dim)


def train(run: Run, checkpoint_file: Path | None = None, resume: bool = False, progress: bool = True) -> Run:
    """Run `pretrain` to its end with a progress bar, writing a checkpoint after every epoch where a file is given."""
    if checkpoint_file and resume:
        if checkpoint_file.exists():
            checkpoint.load(run, checkpoint_file)
        else:
            print(f"there is no checkpoint {checkpoint_file.name} yet: starting anew")
    per_epoch = run.steps // run.recipe.epochs
    with tqdm(total=run.steps, initial=run.step, desc=run.recipe.views, disable=not progress, mininterval=0.5) as bar:
        for _ in pretrain(run):
            bar.update()
            if run.step % per_epoch == 0:
                bar.set_postfix(epoch=run.step // per_epoch, loss=f"{run.history[run.step - 1, 0]:.3f}")
                if checkpoint_file:
                    checkpoint.save(run, checkpoint_file)
    return run
