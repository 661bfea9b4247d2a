"""Spirograph images: curves drawn by a rolling circle (Foster, Pukdee, Rainforth, ICLR 2021, section 5.2).

`RANGES` are the paper's. `generate` makes a classification task of them that pixels alone do not solve and that a thin
network can solve: see its docstring for what it changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

POINTS = 40
RANGES = {
    "m": (2.0, 5.0), "b": (0.1, 1.1), "sigma": (0.25, 1.0), "fore_r": (0.4, 1.0), "h": (0.5, 2.5),
    "back_r": (0.0, 0.6), "back_g": (0.0, 0.6), "back_b": (0.0, 0.6), "fore_g": (0.4, 1.0), "fore_b": (0.4, 1.0),
}  # fmt: skip


def draw_parameters(
    n: int, generator: torch.Generator, ranges: dict[str, tuple[float, float]] = RANGES
) -> dict[str, Tensor]:
    """Parameters of `n` curves, each (n,), uniform in `ranges`."""
    return {name: low + (high - low) * torch.rand(n, generator=generator) for name, (low, high) in ranges.items()}


def render(
    parameters: dict[str, Tensor], size: int = 32, angle: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """Images (N, 3, size, size) in [0, 1] of the curves; differentiable.

    Args:
        parameters: as `draw_parameters` returns them.
        angle: (N,) turns each curve, in radians.
        shift: (N, 2) moves it, in the plane's units; the image shows [-6, 6]^2.
    """
    m, b, h = (parameters[k][:, None] for k in ("m", "b", "h"))
    t = torch.linspace(0, 2 * math.pi, POINTS, device=m.device)
    x = (m - h) * t.cos() + h * (t * (m - h) / b).cos()
    y = (m - h) * t.sin() - h * (t * (m - h) / b).sin()
    if angle is not None:
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        x, y = cos * x - sin * y, sin * x + cos * y
    if shift is not None:
        x, y = x + shift[:, :1], y + shift[:, 1:]
    # exp(-|p - c|^2 / sigma) factors into a row part and a column part: sum over points of row * column.
    grid = torch.linspace(-6, 6, size, device=m.device)
    sigma = parameters["sigma"][:, None, None]
    columns = torch.exp(-((grid[None, :, None] - x[:, None]) ** 2) / sigma)
    rows = torch.exp(-((grid[None, :, None] - y[:, None]) ** 2) / sigma)
    ink = (rows @ columns.transpose(1, 2))[:, None]
    ink = ink / ink.amax((2, 3), keepdim=True)
    fore, back = (
        torch.stack([parameters[f"{layer}_{c}"] for c in "rgb"], 1)[:, :, None, None] for layer in ("fore", "back")
    )
    return ink * fore + (1 - ink) * back


CLASSES = tuple(f"m {m}, b {b}" for m in ("small", "middle", "large") for b in ("small", "middle", "large"))
TASK_RANGES = RANGES | {"h": (0.7, 1.5), "sigma": (0.25, 0.5)}


def generate(n: int, size: int = 20, seed: int = 0, turn: float = math.pi, move: float = 1.5) -> tuple[Tensor, Tensor]:
    """`n` images (n, 3, size, size) as uint8 and their labels: three equal bins of m times three of b.

    Three changes to the paper's images. Each curve is turned by up to `turn` radians and moved by up to `move` units
    either way, so that a linear classifier on pixels cannot solve the task. h and sigma vary less, so that lines stay
    crisp on few pixels. m and b come from the middle half of their bins, so that no image lies between two classes.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = draw_parameters(n, generator, TASK_RANGES)
    labels = torch.zeros(n, dtype=torch.long)
    for name in ("m", "b"):
        third = torch.randint(3, (n,), generator=generator)
        position = 0.25 + 0.5 * torch.rand(n, generator=generator)
        low, high = RANGES[name]
        parameters[name] = low + (high - low) * (third + position) / 3
        labels = 3 * labels + third
    angle = (2 * torch.rand(n, generator=generator) - 1) * turn
    shift = (2 * torch.rand(n, 2, generator=generator) - 1) * move
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    for index in torch.arange(n).split(1000):
        part = {name: value[index] for name, value in parameters.items()}
        images[index] = (render(part, size, angle[index], shift[index]) * 255).round().to(torch.uint8)
    return images, labels
