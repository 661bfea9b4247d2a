"""What the explorer shows, without its widgets: views of one example at any budget, their numbers, their neighbours."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmlite.datasets import Dataset, SensorDataset, SpeechDataset
from vmlite.encoders import Encoder
from vmlite.show import tiles
from vmlite.show.sounds import hear
from vmlite.viewmaker import Viewmaker, perturb
from vmlite.views import L1Noise, spent

Maker = Viewmaker | L1Noise
Views = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sketch:
    """One example's perturbations before the budget: a network runs once, and a new budget only projects again.

    Attributes:
        x: the example (1, C, H, W).
        raw: for each maker V perturbations (V, C, H, W) before projection.
        clamp: the range of views, for images.
    """

    x: Tensor
    raw: Mapping[str, Tensor]
    clamp: tuple[float, float] | None

    def views(self, eps: float, norm: float = 1.0) -> dict[str, Tensor]:
        """For each maker its views (V, C, H, W) within the budget (Algorithm 1, lines 2 to 4)."""
        return {name: perturb(self.x, p, eps, norm, self.clamp) for name, p in self.raw.items()}


def maker_in(views: nn.Module) -> Maker:
    """The last viewmaker or noise among the views, which may be a chain. Raises ValueError if there is none."""
    found = [part for part in views.modules() if isinstance(part, Viewmaker | L1Noise)]
    if not found:
        raise ValueError("these views have no budget to move: give a Viewmaker, L1Noise, or views that contain one.")
    return found[-1]


@torch.no_grad()
def sketch(x: Tensor, makers: Mapping[str, Maker], count: int, seed: int, clamp: tuple[float, float] | None) -> Sketch:
    """Line 1 of Algorithm 1 for one example x (1, C, H, W), `count` times for each maker.

    All makers get the noise of the same seed, from a generator of their own: what else is drawn does not change it.
    """
    repeated = x.expand(count, *x.shape[1:])
    raw = {}
    for name, maker in makers.items():
        generator = torch.Generator(x.device).manual_seed(seed)
        if isinstance(maker, Viewmaker):
            raw[name] = maker.generate(x, maker.draw_noise(repeated, generator), count)
        else:
            raw[name] = maker.draw_noise(repeated, generator)
    return Sketch(x, raw, clamp)


@dataclass(frozen=True)
class Memory:
    """Embeddings (M, D), of length 1, of some examples of a data set, and which ones they are (M,)."""

    data: Dataset
    index: Tensor
    embeddings: Tensor


@torch.no_grad()
def remember(encoder: Encoder, data: Dataset, task: str, count: int = 1000) -> Memory:
    """Embed `count` examples, evenly spread over those with a label for the task, with an encoder in eval mode.

    Fewer where there are not so many; unlabelled ones where no example has a label, or the data lack the task.
    """
    known = (data.targets[task] >= 0).nonzero()[:, 0] if task in data.targets else torch.empty(0)
    index = known if len(known) else torch.arange(len(data), device=encoder.mean.device)
    count = min(count, len(index))
    index = index[torch.arange(count, device=index.device) * len(index) // count]
    parts = [F.normalize(encoder(data.inputs(part)), dim=1) for part in index.split(256)]
    return Memory(data, index, torch.cat(parts))


@dataclass(frozen=True)
class Comparison:
    """How far views are from their original for an encoder.

    Attributes:
        similarity: for each maker the cosine (V,) between each view's embedding and the original's.
        nearest: the indices (k,) of the nearest training examples to the "original", and to each maker's first view.
    """

    similarity: Mapping[str, Tensor]
    nearest: Mapping[str, Tensor]


@torch.no_grad()
def compare(encoder: Encoder, memory: Memory, x: Tensor, views: Views, k: int = 6) -> Comparison:
    """Embed an example x (1, C, H, W) and its views with an encoder in eval mode, in one call."""
    made = F.normalize(encoder(torch.cat([x, *views.values()])), dim=1)
    parts = dict(zip(["original", *views], made.split([1, *(len(v) for v in views.values())]), strict=True))
    nearest = {
        name: memory.index[(memory.embeddings @ z[0]).topk(min(k, len(memory.index))).indices]
        for name, z in parts.items()
    }
    return Comparison({name: z @ made[0] for name, z in parts.items() if name != "original"}, nearest)


@dataclass(frozen=True)
class Look:
    """How examples of a data set are drawn; spectrograms show one channel, or the mean of all where it is None."""

    data: Dataset
    channel: int | None = None

    def plane(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, H, W), low frequencies at the bottom."""
        if self.data.clamp is not None:
            return x.mean(1)
        return (x.mean(1) if self.channel is None else x[:, self.channel]).flip(1)

    def draw(self, x: Tensor, like: Tensor) -> tiles.Pixels:
        """Examples (N, C, H, W) as pixels (N, h, w, 3), spectrograms on the scale of `like` (M, C, H, W)."""
        if self.data.clamp is not None and x.shape[1] in (1, 3):
            return tiles.photographs(x)
        if self.data.clamp is not None:
            return tiles.photographs(x.mean(1, keepdim=True))
        scale = self.plane(like)
        return tiles.colours(self.plane(x), float(scale.min()), float(scale.max()), "magma")

    def heat(self, change: Tensor) -> Tensor:
        """What is shown of changes (N, C, H, W): (N, h, w) in the units of `label`."""
        return self.plane(change) * (float(_decibels(self.data)) if isinstance(self.data, SpeechDataset) else 1.0)

    @property
    def label(self) -> str:
        """What heat maps count."""
        if isinstance(self.data, SpeechDataset):
            return "perturbation (dB)"
        if isinstance(self.data, SensorDataset):
            return f"perturbation of {'all channels' if self.channel is None else self.data.channels[self.channel]}"
        return "perturbation, mean over colours"


