"""What the live panel shows, without its widgets: a run's curves, its current views, and their numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from vmlite.datasets import Dataset
from vmlite.evaluate import extract, knn, labelled
from vmlite.pretrain import Run, seeded
from vmlite.show import tiles
from vmlite.show.perturbations import Look
from vmlite.show.pictures import COLOURS
from vmlite.viewmaker import Viewmaker
from vmlite.views import L1Noise, spent

SHOWN, MEASURED = 8, 32  # examples in a strip, and in the mean of the budget
NEIGHBOURS, ASKED = 1000, 500  # training and test examples of the kNN accuracy, at most
POINTS = 300  # of a curve, at most


class Measured(NamedTuple):
    """What a run's views and encoder were after a step.

    `budget` is the realised one, after the clamp, of the limit `eps`; `clamped` the share of values that the clamp has
    cut; `accuracy` in percent, None where it was not measured.
    """

    step: int
    eps: float
    budget: float
    clamped: float
    accuracy: float | None = None


@dataclass(frozen=True)
class Sample:
    """The examples by which a run is followed.

    Attributes:
        test, task: where they are from, and what they are labelled by.
        start, x: MEASURED examples as views start from them (see `Run`), and as inputs of the network (N, C, H, W).
        known, asked: which training and which test examples the kNN accuracy is of.
        channel: that is shown, of spectrograms.
    """

    test: Dataset
    task: str
    start: Tensor
    x: Tensor
    names: tuple[str, ...]
    known: Tensor
    asked: Tensor
    channel: int = 0

    @classmethod
    def of(cls, run: Run, test: Dataset, task: str) -> Sample:
        """Examples spread evenly over both parts. Raises ValueError for a test part that does not go with the run."""
        if test.shape != run.train.shape:
            raise ValueError(f"the test examples are {test.shape}, the run's {run.train.shape}; load both together.")
        known, asked = labelled(run.train, task), labelled(test, task)
        if asked.device.type != run.device.type:
            raise ValueError(f"the test examples are on {asked.device}, the run on {run.device}; use test.to(device).")
        index = _spread(asked, MEASURED)
        start = test.batch(index) if run.raw_views else test.inputs(index)
        names = tuple(test.classes[task][i] for i in test.targets[task][index].tolist())
        channel = 2 if test.topic == "sensors" and test.shape[0] > 2 else 0  # of Pamap2's: how the hand accelerates
        return cls(
            test, task, start, test.inputs(index), names, _spread(known, NEIGHBOURS), _spread(asked, ASKED), channel
        )

    @property
    def chance(self) -> float:
        """Percent of the asked examples that are of the most frequent class."""
        return 100 * float(self.test.targets[self.task][self.asked].bincount().max()) / len(self.asked)


def _spread(index: Tensor, count: int) -> Tensor:
    """At most `count` entries, evenly spaced."""
    places = torch.linspace(0, len(index) - 1, min(count, len(index))).round().long()
    return index[places.to(index.device)]


def budgeted(run: Run) -> list[Viewmaker | L1Noise]:
    """Those of the run's views that have an eps."""
    return [view for view in run.views.modules() if isinstance(view, Viewmaker | L1Noise)]


def set_eps(run: Run, eps: float) -> None:
    """Give the run's views and its recipe another budget. Not while a step is under way."""
    run.recipe = run.recipe.replace(eps=eps)
    for view in budgeted(run):
        view.eps = eps


def name(run: Run) -> str:
    """What is trained on what, and how far it is."""
    return f"{run.recipe.views} on {run.train.name}, step {run.step} of {run.steps}"


