"""Pictures for widgets: sheets of small tiles as PNG bytes, made in milliseconds, without a plotting library."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vmlite.show.pictures import DIVERGING, PINK

Pixels = NDArray[np.uint8]
SIDE, GAP, MARGIN, LINE = 84, 6, 84, 18  # of a tile, between tiles, left of them for names, height of a line of text


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes:
        name: stands to its left, broken at spaces.
        tiles: (h, w, 3) each, all of one size in a sheet; None leaves a place empty.
        captions: above the tiles; cut where they are too long.
        framed: which tiles have a pink frame.
    """

    name: str
    tiles: Sequence[Pixels | None]
    captions: Sequence[str] = ()
    framed: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Scale:
    """What the colours of heat maps mean: from -limit (orange) to limit (purple)."""

    limit: float
    label: str


def colours(values: Tensor, low: float, high: float, name: str = DIVERGING) -> Pixels:
    """Values (..., H, W) as colours (..., H, W, 3) of a matplotlib map, clamped to [low, high]."""
    span = (high - low) or 1.0
    index = ((values.detach().float().cpu() - low) * (255.999 / span)).clamp(0, 255).byte().numpy()
    return _table(name)[index]


def photographs(x: Tensor) -> Pixels:
    """Images (N, 3 or 1, H, W) in [0, 1] as pixels (N, H, W, 3)."""
    pixels = (x.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))


def sheet(rows: Sequence[Row], scale: Scale | None = None) -> bytes:
    """The rows below each other as a PNG, tiles enlarged by a whole factor, the scale of heat maps at the bottom."""
    shape = next(tile.shape for row in rows for tile in row.tiles if tile is not None)
    factor = max(1, round(SIDE / max(shape[:2])))
    height, width = factor * shape[0], factor * shape[1]
    columns = max(len(row.tiles) for row in rows)
    tops, y = [], GAP
    for row in rows:
        y += LINE if row.captions else 0
        tops.append(y)
        y += height + GAP
    total = (MARGIN + max(columns * (width + GAP), 330 if scale else 0), y + (2 * LINE + GAP if scale else 0))
    picture = Image.new("RGB", total, "white")
    draw = ImageDraw.Draw(picture)
    for row, top in zip(rows, tops, strict=True):
        draw.multiline_text((4, top), row.name.replace(" ", "\n"), fill="black", font=_font(), spacing=2)
        for i, tile in enumerate(row.tiles):
            left = MARGIN + i * (width + GAP)
            if i < len(row.captions):
                draw.text((left, top - LINE), _cut(row.captions[i], width), fill="black", font=_font())
            if tile is not None:
                picture.paste(Image.fromarray(tile.repeat(factor, 0).repeat(factor, 1)), (left, top))
            if i in row.framed:
                draw.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), outline=PINK, width=3)
    if scale:
        _draw_scale(picture, draw, scale, y)
    return png(picture)


def png(picture: Image.Image) -> bytes:
    """The picture in PNG format, compressed fast."""
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _draw_scale(picture: Image.Image, draw: ImageDraw.ImageDraw, scale: Scale, top: int) -> None:
    """A bar of colours with numbers at its ends and middle, and what they count."""
    bar = np.broadcast_to(_table(DIVERGING)[np.linspace(0, 255, 160).round().astype(int)], (LINE - 3, 160, 3))
    picture.paste(Image.fromarray(np.ascontiguousarray(bar)), (MARGIN, top))
    draw.text((MARGIN + 168, top - 1), scale.label, fill="black", font=_font())
    for place, value, anchor in ((0, -scale.limit, "la"), (80, 0.0, "ma"), (160, scale.limit, "ra")):
        draw.text((MARGIN + place, top + LINE - 2), f"{value:.2g}", fill="black", font=_font(), anchor=anchor)


def _cut(text: str, width: float) -> str:
    """The text, or its beginning where it is wider than so many pixels."""
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _table(name: str) -> Pixels:
    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(12)
