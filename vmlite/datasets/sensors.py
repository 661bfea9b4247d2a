"""Wearable sensors: windows of recordings with many channels, and their log spectrograms."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmlite.datasets import pamap2
from vmlite.datasets.base import Options, Splits, check_count, first_of
from vmlite.datasets.corpus_files import alone
from vmlite.datasets.pamap2 import Recording
from vmlite.datasets.synthetic import motion_files, motions
from vmlite.environment import project_path

HELD_OUT = "5,6"  # the paper's validation and test participants
STRIDE = pamap2.SAMPLE_RATE  # rows from one window to the next where no number of windows is asked
RELEASED = tuple(name for name in pamap2.ACTIVITIES.values() if name != "ironing")  # the 11 of the authors' code


class LogSpectrogram(nn.Module):
    """Windows (N, C, T) to normalised log spectrograms (N, C, size, size), one a channel: the front end of section 6.

    Rows are frequencies from 0 to half the sample rate, columns moments. Power of a Hann-windowed Fourier transform of
    2 size - 1 samples, written as a convolution: on a CPU faster than torchaudio's for such short windows.

    Args:
        window: T, in samples.
        size: number of frequencies and of time steps.
        mean, std: (C,) of the training set's log spectrograms; None leaves them as they are.

    Raises ValueError where the window is too short for `size` time steps, or so long that moments would be left out.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, window: int, size: int, mean: Tensor | None = None, std: Tensor | None = None) -> None:
        super().__init__()
        self.size, self.hop, n_fft = size, -(-window // size), 2 * size - 1
        if window // self.hop + 1 < size:
            raise ValueError(f"a window of {window} samples is too short for {size} time steps; lower input_size.")
        if self.hop > n_fft:
            raise ValueError(f"a window of {window} samples is too long for {size} time steps; raise input_size.")
        angle = 2 * torch.pi / n_fft * torch.arange(size)[:, None] * torch.arange(n_fft)
        hann = torch.hann_window(n_fft)
        self.register_buffer("basis", torch.cat([angle.cos() * hann, angle.sin() * hann])[:, None])
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.basis: Tensor

    def logarithm(self, x: Tensor) -> Tensor:
        """The log spectrograms before normalisation."""
        padded = F.pad(x, (self.size - 1, self.size - 1), mode="reflect").reshape(
            -1, 1, x.shape[-1] + 2 * self.size - 2
        )
        parts = F.conv1d(padded, self.basis, stride=self.hop)[..., : self.size].square()
        return (
            (parts[:, : self.size] + parts[:, self.size :]).add_(1e-6).log_().view(*x.shape[:2], self.size, self.size)
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        together = 16 if x.device.type == "cpu" else len(x)  # on a CPU what fits its cache is faster
        made = x.new_empty((*x.shape[:2], self.size, self.size))
        for part, place in zip(x.split(together), made.split(together), strict=True):
            y = self.logarithm(part)
            if self.mean is not None and self.std is not None:
                y = y.sub_(self.mean[:, None, None]).mul_(1 / self.std[:, None, None])
            place.copy_(y)
        return made


class SensorDataset:
    """Windows of recordings, cut on the device. See `vmlite.datasets.Dataset` for the attributes.

    An example is a cell of a grid over the recordings: the windows that start in one of `room` neighbouring rows. A
    random window starts in any of them, the fixed one in one that was drawn once. All its windows lie in one stretch of
    one recording. It has a label where all of them lie in one bout of one activity, so that pretraining, which takes
    all cells, does not look at labels.

    Args:
        name: as it appears in tables.
        samples: (C, M) float32, all recordings one after the other.
        cells: (N, 4) for each example its first start, its room, its fixed start and its participant's number.
        targets, classes: labels (N,) for each task, -1 for none, and the names of the classes.
        window: length of an example, in rows.
        front_end: the training set's; None makes one of this size, with the statistics of these examples.
        input_size: side of the spectrograms.
    """

    topic = "sensors"
    clamp: tuple[float, float] | None = None
    mean: Tensor | None = None
    std: Tensor | None = None

    def __init__(
        self,
        name: str,
        samples: Tensor,
        cells: Tensor,
        targets: dict[str, Tensor],
        classes: dict[str, tuple[str, ...]],
        window: int,
        input_size: int,
        front_end: nn.Module | None = None,
    ) -> None:
        self.name, self.samples, self.cells, self.window = name, samples, cells, window
        self.targets, self.classes = targets, classes
        self.channels = pamap2.CHANNELS
        self.shape = (len(samples), input_size, input_size)
        self.front_end: nn.Module = front_end or self._fitted(input_size)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def participants(self) -> Tensor:
        """The participant's number (N,) of each example."""
        return self.cells[:, 3]

    def bouts(self, task: str = "activity") -> Tensor:
        """The number of the bout (N,) of each example, as the recordings go. What lies between two bouts counts as one."""
        order = self.cells[:, 0].argsort()
        begins = (self.targets[task][order].diff() != 0) | (self.participants[order].diff() != 0)
        number = torch.empty_like(order)
        number[order] = F.pad(begins, (1, 0)).cumsum(0)
        return number

    def batch(self, index: Tensor, random: bool = False) -> Tensor:
        """Windows (N, C, window) in the recordings' units for `index` (N,)."""
        first, room, fixed, _ = self.cells[index].unbind(1)
        starts = first + (torch.rand(index.shape, device=index.device) * room).long() if random else fixed
        return self.samples.unfold(1, self.window, 1)[:, starts].transpose(0, 1)

    def inputs(self, index: Tensor, random: bool = False) -> Tensor:
        """Spectrograms (N, C, size, size) of the same windows."""
        return self.front_end(self.batch(index, random))

    def only(self, *participants: str) -> Self:
        """The examples of these participants, with the same statistics. Raises ValueError where there are none."""
        numbers = torch.tensor([int(name) for name in participants], device=self.cells.device)
        chosen = torch.isin(self.participants, numbers).nonzero()[:, 0]
        there = {str(number) for number in self.participants.tolist()}
        if missing := [name for name in participants if name not in there]:
            raise ValueError(
                f"this part of {self.name} has participants {', '.join(sorted(there))}, not {', '.join(missing)}."
            )
        return self._like(self.samples, self.cells[chosen], {task: y[chosen] for task, y in self.targets.items()})

    def first(self, n: int | None) -> Self:
        """See `vmlite.datasets.Dataset`."""
        if n is None or n == len(self):
            return self
        check_count(self, n)
        return self._like(self.samples, self.cells[:n], {task: y[:n] for task, y in self.targets.items()})

    def to(self, device: torch.device) -> Self:
        """See `vmlite.datasets.Dataset`."""
        return self._like(self.samples.to(device), self.cells.to(device), self.targets)

    def _like(self, samples: Tensor, cells: Tensor, targets: dict[str, Tensor]) -> Self:
        targets = {task: labels.to(cells.device) for task, labels in targets.items()}
        front_end = copy.deepcopy(self.front_end).to(cells.device)
        return type(self)(self.name, samples, cells, targets, self.classes, self.window, self.shape[1], front_end)

    @torch.no_grad()
    def _fitted(self, input_size: int) -> LogSpectrogram:
        """A front end with the statistics of up to 1,000 of these examples, spread evenly."""
        plain = LogSpectrogram(self.window, input_size).to(self.samples.device)
        index = torch.linspace(0, len(self) - 1, min(len(self), 1000), device=self.samples.device).long()
        made = torch.cat([plain(self.batch(part)) for part in index.split(128)])
        std, mean = torch.std_mean(made, (0, 2, 3))
        return LogSpectrogram(self.window, input_size, mean, std.clamp_min(1e-3)).to(self.samples.device)


def split(name: str, recordings: Sequence[Recording], asked: Options, activities: Sequence[str]) -> Splits:
    """All participants' windows but those of `held_out`, for training, and theirs, for testing.

    Raises ValueError for participants that are not there, for a part without any, for recordings shorter than a window
    and for a sample rate.
    """
    if asked.sample_rate not in (None, pamap2.SAMPLE_RATE):
        raise ValueError(f"{name} is recorded at {pamap2.SAMPLE_RATE} Hz; leave sample_rate out.")
    there = [recording.participant for recording in recordings]
    held_out = [part.strip() for part in (asked.held_out or HELD_OUT).split(",")]
    if unknown := sorted(set(held_out) - set(there)):
        raise ValueError(f"held_out names {', '.join(unknown)}; the participants are {', '.join(there)}.")
    if not set(there) - set(held_out):
        raise ValueError(f"held_out names all participants of {name}; leave some for training.")
    window, size = round((asked.window_seconds or 10) * pamap2.SAMPLE_RATE), asked.input_size or 32

    def part(chosen: list[Recording], n: int | None, front_end: nn.Module | None = None) -> SensorDataset:
        cells, labels = grid(chosen, window, n, activities)
        samples = torch.cat([recording.samples for recording in chosen], 1)
        targets, classes = {"activity": labels}, {"activity": tuple(activities)}
        return SensorDataset(name, samples, cells, targets, classes, window, size, front_end)

    train = part([r for r in recordings if r.participant not in held_out], asked.train_size)
    return Splits(train, part([r for r in recordings if r.participant in held_out], asked.test_size, train.front_end))


def grid(
    recordings: Sequence[Recording], window: int, n: int | None, activities: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """The cells (N, 4) of `SensorDataset` and their labels (N,), in one fixed random order.

    `n` cells are spread evenly; None has one begin every `STRIDE` rows. Raises ValueError for recordings without a
    stretch as long as a window, and for more cells than windows.
    """
    starts = [(r.stretches[:, 1] - r.stretches[:, 0] - window + 1).clamp_min(0) for r in recordings]
    if short := [r.participant for r, count in zip(recordings, starts, strict=True) if not count.sum()]:
        seconds = window / pamap2.SAMPLE_RATE
        raise ValueError(
            f"the recordings of {first_of(short)} have no {seconds:g} s without a gap; lower window_seconds."
        )
    total = int(torch.cat(starts).sum())
    if n is not None and n > total:
        raise ValueError(f"{n} windows were asked, but only {total} fit in the recordings; ask for fewer.")
    stride = STRIDE if n is None else total // n
    made, labels, offset = [], [], 0
    numbers = {code: activities.index(name) for code, name in pamap2.ACTIVITIES.items() if name in activities}
    for recording, counts in zip(recordings, starts, strict=True):
        bout = F.pad((recording.activity.diff() != 0).cumsum(0), (1, 0))
        for (begin, _), count in zip(recording.stretches.tolist(), counts.tolist(), strict=True):
            first = torch.arange(0, count, stride)
            room = (count - first).clamp_max(stride)
            first += begin
            last_row = first + room + window - 2
            codes = recording.activity[first].tolist()
            label = torch.tensor([numbers.get(code, -1) for code in codes], dtype=torch.long)
            labels.append(torch.where(bout[first] == bout[last_row], label, -1))
            who = torch.full_like(first, int(recording.participant))
            made.append(torch.stack([first + offset, room, first + offset, who], 1))
        offset += recording.samples.shape[1]
    generator = torch.Generator().manual_seed(0)
    cells = torch.cat(made)
    cells[:, 2] += (torch.rand(len(cells), generator=generator) * cells[:, 1]).long()
    order = torch.randperm(len(cells), generator=generator)[: n or len(cells)]
    return cells[order], torch.cat(labels)[order]


def load_motions(_: Path, asked: Options) -> Splits:
    """Generated recordings, written in Pamap2's format at the first use and read like the real ones."""
    folder = project_path(f"data/cache/motions-{motions.VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "motions.lock"):
        if len(list(folder.glob("Protocol/*.dat"))) < len(pamap2.PARTICIPANTS):
            motion_files.write(folder)
    recordings = pamap2.cached("motions", pamap2.find(folder), folder)
    return split("motions", recordings, asked, tuple(pamap2.ACTIVITIES.values()))


def other_nuisance(data: SensorDataset, nuisance: int = 1) -> SensorDataset:
    """The same windows of the generated recordings, in which people move alike and are recorded by other units.

    See `motions.record` for `nuisance`. Raises ValueError for real recordings, and unless the windows' participants are
    the first of those recorded.
    """
    if data.name != "motions":
        raise ValueError(f"only the generated recordings, motions, can be recorded again, not {data.name}.")
    people = data.participants.unique().tolist()
    tables = [motions.record(100 + one, nuisance=nuisance)[:, 2:].T.astype("float32") for one in people]
    samples = torch.cat([torch.from_numpy(pamap2.interpolated(table)) for table in tables], 1)
    if int(data.cells[:, :2].sum(1).max()) + data.window - 1 > samples.shape[1]:
        raise ValueError(f"others were recorded before participants {people}; take all of them, or the first.")
    return data._like(samples.to(data.samples.device), data.cells, data.targets)


def load_pamap2(name: str, activities: Sequence[str], data_dir: Path, asked: Options) -> Splits:
    """Pamap2, downloaded where no participant's file is there, from a cache that is made at the first use."""
    if not pamap2.folder_of(data_dir):
        pamap2.download(data_dir)
    place = hashlib.blake2b(str(data_dir.resolve()).encode(), digest_size=4).hexdigest()
    recordings = pamap2.cached("pamap2", pamap2.find(data_dir), project_path(f"data/cache/pamap2-{place}"))
    return split(name, recordings, asked, activities)


LOADERS: dict[str, Callable[[Path, Options], Splits]] = {
    "motions": load_motions,
    "pamap2": functools.partial(load_pamap2, "pamap2", tuple(pamap2.ACTIVITIES.values())),
    "pamap2-11": functools.partial(load_pamap2, "pamap2-11", RELEASED),
}
