"""Recipes: one pretraining run as a frozen, serialisable value, and the presets that name the usual ones."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vmlite.datasets import DATASETS, TOPICS
from vmlite.encoders import ENCODERS, HEADS, STEMS
from vmlite.objectives import NTXENT_FORMS, OBJECTIVES
from vmlite.viewmaker import check_budget
from vmlite.views import VIEWS

UPDATES = ("alternating", "joint")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bf16")
BATCH_NORMS = ("both", "each")
_CHOICES: dict[str, Any] = {
    "dataset": DATASETS, "encoder": ENCODERS, "stem": STEMS, "head": HEADS, "objective": OBJECTIVES, "loss_form": NTXENT_FORMS,
    "update": UPDATES, "schedule": SCHEDULES, "precision": PRECISIONS,
    "batch_norm": BATCH_NORMS,
}  # fmt: skip
_OPTIONAL_INTEGERS = ("train_size", "test_size", "input_size", "sample_rate")
_POSITIVE_INTEGERS = (
    *_OPTIONAL_INTEGERS, "viewmaker_width", "encoder_width", "embedding_dim", "epochs", "batch_size",
)  # fmt: skip


def one_of(what: str, value: object, valid: Iterable[object]) -> None:
    """Raise ValueError naming the valid values, and the closest one, unless `value` is among them."""
    if value not in list(valid):
        names = [str(v) for v in valid]
        begun = [name for name in names if str(value).startswith(name) or name.startswith(str(value))]
        close = begun or difflib.get_close_matches(str(value), names, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown {what} {value!r}; choose from {', '.join(map(str, valid))}.{hint}")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a pretraining run. The defaults are the paper's for CIFAR-10 (section 4)."""

    # data: what `vmlite.datasets.load` takes
    dataset: str = "cifar10"
    data_dir: str | None = None
    train_size: int | None = None  # examples to use or to generate; None: all
    test_size: int | None = None
    input_size: int | None = None  # side of images and spectrograms; None: as stored, spectrograms 64
    sample_rate: int | None = None  # of recordings, in Hz; None: the data set's, as for the next two
    window_seconds: float | None = None  # length of an example cut from a recording
    held_out: str | None = None  # speakers or participants whose recordings are only tested on
    skip_bad: bool = False  # leave out recordings that cannot be read
    # views
    views: str = "viewmaker"
    eps: float = 0.05
    norm: float = 1.0
    viewmaker_width: int = 32
    viewmaker_blocks: int = 3
    # networks
    encoder: str = "resnet18"
    encoder_width: int = 64
    stem: str = "small"
    head: str = "linear"
    batch_norm: str = "both"  # statistics over both views of a batch together, or over each
    embedding_dim: int = 128
    # objective
    objective: str = "simclr"
    loss_form: str = "equation"
    temperature: float = 0.07
    # optimisation
    update: str = "alternating"
    epochs: int = 200
    batch_size: int = 256
    encoder_lr: float = 0.03
    encoder_momentum: float = 0.9
    weight_decay: float = 1e-4
    viewmaker_lr: float = 1e-3
    schedule: str = "constant"  # of both rates; "cosine" lets them fall to zero over the run
    # the run
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.norm in ("1", "2", "inf", 1, 2):  # JSON has no infinity, and papermill passes whole numbers
            object.__setattr__(self, "norm", float(self.norm))
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", str(self.data_dir))
        check_budget(self.eps, self.norm)
        for name, valid in _CHOICES.items():
            one_of(name, getattr(self, name), valid)
        for term in str(self.views).split("+"):
            one_of("views", term, VIEWS)
        for name in _POSITIVE_INTEGERS:
            value = getattr(self, name)
            optional = value is None and name in _OPTIONAL_INTEGERS
            if not optional and (not _is_number(value, int) or value < 1):
                raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
        positive = ("temperature", "encoder_lr", "viewmaker_lr")
        for name in positive if self.window_seconds is None else (*positive, "window_seconds"):
            if not _is_number(getattr(self, name), int | float) or not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number, got {getattr(self, name)!r}.")
        for name in ("encoder_momentum", "weight_decay"):
            if not _is_number(getattr(self, name), int | float) or not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 up, got {getattr(self, name)!r}.")
        for name in ("seed", "viewmaker_blocks"):
            if not _is_number(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a whole number from 0 up, got {getattr(self, name)!r}.")

    def replace(self, **changes: Any) -> Recipe:
        """A copy with the given fields changed, checked like a new one; unknown names are refused."""
        for name in changes:
            one_of("recipe field", name, [f.name for f in dataclasses.fields(self)])
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """The recipe as JSON; the infinite norm is written as "inf"."""
        fields = dataclasses.asdict(self) | {"norm": "inf" if math.isinf(self.norm) else self.norm}
        return json.dumps(fields, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The inverse of `to_json`. Fields left out take their defaults; unknown ones are refused."""
        return cls().replace(**json.loads(text))


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


PAPER_IMAGES = Recipe()
PAPER_SPEECH = Recipe(  # section 5
    dataset="librispeech-100", input_size=64, sample_rate=16000, window_seconds=150_526 / 16_000, stem="standard", batch_size=128
)  # fmt: skip
PAPER_SENSORS = Recipe(  # section 6
    dataset="pamap2", input_size=32, window_seconds=10, train_size=10000, batch_size=128
)  # fmt: skip

THIN: dict[str, Any] = {  # what fits two CPU cores
    "encoder_width": 16, "viewmaker_width": 8, "update": "joint", "loss_form": "released", "encoder_lr": 0.1,
    "schedule": "cosine",
}  # fmt: skip
PRESETS: dict[str, dict[str, Recipe]] = {
    "images": {
        "quick": PAPER_IMAGES.replace(
            dataset="spirograph", input_size=20, train_size=8000, test_size=2000, epochs=6, batch_size=128,
            **(THIN | {"encoder_lr": 0.03}),  # at .1 the viewmaker wins the game with every other seed
        ),
        "small": PAPER_IMAGES.replace(
            train_size=10000, test_size=2000, epochs=4, batch_size=64,
            **THIN,
        ),
        "paper": PAPER_IMAGES,
    },
    "speech": {
        "quick": PAPER_SPEECH.replace(
            dataset="voices", input_size=32, sample_rate=None, window_seconds=None, train_size=6000, test_size=3000, epochs=6, batch_size=128,
            **THIN,
        ),
        "small": PAPER_SPEECH.replace(
            dataset="spoken-digits", input_size=32, sample_rate=None, window_seconds=None, epochs=20, batch_size=64,
            **THIN,
        ),
        "paper": PAPER_SPEECH,
        "paper-960": PAPER_SPEECH.replace(
            dataset="librispeech-960", input_size=112, encoder="resnet50", head="mlp",
        ),
    },
    "sensors": {
        "quick": PAPER_SENSORS.replace(
            dataset="motions", input_size=16, window_seconds=4.9, train_size=5000, test_size=3000, eps=0.2, epochs=5, batch_size=32,
            **(THIN | {"encoder_lr": 0.01, "temperature": 0.2}),  # with small batches the steadiest game tried
        ),
        "small": PAPER_SENSORS.replace(
            eps=0.1, epochs=3, batch_size=64,
            **THIN,
        ),
        "paper": PAPER_SENSORS,
    },
}  # fmt: skip


def preset(name: str, topic: str = "images", **changes: Any) -> Recipe:
    """A topic's preset with changes; a change of None is ignored. Another data set brings its own rate and window."""
    one_of("topic", topic, PRESETS)
    one_of("preset", name, PRESETS[topic])
    base = PRESETS[topic][name]
    changes = {name: value for name, value in changes.items() if value is not None}
    if changes.get("dataset", base.dataset) != base.dataset:
        one_of("dataset", changes["dataset"], TOPICS[topic])
        base = base.replace(sample_rate=None, window_seconds=None, held_out=None)
        if topic == "images":
            base = base.replace(input_size=None)
    return base.replace(**changes)
