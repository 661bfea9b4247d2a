"""The perturbation explorer: move the distortion budget and see, or hear, what a viewmaker does to an example.

Widgets only; what they show is made in `vmlite.show.perturbations`. Moving the budget or the norm projects perturbations
that are there already. The networks run again for another example, other noise or another number of views. The encoder's
read-outs, and sounds, follow when the controls have rested for a moment.
"""

from __future__ import annotations

import copy
import html
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from vmlite import shipped
from vmlite.build import M, build_encoder, build_views, place
from vmlite.datasets import Dataset, SensorDataset, SpeechDataset, Splits
from vmlite.encoders import Encoder
from vmlite.pretrain import Run, seeded
from vmlite.recipes import Recipe
from vmlite.show import perturbations as made_of
from vmlite.show.shown import REST, BudgetSlider, Later, Shown, picture
from vmlite.viewmaker import NORMS, Viewmaker, check_budget
from vmlite.views import L1Noise


class Explorer(Shown):
    """Views of one example by several viewmakers side by side, at any budget.

    The networks are copied: a training that goes on does not change what is shown.

    Args:
        data: where the examples are from.
        makers: names, and viewmakers, noise, or the `views` of a run, of which the last viewmaker or noise is taken.
        encoder: embeds the example and its views; None shows no embeddings and no neighbours.
        train: the neighbours are from here; None: from `data`.
        task: whose classes are named and chosen from; None: the first.
        example: the first one to show.
        eps, norm: the first budget, and the norm that measures it; None: the first viewmaker's.
        count: views of each viewmaker, 1 to 9.
        seed: of the first noise.

    Attributes:
        sketch, spend, found: what is shown, see `vmlite.show.perturbations`; `found` follows when the controls rest.

    Raises ValueError for an example that is not there, and for networks of other channels.
    """

    def __init__(
        self,
        data: Dataset,
        makers: Mapping[str, nn.Module],
        encoder: Encoder | None = None,
        train: Dataset | None = None,
        task: str | None = None,
        example: int = 0,
        eps: float | None = None,
        norm: float | None = None,
        count: int = 6,
        seed: int = 0,
    ) -> None:
        if not data.classes:
            raise ValueError(f"{data.name} has no task; give its examples one, such as {{'class': labels}}.")
        self.device = next(iter(data.targets.values())).device
        self.makers = {name: self._own(made_of.maker_in(views)) for name, views in makers.items()}
        made_of.check_makers(self.makers, data)
        made_of.check_example(example, data)
        if encoder is not None and encoder.mean.shape[1] != data.shape[0]:
            raise ValueError(
                f"the encoder takes {encoder.mean.shape[1]} channels, but the examples of {data.name} have {data.shape[0]}."
            )
        self.data, self.task, self.seed = data, task or next(iter(data.classes)), seed
        if self.task not in data.classes:
            raise ValueError(f"{data.name} has no task {self.task!r}; it has {', '.join(data.classes)}.")
        first = next(iter(self.makers.values()))
        eps, norm = first.eps if eps is None else eps, first.norm if norm is None else norm
        check_budget(eps, norm)
        if not 1 <= count <= 9:
            raise ValueError(f"count must be 1 to 9, got {count!r}.")
        self.encoder = None if encoder is None else self._own(encoder)
        self.found: made_of.Comparison | None = None
        self.memory = None if self.encoder is None else made_of.remember(self.encoder, train or data, self.task)
        self._build(example, eps, norm, count)
        self._rest = Later(self._read_out, REST)
        self._generate()
        self._rest.now()

    def _own(self, network: M) -> M:
        """A copy on the data's device, for use without training."""
        return copy.deepcopy(network).to(self.device).eval()

    def static_picture(self) -> bytes:
        """The views that are shown now, as PNG."""
        return self.picture.value

    @property
    def index(self) -> int:
        """Which example is shown."""
        return int(self.members[self.place.value])

    def close(self) -> None:
        """Close all widgets; read-outs that still wait are forgotten."""
        self._rest.cancel()
        super().close()

    def _build(self, example: int, eps: float, norm: float, count: int) -> None:
        """The widgets, and what each of them does."""
        data = self.data
        self.members = torch.arange(len(data))
        self.kind = widgets.Dropdown(options=[("any", -1), *self._classes()], description=self.task)
        self.place = widgets.IntSlider(example, 0, len(data) - 1, description="example")
        self.count = widgets.IntSlider(count, 1, 9, description="views")
        self.eps = BudgetSlider(eps)
        self.norm = widgets.Dropdown(options=[(made_of.name_of(n), n) for n in NORMS], value=norm, description="norm")
        self.channel = self._channels()
        self.again = widgets.Button(description="New noise", tooltip="draw other noise for the same example")
        self.frozen = widgets.Checkbox(True, description="the same noise for the next example", indent=False)
        self.shown = [widgets.Checkbox(True, description=name, indent=False) for name in self.makers]
        self.about, self.text = widgets.HTML(), widgets.HTML()
        self.picture, self.near = picture("views"), picture("neighbours")
        self.players = self._players()
        left = [self.kind, self.place, self.count, *([self.channel] if self.channel else [])]
        right = [self.eps, self.norm, widgets.HBox([self.again, self.frozen])]
        sounds = [widgets.VBox([widgets.Label(name), player]) for name, player in self.players.items()]
        rows = [widgets.HBox([widgets.VBox(left), widgets.VBox(right)]), widgets.HBox(self.shown), self.about]
        self.box = widgets.VBox([*rows, self.picture, self.text, widgets.HBox(sounds), self.near])
        for widget in (*left, self.eps, self.norm):
            widget.layout.width = "24em"
        for widget in (self.frozen, *self.shown):
            widget.layout.width = "max-content"
        for widget, name in (
            (self.box, "explorer"), (self.kind, "class"), (self.place, "example"), (self.eps, "eps"),
            (self.again, "noise"), (self.text, "numbers"),
        ):  # fmt: skip
            widget.add_class(f"vmlite-{name}")
        self.kind.observe(self._on_kind, "value")
        self.place.observe(self._on_example, "value")
        self.count.observe(self._generate, "value")
        self.again.on_click(self._on_noise)
        for widget in (self.eps, self.norm, *self.shown, *([self.channel] if self.channel else [])):
            widget.observe(self._project, "value")

    def _classes(self) -> list[tuple[str, int]]:
        """The classes that have examples, and their labels."""
        there = set(self.data.targets[self.task].tolist())
        return [(name, label) for label, name in enumerate(self.data.classes[self.task]) if label in there]

    def _channels(self) -> widgets.Dropdown | None:
        """A choice of channels, for sensors."""
        if not isinstance(self.data, SensorDataset):
            return None
        names = self.data.channels
        first = next((i for i, name in enumerate(names) if "acceleration" in name), None)
        options = [("mean of all", None), *((name, i) for i, name in enumerate(names))]
        return widgets.Dropdown(options=options, value=first, description="channel").add_class("vmlite-channel")

    def _players(self) -> dict[str, widgets.Audio]:
        """For speech a player for the original, and one for each maker."""
        names = ["original", *self.makers] if isinstance(self.data, SpeechDataset) else []
        settings = {"format": "wav", "autoplay": False, "loop": False, "layout": {"width": "16em"}}
        return {name: widgets.Audio(**settings).add_class("vmlite-sound") for name in names}

    def _on_kind(self, change: Any) -> None:
        """Examples of the chosen class only, from the first one on."""
        labels = self.data.targets[self.task].cpu()
        chosen = torch.ones_like(labels) if change["new"] < 0 else labels == change["new"]
        self.members = chosen.nonzero()[:, 0]
        self.place.unobserve(self._on_example, "value")
        self.place.value, self.place.max = 0, len(self.members) - 1
        self.place.observe(self._on_example, "value")
        self._on_example()

    def _on_example(self, change: Any = None) -> None:
        self.seed += not self.frozen.value
        self._generate()

    def _on_noise(self, button: Any) -> None:
        self.seed += 1
        self._generate()

    def _generate(self, change: Any = None) -> None:
        """Run the networks."""
        x = self.data.inputs(torch.tensor([self.index], device=self.device))
        self.sketch = made_of.sketch(x, self.makers, self.count.value, self.seed, self.data.clamp)
        name = made_of.class_name(self.data, self.task, self.index)
        self.about.value = f"example {self.index} of {html.escape(self.data.name)}: <b>{html.escape(name)}</b>"
        self._project()

    def _project(self, change: Any = None) -> None:
        """Project what the networks made onto the budget, and draw it."""
        views = self._views()
        if not views:
            self.text.value = "tick at least one box above to see its views"
            self.picture.value = self.near.value = b""
            self._rest()
            return
        self.spend = made_of.numbers(self.sketch, views, self.norm.value)
        self.text.value = made_of.table(self.spend, clamps=self.data.clamp is not None)
        words = (
            f"{self.count.value} views each by {made_of.in_words(list(views))} of {self._name()}, with their perturbations "
            f"below, at eps {self.eps.value:.3g} in {made_of.name_of(self.norm.value)}"
        )
        self.picture.put(made_of.views_picture(self.sketch, views, self._look()), words)
        self._rest()

    def _read_out(self) -> None:
        """What the encoder says of the views, and how they sound."""
        views = self._views()
        if self.encoder is not None and self.memory is not None and views:
            found = self.found = made_of.compare(self.encoder, self.memory, self.sketch.x, views)
            self.text.value = made_of.table(self.spend, found, clamps=self.data.clamp is not None)
            task = self.task if self.task in self.memory.data.classes else next(iter(self.memory.data.classes))
            words = (
                f"the nearest training examples to {self._name()} and to the first view of each of "
                f"{made_of.in_words(list(views))}"
            )
            self.near.put(made_of.neighbours_picture(self.memory, found, self._look(), task, self.sketch.x), words)
        if isinstance(self.data, SpeechDataset):
            sounds = made_of.sounds_of(self.data, self.index, self.sketch, views)
            for name, player in self.players.items():
                player.value = sounds.get(name, b"")

    def _views(self) -> dict[str, Tensor]:
        """The views of those makers whose boxes are ticked."""
        ticked = {box.description for box in self.shown if box.value}
        views = self.sketch.views(self.eps.value, self.norm.value)
        return {name: v for name, v in views.items() if name in ticked}

    def _look(self) -> made_of.Look:
        return made_of.Look(self.data, self.channel.value if self.channel else None)

    def _name(self) -> str:
        return f"example {self.index} ({made_of.class_name(self.data, self.task, self.index)})"