def views_picture(made: Sketch, views: Views, look: Look) -> bytes:
    """The original with a pink frame, each maker's views, and below them the perturbations, all on one scale. PNG."""
    changes = {name: look.heat(v - made.x) for name, v in views.items()}
    limit = max(float(change.abs().max()) for change in changes.values()) or 1.0
    original = look.draw(made.x, made.x)[0]
    rows: list[tiles.Row] = []
    for name, change in changes.items():
        captions = ["original", *(f"view {i + 1}" for i in range(len(change)))]
        drawn = [original, *look.draw(views[name], made.x)]
        rows.append(tiles.Row(name, drawn, () if rows else captions, frozenset({0})))
        rows.append(tiles.Row("", [None, *tiles.colours(change, -limit, limit)]))
    return tiles.sheet(rows, tiles.Scale(limit, look.label))


def neighbours_picture(memory: Memory, found: Comparison, look: Look, task: str, x: Tensor) -> bytes:
    """The nearest training examples to the original and to each maker's first view. PNG.

    A pink frame marks a view's neighbours that are the original's too.
    """
    data = memory.data
    own = set(found.nearest["original"].tolist())
    rows = []
    for name, index in found.nearest.items():
        drawn = [tile[0] for tile in (look.draw(data.inputs(i), x) for i in index.split(1))]
        captions = [class_name(data, task, int(i)) for i in index]
        same = [place for place, i in enumerate(index.tolist()) if i in own and name != "original"]
        title = "nearest to original" if name == "original" else f"to {name} view 1"
        rows.append(tiles.Row(title, drawn, captions, frozenset(same)))
    return tiles.sheet(rows)


@dataclass(frozen=True)
class Numbers:
    """A maker's realised budget, the share of values that its views' clamp has cut, both means over its views."""

    budget: float
    clamped: float


def numbers(made: Sketch, views: Views, norm: float) -> dict[str, Numbers]:
    """What each maker's views cost after the clamp."""
    found = {name: spent(made.x, v, norm) for name, v in views.items()}
    return {name: Numbers(float(budget.mean()), float(clamped.mean())) for name, (budget, clamped) in found.items()}


def table(spend: Mapping[str, Numbers], found: Comparison | None = None, clamps: bool = True) -> str:
    """The numbers as an HTML table, a row for each maker; dashes where the embeddings are not there yet."""
    titles = [
        "",
        "realised budget",
        *(["clamped"] if clamps else []),
        "similarity to the original",
        "same neighbours, view 1",
    ]
    rows = []
    for name, n in spend.items():
        cells = [html.escape(name), f"{n.budget:.4f}", *([f"{n.clamped:.1%}"] if clamps else [])]
        if found is None:
            cells += ["–", "–"]
        else:
            s, own = found.similarity[name], set(found.nearest["original"].tolist())
            shared = len(own & set(found.nearest[name].tolist()))
            cells += [f"{s.mean():.3f} ({s.min():.3f} to {s.max():.3f})", f"{shared} of {len(own)}"]
        rows.append("".join(f"<td style='padding: 0 1em 0 0'>{cell}</td>" for cell in cells))
    head = "".join(f"<th style='padding: 0 1em 0 0; text-align: left'>{title}</th>" for title in titles)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def sounds_of(data: SpeechDataset, index: int, made: Sketch, views: Views) -> dict[str, bytes]:
    """The original and each maker's first view as WAV files, the loudest sample of all at full scale."""
    wave = data.batch(torch.tensor([index], device=made.x.device))[0]
    heard = {"original": wave}
    for name, v in views.items():
        heard[name] = hear(wave, (v[0] - made.x[0])[0] * _decibels(data), data.front_end)  # type: ignore[arg-type]
    peak = max(float(w.abs().max()) for w in heard.values()) or 1.0
    return {name: wav(w / peak, data.sample_rate) for name, w in heard.items()}


def wav(wave: Tensor, sample_rate: int) -> bytes:
    """A waveform (T,) in [-1, 1] as a WAV file of 16 bits."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.detach().cpu().numpy(), sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def class_name(data: Dataset, task: str, index: int) -> str:
    """The name of an example's class, "unlabelled" where it has none."""
    label = int(data.targets[task][index])
    return data.classes[task][label] if label >= 0 else "unlabelled"


def check_makers(makers: Mapping[str, Maker], data: Dataset) -> None:
    """Raise ValueError unless there is a maker, and each viewmaker takes the data's channels."""
    if not makers:
        raise ValueError("give at least one viewmaker to explore, such as {'trained': run.views}.")
    for name, maker in makers.items():
        if isinstance(maker, Viewmaker) and maker.channels != data.shape[0]:
            raise ValueError(
                f"the viewmaker {name!r} takes {maker.channels} channels, but the examples of {data.name} have "
                f"{data.shape[0]}: give one that was made for these data."
            )


def check_example(example: int, data: Dataset) -> None:
    """Raise ValueError unless the data have an example of this index."""
    if not 0 <= example < len(data):
        raise ValueError(f"example {example} is not there: {data.name} has {len(data)}, 0 to {len(data) - 1}.")


def name_of(norm: float) -> str:
    """A norm's name: l1, l2 or l-infinity."""
    return "l-infinity" if math.isinf(norm) else f"l{norm:g}"


def in_words(names: Sequence[str]) -> str:
    """Names as a list in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _decibels(data: SpeechDataset) -> Tensor:
    return data.front_end.std  # type: ignore[return-value]