def where(run: Run, speed: float = 0.0) -> str:
    """The run's name, its epoch, and from `speed`, in steps a second, how long it is going to take."""
    epoch = min(run.step * run.recipe.epochs // run.steps + 1, run.recipe.epochs)
    pace = f"; {speed:.3g} steps a second, about {(run.steps - run.step) / speed:.0f} s to go" if speed else ""
    return f"{name(run)} (epoch {epoch} of {run.recipe.epochs}){pace}"


@torch.no_grad()
def draw_views(run: Run, start: Tensor, generator: torch.Generator) -> Tensor:
    """Views of what `run.draw` would give, drawn from `generator`; torch's global one is afterwards as before."""
    for view in run.views.children():
        if isinstance(view, Viewmaker):  # forward: what compiles is for batches of the run's size
            start = view.forward(start, view.draw_noise(start, generator))
        elif isinstance(view, L1Noise):
            start = view(start, view.draw_noise(start, generator))
        else:
            with seeded("panel", int(torch.randint(2**31, (1,), generator=generator, device=generator.device))):
                start = view(start)
    return start


def neighbour_accuracy(run: Run, sample: Sample) -> float:
    """`evaluate.knn` of the encoder as it is, in percent, on the sample's examples. Not while a step is under way."""
    train, test, task = run.train, sample.test, sample.task
    x, x_test = extract(run.encoder, train, index=sample.known), extract(run.encoder, test, index=sample.asked)
    return knn(x, train.targets[task][sample.known], x_test, test.targets[task][sample.asked])


def measured(run: Run, x: Tensor, views: Tensor, accuracy: float | None = None) -> Measured:
    """The numbers of views (V, N, C, H, W) of x (N, C, H, W); not those of a budget that is not alone in changing x."""
    if len(list(run.views.children())) > 1 or not budgeted(run):
        return Measured(run.step, run.recipe.eps, math.nan, math.nan, accuracy)
    budget, clamped = spent(x.expand_as(views).flatten(0, 1), views.flatten(0, 1), run.recipe.norm)
    cut = float(clamped.mean()) if run.train.clamp else 0.0
    return Measured(run.step, run.recipe.eps, float(budget.mean()), cut, accuracy)


def strip(sample: Sample, views: Tensor) -> bytes:
    """A PNG: the sample's first examples, two of their views (2, N, C, H, W), and what the first view changes.

    Of spectrograms one channel is shown, low frequencies at the bottom; of an image's change the mean over channels.
    """
    x, views = sample.x[:SHOWN], views[:, :SHOWN]
    look = Look(sample.test, sample.channel)
    change = look.heat(views[0] - x)
    shown = [look.draw(images, x) for images in (x, *views)]
    limit = _rounded_up(float(change.abs().max()))
    rows = [tiles.Row(name, list(row)) for name, row in zip(("original", "view", "another view"), shown, strict=True)]
    rows[0] = tiles.Row("original", list(shown[0]), sample.names[:SHOWN])
    rows.insert(2, tiles.Row("its change", list(tiles.colours(change, -limit, limit))))
    return tiles.sheet(rows, tiles.Scale(limit, look.label))


def strip_in_words(sample: Sample, found: Measured) -> str:
    """The alternative text of a strip."""
    what = "images" if sample.test.topic == "images" else "spectrograms"
    cut = f"; the clamp has cut {100 * found.clamped:.1f} % of the values" if sample.test.clamp else ""
    budget = "" if math.isnan(found.budget) else f" Realised budget {found.budget:.3g} of {found.eps:.3g}{cut}."
    shown = min(SHOWN, len(sample.x))
    return f"{shown} {what}, two views of each after step {found.step}, and what the first changes.{budget}"


def curves(history: Tensor, found: Sequence[Measured], chance: float) -> bytes:
    """A PNG: running means of both players' losses (steps, 2), the realised budget, and the kNN accuracy.

    Dotted are the limit eps and the accuracy of telling always the most frequent class.
    """
    figure = Figure(figsize=(9.6, 2.2), dpi=80)
    canvas = FigureCanvasAgg(figure)
    axes = [figure.add_axes((0.045 + 0.25 * i, 0.2, 0.195, 0.64)) for i in range(4)]
    losses = history.detach().cpu().numpy()
    for axis, colour, player, values in zip(axes, COLOURS, ("encoder", "viewmaker"), losses.T, strict=False):
        axis.plot(*_running_mean(values), color=colour)
        _name(axis, f"loss of the {player}", len(losses))
    steps = [m.step for m in found]
    limits = [math.nan if math.isnan(m.budget) else m.eps for m in found]
    axes[2].plot(steps, limits, color="black", linestyle=":", linewidth=1, drawstyle="steps-pre")
    axes[2].plot(steps, [m.budget for m in found], color=COLOURS[2])
    axes[2].set_ylim(bottom=0)
    _name(axes[2], "realised budget (dots: eps)", len(losses))
    told = [(m.step, m.accuracy) for m in found if m.accuracy is not None]
    axes[3].axhline(chance, color="black", linestyle=":", linewidth=1)
    axes[3].plot(*zip(*told, strict=True) if told else ([], []), color=COLOURS[3], marker="o", markersize=4)
    _name(axes[3], "kNN accuracy, % (dots: chance)", len(losses))
    buffer = io.BytesIO()
    canvas.print_png(buffer, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def curves_in_words(history: Tensor, found: Sequence[Measured]) -> str:
    """The alternative text of the curves."""
    if not len(history):
        return "Empty curves: no step has been taken yet."
    encoder, viewmaker = history[-20:].mean(0).tolist()
    told = [m.accuracy for m in found if m.accuracy is not None]
    accuracy = f", kNN accuracy {told[-1]:.1f} %, {told[0]:.1f} % at first" if told else ""
    there = bool(found) and not math.isnan(found[-1].budget)
    budget = f", realised budget {found[-1].budget:.3g} of {found[-1].eps:.3g}" if there else ""
    return (
        f"Curves over {len(history)} steps. Now: loss of the encoder {encoder:.3f}, loss of the viewmaker "
        f"{viewmaker:.3f}{budget}{accuracy}."
    )


def _running_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the mean over a fiftieth of the values up to each, at most POINTS of them."""
    width = max(1, len(values) // 50)
    means = np.convolve(values, np.ones(width) / width, "valid") if len(values) else values
    steps = np.arange(len(means)) + width
    every = -(-len(means) // POINTS) or 1
    return steps[::-every][::-1], means[::-every][::-1]


def _name(axis: Axes, title: str, steps: int) -> None:
    axis.set_title(title, fontsize=8)
    axis.set_xlabel("step", fontsize=8, labelpad=1)
    axis.set_xlim(0, max(steps, 1))
    axis.tick_params(labelsize=7)
    axis.locator_params(nbins=3)
    axis.spines[["top", "right"]].set_visible(False)


def _rounded_up(value: float) -> float:
    """The next of ..., 0.1, 0.2, 0.5, 1, ... from `value` up: a scale that seldom changes."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * m for m in (1, 2, 5) if power * m >= value), 10 * power)