def of_run(run: Run, data: Dataset, **settings: Any) -> Explorer:
    """An explorer of a run's viewmaker, beside an untrained one and random noise; settings as for `Explorer`."""
    return Explorer(data, _beside(run.recipe, run.views, data), run.encoder, run.train, **settings)


def of_shipped(name: str, data: Splits, **settings: Any) -> Explorer:
    """An explorer of test examples with networks of the package's own (`vmlite.shipped`), as `of_run` for a run's."""
    kept = shipped.load(name)
    return Explorer(data.test, _beside(kept.recipe, kept.viewmaker, data.test), kept.encoder, data.train, **settings)


def _beside(recipe: Recipe, trained: nn.Module, data: Dataset) -> dict[str, nn.Module]:
    """A trained viewmaker, where there is one, the same network before its training, and noise of the same budget."""
    term = next((term for term in recipe.views.split("+") if term.startswith("viewmaker")), "viewmaker")
    found = [part for part in trained.modules() if isinstance(part, Viewmaker) and term != "viewmaker:untrained"]
    makers: dict[str, nn.Module] = {"trained": found[-1]} if found else {}
    device = next(iter(data.targets.values())).device
    with seeded(recipe.seed):
        build_encoder(recipe, data)  # `vmlite.pretrain.start` draws its weights first
        makers["untrained"] = place(build_views(recipe.replace(views=term), data), device)
    return makers | {"random noise": L1Noise(recipe.eps, recipe.norm, data.clamp)}
