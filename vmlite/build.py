"""From a recipe to its networks: encoder, views and objective for the shape of the data."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import nn

from vmlite.datasets import Dataset, SpeechDataset
from vmlite.encoders import ENCODERS, Encoder
from vmlite.objectives import BYOL, InstDisc, NTXent, Objective
from vmlite.recipes import Recipe
from vmlite.viewmaker import Viewmaker
from vmlite.views import EXPERTS, Chain, ImageExpert, L1Noise
from vmlite.views_speech import SpectralMasks, WaveformExpert

M = TypeVar("M", bound=nn.Module)


class Inputs(NamedTuple):
    """What trained networks need to know of their data, to be built without them; attributes as of `Dataset`."""

    topic: str
    shape: tuple[int, int, int]
    clamp: tuple[float, float] | None
    mean: None = None  # the encoder's statistics are among its weights
    std: None = None


def place(module: M, device: torch.device) -> M:
    """The module on the device, its weights in the order of memory that convolutions are fastest in."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_encoder(recipe: Recipe, data: Dataset | Inputs) -> Encoder:
    """The recipe's encoder for the shape and the statistics of the data."""
    return ENCODERS[recipe.encoder](
        data.shape[0], recipe.encoder_width, recipe.stem,
        embedding_dim=recipe.embedding_dim, head=recipe.head, mean=data.mean, std=data.std,
    )  # fmt: skip


def build_views(recipe: Recipe, data: Dataset | Inputs) -> Chain:
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
    return Chain(*made)


def with_front_end(views: Chain, front_end: nn.Module) -> tuple[Chain, bool]:
    """The views with the front end after those that act on raw examples, and whether there are any such."""
    raw = [view for view in views if view.domain == "raw"]
    if list(views)[: len(raw)] != raw:
        raise ValueError("views of raw examples must come before views of the network's input.")
    return (Chain(*raw, front_end, *list(views)[len(raw) :]), True) if raw else (views, False)


def build_objective(recipe: Recipe, encoder: Encoder, n_examples: int) -> Objective:
    """The recipe's objective."""
    if recipe.objective == "simclr":
        return NTXent(recipe.temperature, recipe.loss_form, recipe.batch_norm)
    if recipe.objective == "instdisc":
        return InstDisc(n_examples, recipe.embedding_dim, recipe.temperature)
    return BYOL(encoder, recipe.embedding_dim)
