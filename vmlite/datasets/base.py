"""What every data set offers, whatever its modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn


class Dataset(Protocol):
    """Examples in compact storage on the training device.

    Attributes:
        name: as it appears in the tables of results.
        topic: "images", "speech" or "sensors".
        targets: for each task the labels (N,) of all examples; -1 where an example takes no part in the task.
        classes: for each task the names of its classes.
        front_end: module that turns a raw batch into network input (N, C, H, W).
        shape: (C, H, W) of the network input.
        mean, std: per-channel statistics that the encoder normalises with; None where the front end does it.
        clamp: the range views are clamped to, for images; None otherwise.
    """

    name: str
    topic: str
    targets: dict[str, Tensor]
    classes: dict[str, tuple[str, ...]]
    front_end: nn.Module
    shape: tuple[int, int, int]
    clamp: tuple[float, float] | None

    @property
    def mean(self) -> Tensor | None:
        """Per-channel mean (C,)."""
        ...

    @property
    def std(self) -> Tensor | None:
        """Per-channel standard deviation (C,)."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def batch(self, index: Tensor, random: bool = False) -> Tensor:
        """Raw examples for `index` (N,), a float tensor on the device.

        An example that is longer than the network's window is cut: at random for pretraining, else always alike.
        """
        ...

    def inputs(self, index: Tensor, random: bool = False) -> Tensor:
        """The front end's output (N, C, H, W) for the same batch, from a cache where there is one."""
        ...

    def first(self, n: int | None) -> Self:
        """The first `n` examples with the same statistics; None keeps all. Raises ValueError where there are fewer."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same data on `device`."""
        ...


def first_of(names: Sequence[str], count: int = 3) -> str:
    """The first names, and how many more there are: for messages."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def check_count(data: Dataset, n: int) -> None:
    """Raise ValueError unless the data set has n examples, and n is at least 1."""
    if not 1 <= n <= len(data):
        raise ValueError(f"{n} examples were asked of {data.name}, which has {len(data)}.")


class Splits(NamedTuple):
    """A data set's training and test examples."""

    train: Dataset
    test: Dataset


@dataclass(frozen=True)
class Options:
    """What can be asked of a data set; None leaves it to the data set.

    Attributes:
        input_size: side of the network's input: images are resized to it, spectrograms computed with it.
        train_size, test_size: how many examples to generate, or at most to keep.
        sample_rate: recordings are resampled to it, in Hz.
        window_seconds: length of an example that is cut from a recording.
        held_out: speakers or participants, separated by commas, whose recordings are only tested on.
        skip_bad: leave out recordings that cannot be read.
    """

    input_size: int | None = None
    train_size: int | None = None
    test_size: int | None = None
    sample_rate: int | None = None
    window_seconds: float | None = None
    held_out: str | None = None
    skip_bad: bool = False
