"""Static pictures (matplotlib): each function returns a Figure and leaves drawing it to the notebook."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

PINK = "#e4007c"
DIVERGING = "PuOr"  # perceptually ordered and readable for colour-blind people
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito


def image_grid(images: Tensor, columns: int = 8, titles: Sequence[str] = (), size: float = 1.0) -> Figure:
    """Images (N, 3 or 1, H, W) in [0, 1] in rows of `columns`; long titles are broken into lines."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    titles = [textwrap.fill(title, round(15 * size)) for title in titles]
    titled = -(-len(titles) // columns)
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(size * columns, size * rows + (0.1 * bool(lines) + 0.15 * lines) * titled),
        squeeze=False,
        layout="constrained",
    )
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(images):
            _draw(axis, images[i])
        if i < len(titles):
            axis.set_title(titles[i], fontsize=8)
    return _shown_once(figure)


def view_grid(x: Tensor, views: Tensor, title: str = "", size: float = 0.95) -> Figure:
    """Originals x (N, C, H, W) with a pink border, their views (V, N, C, H, W), and below them the perturbations.

    Perturbations are shown as their mean over channels, all on one symmetric scale: orange darkens, purple brightens.
    """
    n, count = len(x), len(views)
    change = (views - x).mean(2).detach().cpu().numpy()
    limit = float(np.abs(change).max()) or 1.0
    width = size * (count + 1) + 0.9
    figure, axes = plt.subplots(
        2 * n, count + 1, figsize=(width, size * 2 * n + 0.3), squeeze=False, layout="constrained"
    )
    for i in range(n):
        _draw(axes[2 * i, 0], x[i])
        _border(axes[2 * i, 0])
        axes[2 * i + 1, 0].axis("off")
        for v in range(count):
            _draw(axes[2 * i, v + 1], views[v, i])
            axes[2 * i, v + 1].axis("off")
            heat = axes[2 * i + 1, v + 1].imshow(change[v, i], cmap=DIVERGING, vmin=-limit, vmax=limit)
            axes[2 * i + 1, v + 1].axis("off")
    figure.colorbar(heat, ax=axes[:, -1], shrink=0.6, label="perturbation")
    figure.suptitle(textwrap.fill(title, round(13 * width)), fontsize=10)
    return _shown_once(figure)


def heat_maps(
    maps: Tensor,
    titles: Sequence[str] = (),
    columns: int = 4,
    limit: float | None = None,
    label: str = "perturbation",
    size: float = 1.4,
) -> Figure:
    """Maps (N, H, W) in rows of `columns`, all on one scale from -limit to limit (None: the largest magnitude)."""
    values = maps.detach().cpu().numpy()
    largest = float(np.abs(values).max()) or 1.0
    limit = largest if limit is None else limit
    columns = min(columns, len(values))
    rows = -(-len(values) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns + 0.9, (size + 0.25) * rows), squeeze=False, layout="constrained"
    )
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(values):
            heat = axis.imshow(values[i], cmap=DIVERGING, vmin=-limit, vmax=limit)
        if i < len(titles):
            axis.set_title(titles[i], fontsize=8)
    figure.colorbar(heat, ax=axes[:, -1], shrink=0.7, label=label, extend="both" if largest > limit else "neither")
    return _shown_once(figure)


def loss_curves(histories: Mapping[str, Tensor], smooth: int = 10) -> Figure:
    """Both players' losses over the steps, a running mean over `smooth` steps. Histories are (steps, 2)."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 2.8), layout="constrained")
    for colour, (name, history) in zip(itertools.cycle(COLOURS), histories.items(), strict=False):
        for axis, losses in zip(axes, history.cpu().numpy().T, strict=True):
            width = min(smooth, len(losses))
            mean = np.convolve(losses, np.ones(width) / width, "valid")
            axis.plot(np.arange(len(mean)) + width, mean, color=colour, label=name)
    for axis, player in zip(axes, ("encoder", "viewmaker"), strict=True):
        axis.set(title=f"loss of the {player}", xlabel="step")
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return _shown_once(figure)


def budget_curves(
    curves: Mapping[str, Mapping[float, float]], label: str = "linear accuracy, percent", chosen: float | None = None
) -> Figure:
    """A curve over the distortion budget for each entry, value by eps; a pink ring around the points at `chosen`."""
    figure, axis = plt.subplots(figsize=(6.2, 2.7), layout="constrained")
    for colour, marker, (name, curve) in zip(
        itertools.cycle(COLOURS), itertools.cycle("os^D"), curves.items(), strict=False
    ):
        budgets = sorted(curve)
        axis.semilogx(budgets, [curve[e] for e in budgets], marker=marker, color=colour, label=name)
        if chosen is not None and chosen in curve:
            axis.plot(
                chosen, curve[chosen], "o", markersize=13, markeredgewidth=2, markeredgecolor=PINK, fillstyle="none"
            )
    ticks = sorted({e for curve in curves.values() for e in curve})
    axis.set_xticks(ticks, [f"{e:g}" for e in ticks])
    axis.minorticks_off()
    axis.set(xlabel="distortion budget eps", ylabel=label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return _shown_once(figure)


def bars(values: Mapping[str, float], label: str, chance: float | None = None) -> Figure:
    """One horizontal bar for each entry, its value written beside it; a dotted line at chance."""
    figure, axis = plt.subplots(figsize=(6.5, 0.38 * len(values) + 0.7), layout="constrained")
    names = list(values)
    colours = [COLOURS[1] if "viewmaker" in name else "#8c9aa8" for name in names]
    drawn = axis.barh(range(len(names)), list(values.values()), color=colours)
    axis.bar_label(drawn, fmt="%.1f", padding=3)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.spines[["top", "right"]].set_visible(False)
    if chance is not None:
        axis.axvline(chance, color="black", linestyle=":", linewidth=1)
        axis.annotate("chance", (chance, 1), xycoords=("data", "axes fraction"), fontsize=8, ha="center", va="bottom")
    return _shown_once(figure)


def _shown_once(figure: Figure) -> Figure:
    """Out of pyplot's hands: a notebook shows the figure as the value of its cell, and not a second time after it."""
    plt.close(figure)
    return figure


def _draw(axis: Axes, image: Tensor) -> None:
    pixels = image.detach().permute(1, 2, 0).cpu().numpy()
    axis.imshow(pixels.clip(0, 1), cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])


def _border(axis: Axes) -> None:
    for spine in axis.spines.values():
        spine.set(edgecolor=PINK, linewidth=3)
