"""Hearing and seeing views of speech: a change of the log-mel spectrogram applied to the sound, players, spectrograms."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from IPython.display import HTML, Audio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vmlite.datasets.speech import LogMel
from vmlite.show.pictures import DIVERGING, _border, _shown_once

OVERLAP = 8  # frames of the fine spectrogram within its window
TICKS = (250, 500, 1000, 2000, 4000, 8000)  # Hz


@torch.no_grad()
def hear(waveform: Tensor, change_db: Tensor, front_end: LogMel) -> Tensor:
    """A waveform (T,) with a change (size, size) of its log-mel spectrogram in dB, as a waveform (T,).

    The change is a gain on an STFT of the front end's window with more frames, interpolated linearly between the mel
    bands' centres and in time; the phase is the original's. What is silent stays silent: a gain cannot add sound.
    Changes that differ from one band and frame to the next are heard weaker than asked, because neighbours overlap.
    For views of the normalised spectrogram the change is `(view - x) * front_end.std`.

    Raises ValueError for other shapes.
    """
    mel, size = front_end.mel, front_end.size
    shortest, longest = (size - 1) * mel.hop_length, size * mel.hop_length
    if waveform.ndim != 1 or not shortest <= len(waveform) <= longest:
        raise ValueError(
            f"the waveform must be (T,), the front end's window of {shortest} to {longest} samples, "
            f"got {tuple(waveform.shape)}."
        )
    if change_db.shape != (size, size):
        raise ValueError(f"the change must be ({size}, {size}) for this front end, got {tuple(change_db.shape)}.")
    hop, window = max(1, mel.n_fft // OVERLAP), torch.hann_window(mel.n_fft).to(waveform)
    spectrum = torch.stft(waveform, mel.n_fft, hop, window=window, return_complex=True)
    band = mel_band(torch.linspace(0, mel.sample_rate / 2, len(spectrum)), front_end)
    frame = torch.arange(spectrum.shape[1]) * hop / mel.hop_length
    place = torch.stack(torch.meshgrid(frame, band, indexing="xy"), -1) * 2 / (size - 1) - 1  # -1 first, 1 last
    gain_db = torch.nn.functional.grid_sample(
        change_db[None, None].to(waveform), place[None].to(waveform), padding_mode="border", align_corners=True
    )[0, 0]
    return torch.istft(spectrum * 10 ** (gain_db / 20), mel.n_fft, hop, window=window, length=len(waveform))


def mel_band(hertz: Tensor, front_end: LogMel) -> Tensor:
    """Where frequencies lie among the front end's mel bands: 0 is the centre of the first, size - 1 of the last."""
    nyquist = front_end.mel.sample_rate / 2
    return torch.log1p(hertz / 700) / math.log1p(nyquist / 700) * (front_end.size + 1) - 1


def players(waveforms: Mapping[str, Tensor], sample_rate: int) -> HTML:
    """A row of players, named, for waveforms (T,). The loudest sample of all is played at full scale."""
    peak = max(float(wave.abs().max()) for wave in waveforms.values()) or 1.0
    cells = [
        f"<td style='text-align: center'>{html.escape(name)}<br>"
        f"{Audio((wave / peak).detach().cpu().numpy(), rate=sample_rate, normalize=False)._repr_html_()}</td>"
        for name, wave in waveforms.items()
    ]
    return HTML(f"<table><tr>{''.join(cells)}</tr></table>")


def spectrogram_grid(
    x: Tensor,
    views: Tensor,
    front_end: LogMel,
    names: Sequence[str] = (),
    title: str = "",
    limit: float | None = None,
    size: float = 1.7,
) -> Figure:
    """Spectrograms x (N, 1, S, S) with a pink border, their views (V, N, 1, S, S), and below them the perturbations.

    Spectrograms are normalised, as the front end makes them, and shown in dB. `names` stand above the V columns.
    Perturbations are all on one scale from -limit to limit dB (None: the largest magnitude): orange is softer, purple
    louder. Raises ValueError for other shapes.
    """
    if x.ndim != 4 or x.shape[1:] != (1, front_end.size, front_end.size) or views.shape[1:] != x.shape:
        raise ValueError(
            f"spectrograms must be (N, 1, {front_end.size}, {front_end.size}) and views (V, N, 1, ...) of the same, "
            f"got {tuple(x.shape)} and {tuple(views.shape)}."
        )
    std, mean = front_end.std.cpu(), front_end.mean.cpu()
    shown = (torch.cat([x[None], views])[:, :, 0].detach().cpu() * std + mean).numpy()
    change = ((views - x)[:, :, 0].detach().cpu() * std).numpy()
    largest = float(abs(change).max()) or 1.0
    limit = largest if limit is None else limit
    n, columns = len(x), len(shown)
    width = size * columns + 1.6
    seconds = front_end.mel.hop_length / front_end.mel.sample_rate
    extent = (-seconds / 2, (front_end.size - 0.5) * seconds, -0.5, front_end.size - 0.5)
    place: dict[str, Any] = {"extent": extent, "origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    figure, axes = plt.subplots(
        2 * n, columns, figsize=(width, size * 2 * n + 0.6), squeeze=False, layout="constrained"
    )
    for i in range(n):
        for v in range(columns):
            upper, lower = axes[2 * i : 2 * i + 2, v]
            level = upper.imshow(shown[v, i], cmap="magma", vmin=shown.min(), vmax=shown.max(), **place)
            _label(upper, front_end, pitch=v == 0, time=False)
            if v == 0:
                _border(upper)
                lower.axis("off")
                continue
            heat = lower.imshow(change[v - 1, i], cmap=DIVERGING, vmin=-limit, vmax=limit, **place)
            _label(lower, front_end, pitch=False, time=True)
    for axis, name in zip(axes[0], ("original", *names), strict=False):
        axis.set_title(textwrap.fill(name, round(12 * size)), fontsize=8)
    extend = "both" if largest > limit else "neither"
    for row, image, label in ((0, level, "dB"), (1, heat, "perturbation (dB)")):
        bar = figure.colorbar(image, ax=axes[row, -1], label=label, extend=extend if row else "neither")
        bar.ax.tick_params(labelsize=7)
    figure.suptitle(textwrap.fill(title, round(13 * width)), fontsize=10)
    return _shown_once(figure)


def _label(axis: Axes, front_end: LogMel, pitch: bool, time: bool) -> None:
    """Ticks in Hz and seconds, with numbers where asked."""
    hertz = [f for f in TICKS if f < front_end.mel.sample_rate / 2]
    places = mel_band(torch.tensor(hertz), front_end).tolist()
    axis.set_yticks(places, [str(f) for f in hertz])
    axis.tick_params(labelsize=7, labelleft=pitch, labelbottom=time)
    if pitch:
        axis.set_ylabel("Hz", fontsize=8)
    if time:
        axis.set_xlabel("s", fontsize=8)
