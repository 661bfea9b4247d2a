"""Speech: recordings cut to windows, and their log-mel spectrograms."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
import torchaudio
from torch import Tensor, nn
from tqdm import tqdm

from vmlite.datasets.base import Options, Splits, check_count, first_of
from vmlite.datasets.corpus import PADDING, Corpus, cache, in_memory
from vmlite.datasets.speech_folders import SPEECH_FOLDERS
from vmlite.datasets.synthetic import voices
from vmlite.environment import project_path
from vmlite.hardware import total_memory

CACHE_LIMIT = 8 * 2**30  # bytes of spectrograms to keep, where memory is four times that; more are computed by batch
FLOOR = 1e-4  # mel power below which everything is silence: -40 dB
PAPER_HOPS = {(150_526, 64): 2360, (150_526, 112): 1344}


class LogMel(nn.Module):
    """Waveforms (N, T) in [-1, 1] to normalised log-mel spectrograms (N, 1, size, size): the front end of section 5.

    Args:
        sample_rate: of the waveforms, in Hz.
        window: T, in samples.
        size: number of mel bands and of time steps.
        mean, std: of the training set's spectrograms, in dB.

    Raises ValueError where the window is too short for `size` time steps.
    """

    def __init__(self, sample_rate: int, window: int, size: int, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        hop = PAPER_HOPS.get((window, size), math.ceil(window / size))
        if window // hop + 1 < size:
            raise ValueError(f"a window of {window} samples is too short for {size} time steps; lower input_size.")
        n_fft = min(2048, 2 ** math.ceil(math.log2(2 * hop)))
        self.size = size
        self.mean: Tensor
        self.std: Tensor
        self.mel = torchaudio.transforms.MelSpectrogram(sample_rate, n_fft, hop_length=hop, n_mels=size)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def decibels(self, x: Tensor) -> Tensor:
        """The spectrogram before normalisation, in dB."""
        return 10 * self.mel(x)[:, None, :, : self.size].clamp_min(FLOOR).log10()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return (self.decibels(x) - self.mean) / self.std


class SpeechDataset:
    """Windows of recordings, kept as int16. See `vmlite.datasets.Dataset` for the attributes.

    A recording longer than the window is cut at its head or at its tail, at random where asked (section 5.1), else at
    its head; a shorter one is followed by silence. Spectrograms of both cuts are computed once and kept as float16, up
    to `CACHE_LIMIT` and a quarter of the device's memory.

    Args:
        name: as it appears in tables.
        corpus: the recordings.
        rows: (N,) which of them are the examples.
        targets, classes: labels (N,) of the examples for each task, -1 for none, and the names of the classes.
        window: length of an example, in samples.
        input_size: side of the spectrograms.
        front_end: the training set's; None makes one, with the statistics of these examples.
    """

    topic = "speech"
    clamp: tuple[float, float] | None = None
    mean: Tensor | None = None
    std: Tensor | None = None

    def __init__(
        self,
        name: str,
        corpus: Corpus,
        rows: Tensor,
        targets: dict[str, Tensor],
        classes: dict[str, tuple[str, ...]],
        window: int,
        input_size: int,
        front_end: nn.Module | None = None,
    ) -> None:
        if window > PADDING:
            longest = PADDING / corpus.sample_rate
            raise ValueError(f"window_seconds must be at most {longest:g} at {corpus.sample_rate} Hz.")
        self.name, self.corpus, self.rows, self.window = name, corpus, rows, window
        self.targets, self.classes = targets, classes
        self.shape = (1, input_size, input_size)
        self.sample_rate = corpus.sample_rate
        self._spectrograms: Tensor | None = None
        longer = corpus.lengths[rows.to(corpus.lengths.device)] > window
        self._cuts = 1 + int(longer.any())  # head and tail differ where one is longer
        size = 2 * len(rows) * self._cuts * math.prod(self.shape)
        self._keep = size <= min(CACHE_LIMIT, total_memory(rows.device) // 4)
        self.front_end: nn.Module = front_end or self._fitted(input_size)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Tensor, random: bool = False) -> Tensor:
        """Waveforms (N, window) in [-1, 1] for `index` (N,)."""
        return self.corpus.windows(self.rows[index], self.window, self._tails(index, random))

    def inputs(self, index: Tensor, random: bool = False) -> Tensor:
        """Spectrograms (N, 1, size, size) for the same windows."""
        if not self._keep:
            return self.front_end(self.batch(index, random))
        if self._spectrograms is None:
            self._spectrograms = self._computed()
        tails = self._tails(index, random) % self._cuts
        return self._spectrograms[index, tails].float()

    def to(self, device: torch.device) -> Self:
        """See `vmlite.datasets.Dataset`."""
        return self._like(self.corpus.to(device), self.rows.to(device), self.targets, device)

    def first(self, n: int | None) -> Self:
        """See `vmlite.datasets.Dataset`."""
        if n is None or n == len(self):
            return self
        check_count(self, n)
        return self._like(self.corpus, self.rows[:n], {task: y[:n] for task, y in self.targets.items()})

    def _like(
        self, corpus: Corpus, rows: Tensor, targets: dict[str, Tensor], device: torch.device | None = None
    ) -> Self:
        targets = {task: labels.to(device or labels.device) for task, labels in targets.items()}
        front_end = copy.deepcopy(self.front_end).to(device or rows.device)
        return type(self)(self.name, corpus, rows, targets, self.classes, self.window, self.shape[1], front_end)

    def _tails(self, index: Tensor, random: bool) -> Tensor:
        """Which examples are cut at their tail: 0 or 1 (N,)."""
        draw = torch.randint(2, index.shape) if random else torch.zeros(index.shape, dtype=torch.long)
        return draw.to(index.device)

    def _fitted(self, input_size: int) -> LogMel:
        """A front end with the statistics of up to 1,000 of these examples, spread evenly."""
        plain = LogMel(self.corpus.sample_rate, self.window, input_size).to(self.rows.device)
        index = torch.linspace(0, len(self) - 1, min(len(self), 1000), device=self.rows.device).long()
        std, mean = torch.std_mean(torch.cat([plain.decibels(self.batch(part)) for part in index.split(128)]))
        return LogMel(self.corpus.sample_rate, self.window, input_size, mean.item(), max(std.item(), 1e-3)).to(
            self.rows.device
        )

    @torch.no_grad()
    def _computed(self) -> Tensor:
        """Normalised spectrograms (N, cuts, 1, size, size) as float16."""
        made = torch.empty((len(self), self._cuts, *self.shape), dtype=torch.float16, device=self.rows.device)
        parts = torch.arange(len(self), device=self.rows.device).split(256)
        for part in tqdm(parts, desc="spectrograms", leave=False, delay=1):
            for cut in range(self._cuts):
                waves = self.corpus.windows(self.rows[part], self.window, torch.full_like(part, cut))
                made[part, cut] = self.front_end(waves).half()
        return made


def load_voices(asked: Options, rooms: str) -> Splits:
    """Generated voices: by default eight speakers for training, who are also tested, and four who are only tested."""
    if asked.sample_rate not in (None, voices.SAMPLE_RATE) or asked.window_seconds not in (None, 1):
        raise ValueError(f"voices are one second at {voices.SAMPLE_RATE} Hz; leave sample_rate and window_seconds out.")
    held_out = (asked.held_out or ",".join(voices.SPEAKERS[8:])).split(",")
    never = torch.tensor([i for i, name in enumerate(voices.SPEAKERS) if name in held_out])
    heard = torch.tensor([i for i, name in enumerate(voices.SPEAKERS) if name not in held_out])
    if len(never) != len(held_out) or not len(heard):
        raise ValueError(f"held_out must name some of {', '.join(voices.SPEAKERS)}, not all; got {asked.held_out!r}.")
    n, n_test = asked.train_size or 6000, asked.test_size or 3000
    counts = {"train": n, "test": n_test // 2, "never heard": n_test - n_test // 2}
    who = [never if part == "never heard" else heard for part in counts]
    speakers = torch.cat([w[torch.arange(count) % len(w)] for w, count in zip(who, counts.values(), strict=True)])
    words = torch.randint(len(voices.WORDS), speakers.shape, generator=torch.Generator().manual_seed(2))
    names = [voices.SPEAKERS[i] for i in speakers]
    corpus = in_memory(
        voices.generate(words, speakers, seed=1, rooms=rooms),
        voices.SAMPLE_RATE,
        {"word": [voices.WORDS[i] for i in words], "speaker": names},
        ["train" if part == "train" else "test" for part, count in counts.items() for _ in range(count)],
    )
    name = "voices" if rooms == "own" else f"voices-{rooms}"
    return split(name, corpus, dataclasses.replace(asked, held_out=",".join(sorted(set(held_out) & set(names)))), 1.0)


def load_folder(dataset: str, data_dir: Path, asked: Options) -> Splits:
    """Recordings of a data set in its published layout, from a cache that is made at the first use."""
    folder = SPEECH_FOLDERS[dataset]
    rate = asked.sample_rate or folder.sample_rate
    recordings = folder.find(data_dir)
    name = f"audio-folder:{data_dir.name}" if dataset == "audio-folder" else dataset
    place = hashlib.blake2b(str(data_dir.resolve()).encode(), digest_size=4).hexdigest()
    corpus = cache(name, recordings, project_path(f"data/cache/{dataset}-{place}-{rate}"), rate, asked.skip_bad)
    return split(name, corpus, asked, asked.window_seconds or folder.window_seconds)


def split(name: str, corpus: Corpus, asked: Options, window_seconds: float) -> Splits:
    """Training and test examples in one fixed random order.

    Without `held_out` they are the corpus's own. With it, the recordings of these speakers leave the training examples
    and become the test examples of every task but "speaker"; the task "speaker" keeps the test examples of the others.

    A task without test examples is dropped. Raises ValueError for speakers that are not there and for a part without
    examples.
    """
    window, size = round(window_seconds * corpus.sample_rate), asked.input_size or 64
    speakers = corpus.labels.get("speaker", [""] * len(corpus))
    held_out = asked.held_out.split(",") if asked.held_out else []
    if unknown := sorted(set(held_out) - set(speakers)):
        raise ValueError(
            f"held_out names {', '.join(unknown)}; the speakers are {first_of(sorted(set(speakers)), 12)}."
        )
    is_held = torch.tensor([speaker in held_out for speaker in speakers])
    is_train = torch.tensor([part == "train" for part in corpus.splits])
    order = torch.randperm(len(corpus), generator=torch.Generator().manual_seed(0))
    train, test = order[(is_train & ~is_held)[order]], order[(~is_train | is_held)[order]]
    if not len(train) or not len(test):
        raise ValueError(
            f"{name} has {len(train)} training and {len(test)} test recordings with held_out={asked.held_out!r}; "
            "choose other speakers."
        )
    classes = {task: tuple(sorted({labels[i] for i in train} - {""})) for task, labels in corpus.labels.items()}

    def targets(rows: Tensor) -> dict[str, Tensor]:
        made = {}
        for task, names in classes.items():
            number = {label: i for i, label in enumerate(names)}
            made[task] = torch.tensor([number.get(corpus.labels[task][i], -1) for i in rows])
        return made

    test_targets = targets(test)
    if held_out:
        for task in set(classes) - {"speaker"}:
            test_targets[task][~is_held[test]] = -1
    test_targets = {task: labels for task, labels in test_targets.items() if (labels >= 0).any()}
    classes = {task: classes[task] for task in test_targets}
    examples = SpeechDataset(name, corpus, train, targets(train), classes, window, size)
    return Splits(examples, SpeechDataset(name, corpus, test, test_targets, classes, window, size, examples.front_end))


LOADERS: dict[str, Callable[[Path, Options], Splits]] = {
    "voices": lambda _, asked: load_voices(asked, "own"),
    "voices-shuffled": lambda _, asked: load_voices(asked, "shuffled"),
    **{name: functools.partial(load_folder, name) for name in SPEECH_FOLDERS},
}
