"""Seeing wearable sensors and their views: windows as curves, log spectrograms with their perturbations, what changes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vmlite.datasets.base import first_of
from vmlite.show.pictures import COLOURS, DIVERGING, _border, _shown_once

KINDS = {  # of sensors, with the units of Pamap2
    "temperature": "°C",
    "acceleration 16g": "m/s²",
    "acceleration 6g": "m/s²",
    "gyroscope": "rad/s",
    "magnetometer": "µT",
    "orientation": "",
}
HEART = "heart rate"
LIMBS = {"hand": COLOURS[0], "chest": COLOURS[1], "ankle": COLOURS[2], HEART: COLOURS[3]}


def curves(windows: Mapping[str, Tensor], channels: Sequence[str], shown: Sequence[str], rate: float = 100) -> Figure:
    """Windows (C, T) side by side, in the recordings' units: a row for each channel in `shown`, all on its scale.

    Args:
        windows: of each name, for example of an activity; it stands above its column.
        channels: C names, as `vmlite.datasets.pamap2.CHANNELS`.
        shown: the channels to draw.
        rate: samples per second.

    Raises ValueError for other shapes and for channels that are not there.
    """
    for name, window in windows.items():
        if window.ndim != 2 or len(window) != len(channels):
            raise ValueError(f"the window {name!r} must be ({len(channels)}, T), got {tuple(window.shape)}.")
    rows, size = _rows(channels, shown), min(2.3, 8.8 / len(windows))
    figure, axes = plt.subplots(
        len(shown),
        len(windows),
        figsize=(size * len(windows) + 1.4, 1.15 * len(shown) + 0.7),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, (name, window) in zip(axes.T, windows.items(), strict=True):
        column[0].set_title(textwrap.fill(name, round(11 * size)), fontsize=9)
        for axis, row in zip(column, rows, strict=True):
            values = window[row].detach().cpu().numpy()
            axis.plot(np.arange(len(values)) / rate, values, color=LIMBS[_group(channels[row])[0]], linewidth=0.8)
            axis.spines[["top", "right"]].set_visible(False)
            _ticks(axis)
    for axis, name in zip(axes[:, 0], shown, strict=True):
        _name(axis, name, "bpm" if name == HEART else KINDS[_group(name)[1]])
    for axis in axes[-1]:
        axis.set_xlabel("time (s)", fontsize=8)
        axis.set_xlim(0, max(window.shape[1] for window in windows.values()) / rate)
    figure.align_ylabels()
    return _shown_once(figure)


def channel_grid(
    x: Tensor,
    views: Tensor,
    channels: Sequence[str],
    shown: Sequence[str],
    title: str = "",
    seconds: float = 10.0,
    rate: float = 100.0,
) -> Figure:
    """One example's log spectrograms x (C, S, S) with a pink border, its views (V, C, S, S), and the perturbations.

    All in normalised units, a row for each channel in `shown`. Spectrograms share one scale. Perturbations share one
    symmetric scale: orange is weaker, purple stronger.

    Args:
        x: as the front end makes it: rows are frequencies from 0 up, columns moments.
        views: of x.
        channels: C names.
        shown: the channels to draw.
        title: above all.
        seconds: length of the window.
        rate: of the window, in samples per second.

    Raises ValueError for other shapes and for channels that are not there.
    """
    if x.ndim != 3 or len(x) != len(channels) or views.ndim != 4 or not len(views) or views.shape[1:] != x.shape:
        raise ValueError(
            f"x must be ({len(channels)}, S, S), one spectrogram for each channel, and views (V, {len(channels)}, S, S) "
            f"with at least one view, got {tuple(x.shape)} and {tuple(views.shape)}."
        )
    rows, count = _rows(channels, shown), len(views)
    levels = torch.cat([x[None], views])[:, rows].detach().cpu().numpy()
    change = (views - x)[:, rows].detach().cpu().numpy()
    limit = float(np.abs(change).max()) or 1.0
    hertz, moments = _scales(x.shape[-2:], seconds, rate)
    place: dict[str, Any] = {"extent": (*_edges(moments), *_edges(hertz)), "origin": "lower", "aspect": "auto"}
    size = min(1.8, 8.6 / (2 * count + 1))
    width = size * (2 * count + 1) + 1.6
    figure, axes = plt.subplots(
        len(rows),
        2 * count + 1,
        figsize=(width, 1.15 * len(rows) + 1.3),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for i, row in enumerate(axes):
        for axis, image in zip(row, levels[:, i], strict=False):
            level = axis.imshow(image, cmap="magma", vmin=levels.min(), vmax=levels.max(), **place)
        for axis, image in zip(row[count + 1 :], change[:, i], strict=True):
            heat = axis.imshow(image, cmap=DIVERGING, vmin=-limit, vmax=limit, **place)
        _border(row[0])
        _name(row[0], shown[i], "Hz")
    views_, changes = ([f"{what} {v + 1}" for v in range(count)] for what in ("view", "perturbation"))
    for axis, name in zip(axes[0], ("original", *views_, *changes), strict=True):
        axis.set_title(name, fontsize=8)
    for axis in axes.flat:
        _ticks(axis)
    for drawn, image, label in ((axes[:, : count + 1], level, "level"), (axes[:, count + 1 :], heat, "perturbation")):
        bar = figure.colorbar(image, ax=drawn, location="bottom", aspect=30, shrink=0.6)
        bar.set_label(f"{label} (normalised)", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)", fontsize=8)
    figure.align_ylabels()
    figure.suptitle(textwrap.fill(title, round(13 * width)), fontsize=10)
    return _shown_once(figure)


def shares(change: Tensor, channels: Sequence[str]) -> dict[str, Tensor]:
    """Mean magnitudes of changes (N, C, S, S) in groups, over the mean of all: 1 everywhere if spread evenly.

    Args:
        change: views less originals, of many examples.
        channels: C names.

    Returns:
        "channel" (C,), "frequency" (S,) and "moment" (S,); and, with rows hand, chest, ankle and heart rate,
        "sensor" (4, 6), by kind of sensor as in `KINDS`, the heart rate's own share in the whole last row;
        "limb frequency" and "limb moment" (4, S). Groups without a channel are NaN.

    Raises ValueError for other shapes, unknown channels, and changes that are zero everywhere or not finite.
    """
    if change.ndim != 4 or change.shape[1] != len(channels):
        raise ValueError(f"the change must be (N, {len(channels)}, S, S), got {tuple(change.shape)}.")
    size = change.detach().abs().mean(0).cpu()
    if not 0 < size.mean() < math.inf:
        raise ValueError("the change must be finite and not zero everywhere: view - x of at least one example.")
    size /= size.mean()
    groups = [_group(name) for name in channels]
    limbs = [size[[limb == group[0] for group in groups]].mean(0) for limb in LIMBS]
    sensors = [[size[[(limb, kind) == group for group in groups]].mean() for kind in KINDS] for limb in LIMBS]
    sensors[-1] = [limbs[-1].mean()] * len(KINDS)
    return {
        "channel": size.mean((1, 2)),
        "frequency": size.mean((0, 2)),
        "moment": size.mean((0, 1)),
        "sensor": torch.tensor(sensors),
        "limb frequency": torch.stack(limbs).mean(2),
        "limb moment": torch.stack(limbs).mean(1),
    }


def where_it_changes(
    change: Tensor, channels: Sequence[str], title: str = "", seconds: float = 10.0, rate: float = 100.0
) -> Figure:
    """Which sensors, frequencies and moments changes (N, C, S, S) = views - x touch, as `shares` of an even spread.

    Purple sensors change more than an even spread, orange ones less. Arguments and errors as in `channel_grid` and
    `shares`.
    """
    share = shares(change, channels)
    hertz, moments = _scales(change.shape[-2:], seconds, rate)
    figure, (sensors, *lines) = plt.subplots(
        1, 3, figsize=(10.4, 3.2), width_ratios=(4.8, 2.5, 2.5), layout="constrained"
    )
    _sensors(sensors, share["sensor"].numpy())
    for axis, what, where, unit in zip(lines, ("frequency", "moment"), (hertz, moments), ("Hz", "s"), strict=True):
        axis.axhline(1, color="black", linestyle=":", linewidth=1)
        for (limb, colour), values in zip(LIMBS.items(), share[f"limb {what}"], strict=True):
            axis.plot(where, values, color=colour, linewidth=1.2, label=limb)
        axis.plot(where, share[what], color="black", linewidth=1.8, label="all channels")
        axis.set_title(f"by {what}", fontsize=9)
        axis.set_xlabel(f"{'time' if unit == 's' else what} ({unit})", fontsize=8)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    lines[0].set_ylabel("change (1: even spread)", fontsize=8)
    names = lines[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower right", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(textwrap.fill(title, 130), fontsize=10)
    return _shown_once(figure)


def _sensors(axis: Axes, values: np.ndarray) -> None:
    """The heat map of `shares`' "sensor", with its numbers; the heart rate's row is one cell."""
    limit = max(0.5, float(np.nanmax(np.abs(values - 1))))
    axis.imshow(values, cmap=DIVERGING, vmin=1 - limit, vmax=1 + limit, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        heart = i == len(values) - 1
        if np.isfinite(value) and not (heart and j):
            centre = (len(KINDS) - 1) / 2 if heart else j
            colour = "white" if abs(value - 1) > 0.7 * limit else "black"
            axis.text(centre, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axis.hlines(np.arange(len(values) - 1) + 0.5, -0.5, len(KINDS) - 0.5, color="white")
    axis.vlines(np.arange(len(KINDS) - 1) + 0.5, -0.5, len(values) - 1.5, color="white")
    axis.set_xticks(range(len(KINDS)), [textwrap.fill(kind, 12) for kind in KINDS], fontsize=7)
    axis.set_yticks(range(len(LIMBS)), list(LIMBS), fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title("by sensor (1: even spread)", fontsize=9)


def _group(channel: str) -> tuple[str, str]:
    """Limb and kind of sensor."""
    limb, _, rest = channel.partition(" ")
    kind = next((kind for kind in KINDS if rest.startswith(kind)), "")
    if channel == HEART:
        return HEART, ""
    if limb not in LIMBS or not kind:
        raise ValueError(
            f"the channel {channel!r} is not one of Pamap2's; it must be {HEART!r}, or hand, chest or ankle and one of "
            f"{', '.join(KINDS)}."
        )
    return limb, kind


def _rows(channels: Sequence[str], shown: Sequence[str]) -> list[int]:
    """Places of the shown channels."""
    if not shown:
        raise ValueError("no channel is shown; name at least one.")
    if missing := [name for name in shown if name not in channels]:
        raise ValueError(f"there is no channel {first_of(missing)}; there are {first_of(channels, 60)}.")
    return [list(channels).index(name) for name in shown]


def _scales(shape: torch.Size, seconds: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz of the rows and moments in s of the columns, at their middles."""
    hop = math.ceil(seconds * rate / shape[1]) / rate
    return np.arange(shape[0]) * rate / (2 * shape[0] - 1), np.arange(shape[1]) * hop


def _edges(middles: np.ndarray) -> tuple[float, float]:
    half = (middles[-1] - middles[0]) / (len(middles) - 1) / 2
    return middles[0] - half, middles[-1] + half


def _ticks(axis: Axes) -> None:
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
    axis.tick_params(labelsize=7)


def _name(axis: Axes, channel: str, unit: str) -> None:
    """The channel's name left of its row and of the unit."""
    limb, _, rest = channel.partition(" ")
    axis.set_ylabel(unit, fontsize=8)
    place: dict[str, Any] = {"xycoords": axis.yaxis.label, "textcoords": "offset points", "ha": "right", "va": "center"}
    axis.annotate(f"{limb}\n{textwrap.fill(rest, 14)}", (0, 0.5), (-4, 0), fontsize=8, **place)
