"""The perturbation explorer: move the distortion budget and see, or hear, what a viewmaker does to an example.

Widgets only; what they show is made in `vmlite.show.perturbations`. Moving the budget or the norm projects perturbations
that are there already. The networks run again for another example, other noise or another number of views. The encoder's
read-outs, and sounds, follow when the controls have rested for a moment.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from vmlite import shipped
from vmlite.build import build_views, place
from vmlite.datasets import Dataset, SensorDataset, SpeechDataset, Splits
from vmlite.encoders import Encoder
from vmlite.pretrain import Run, seeded
from vmlite.recipes import Recipe
from vmlite.show import perturbations as made_of
from vmlite.show.shown import REST, Later, Shown, budget_slider, picture
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
        self.makers = {name: copy.deepcopy(made_of.maker_in(views)).eval() for name, views in makers.items()}
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
        self.encoder = None if encoder is None else copy.deepcopy(encoder).eval()
        self.memory = None if self.encoder is None else made_of.remember(self.encoder, train or data, self.task)
        self._build(example, eps, norm, count)
        self._rest = Later(self._read_out, REST)
        self._generate()
        self._rest.now()

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
        """The widgets, and who hears them."""
        data = self.data
        self.members = torch.arange(len(data))
        names = ["any", *data.classes[self.task]]
        self.kind = widgets.Dropdown(options=[(name, i - 1) for i, name in enumerate(names)], description=self.task)
        self.place = widgets.IntSlider(example, 0, len(data) - 1, description="example", continuous_update=True)
        self.eps = budget_slider(eps)
        self.norm = widgets.Dropdown(options=[(made_of.name_of(n), n) for n in NORMS], value=norm, description="norm")
        self.count = widgets.IntSlider(count, 1, 9, description="views")
        self.again = widgets.Button(description="New noise", tooltip="draw other noise for the same example")
        self.frozen = widgets.Checkbox(True, description="the same noise for the next example", indent=False)
        self.shown = [widgets.Checkbox(True, description=name, indent=False) for name in self.makers]
        for widget in (self.kind, self.place, self.eps, self.norm, self.count):
            widget.layout.width = "24em"
        for box in (self.frozen, *self.shown):
            box.layout.width = "max-content"
        self.picture, self.near = picture("views"), picture("neighbours")
        self.text, self.about = widgets.HTML(), widgets.HTML()
        for widget, name in (
            (self.kind, "class"),
            (self.eps, "eps"),
            (self.again, "noise"),
            (self.place, "example"),
            (self.text, "numbers"),
        ):
            widget.add_class(f"vmlite-{name}")
        columns = [[self.kind, self.place, self.count], [self.eps, self.norm, widgets.HBox([self.again, self.frozen])]]
        self.channel = None
        if isinstance(data, SensorDataset):
            options = [("mean of all", None), *((name, i) for i, name in enumerate(data.channels))]
            first = next((i for i, name in enumerate(data.channels) if "acceleration" in name), None)
            self.channel = widgets.Dropdown(options=options, value=first, description="channel")
            self.channel.add_class("vmlite-channel")
            self.channel.observe(self._project, "value")
            columns[0].append(self.channel)
        self.players: dict[str, widgets.Audio] = {}
        if isinstance(data, SpeechDataset):
            self.players = {
                name: widgets.Audio(
                    format="wav", autoplay=False, loop=False, layout=widgets.Layout(width="16em")
                ).add_class("vmlite-sound")
                for name in ["original", *self.makers]
            }
        captioned = [widgets.VBox([widgets.Label(name), player]) for name, player in self.players.items()]
        controls = widgets.HBox([widgets.VBox(column) for column in columns])
        self.box = widgets.VBox(
            [
                controls,
                widgets.HBox(self.shown),
                self.about,
                self.picture,
                self.text,
                widgets.HBox(captioned),
                self.near,
            ]
        )
        self.box.add_class("vmlite-explorer")
        self.kind.observe(self._on_kind, "value")
        self.place.observe(self._on_example, "value")
        self.count.observe(self._generate, "value")
        self.again.on_click(self._on_noise)
        for widget in (self.eps, self.norm, *self.shown):
            widget.observe(self._project, "value")

    def _on_kind(self, change: Any) -> None:
        """Examples of the chosen class only, from the first one on."""
        every = change["new"] < 0
        self.members = (
            torch.arange(len(self.data))
            if every
            else (self.data.targets[self.task] == change["new"]).nonzero()[:, 0].cpu()
        )
        if not len(self.members):
            self.about.value = f"no example of {self.data.name} is of this class: choose another one"
            return
        self.place.unobserve(self._on_example, "value")
        self.place.value = 0
        self.place.max = len(self.members) - 1
        self.place.observe(self._on_example, "value")
        self._on_example()

    def _on_example(self, change: Any = None) -> None:
        if not len(self.members):
            return
        self.seed += not self.frozen.value
        self._generate()

    def _on_noise(self, button: Any) -> None:
        self.seed += 1
        self._generate()

    def _generate(self, change: Any = None) -> None:
        """Run the networks."""
        x = self.data.inputs(torch.tensor([self.index], device=self._device()))
        self.sketch = made_of.sketch(x, self.makers, self.count.value, self.seed, self.data.clamp)
        name = made_of.class_name(self.data, self.task, self.index)
        self.about.value = f"example {self.index} of {self.data.name}: <b>{name}</b>"
        self._project()

    def _project(self, change: Any = None) -> None:
        """Project what the networks made onto the budget, and draw it."""
        views = self._views()
        if not views:
            self.text.value = "tick at least one box above to see its views"
            return
        self.picture.value = made_of.views_picture(self.sketch, views, self._look())
        self.spend = made_of.numbers(self.sketch, views, self.norm.value)
        self.text.value = made_of.table(self.spend, clamps=self.data.clamp is not None)
        self.picture.tooltip = (
            f"{self.count.value} views each by {made_of.in_words(list(views))} of {self._name()}, with their perturbations "
            f"below, at eps {self.eps.value:.3g} in {made_of.name_of(self.norm.value)}"
        )
        self._rest()

    def _read_out(self) -> None:
        """What the encoder says of the views, and how they sound."""
        views = self._views()
        if not views:
            return
        if self.encoder is not None and self.memory is not None:
            found = self.found = made_of.compare(self.encoder, self.memory, self.sketch.x, views)
            self.text.value = made_of.table(self.spend, found, clamps=self.data.clamp is not None)
            task = self.task if self.task in self.memory.data.classes else next(iter(self.memory.data.classes))
            self.near.value = made_of.neighbours_picture(self.memory, found, self._look(), task, self.sketch.x)
            self.near.tooltip = (
                f"the nearest training examples to {self._name()} and to the first view of each of "
                f"{made_of.in_words(list(views))}"
            )
        if isinstance(self.data, SpeechDataset):
            for name, sound in made_of.sounds_of(self.data, self.index, self.sketch, views).items():
                self.players[name].value = sound

    def _views(self) -> dict[str, Tensor]:
        """The views of those makers whose boxes are ticked."""
        ticked = {box.description for box in self.shown if box.value}
        views = self.sketch.views(self.eps.value, self.norm.value)
        return {name: v for name, v in views.items() if name in ticked}

    def _look(self) -> made_of.Look:
        return made_of.Look(self.data, self.channel.value if self.channel else None)

    def _name(self) -> str:
        return f"example {self.index} ({made_of.class_name(self.data, self.task, self.index)})"

    def _device(self) -> torch.device:
        return next(iter(self.data.targets.values())).device


def of_run(run: Run, data: Dataset, **settings: Any) -> Explorer:
    """An explorer of a run's viewmaker, beside an untrained one and random noise; settings as for `Explorer`."""
    return Explorer(data, _beside(run.recipe, run.views, data), run.encoder, run.train, **settings)


def of_shipped(name: str, data: Splits, **settings: Any) -> Explorer:
    """An explorer of test examples with networks of the package's own (`vmlite.shipped`), as `of_run` for a run's."""
    kept = shipped.load(name)
    return Explorer(data.test, _beside(kept.recipe, kept.viewmaker, data.test), kept.encoder, data.train, **settings)


def _beside(recipe: Recipe, trained: nn.Module, data: Dataset) -> dict[str, nn.Module]:
    """A trained viewmaker, where there is one, the same network before its training, and noise of the same budget."""
    makers = {"trained": trained} if any(isinstance(part, Viewmaker) for part in trained.modules()) else {}
    device = next(iter(data.targets.values())).device
    with seeded(recipe.seed):
        makers["untrained"] = place(build_views(recipe.replace(views="viewmaker"), data), device)
    return makers | {"random noise": L1Noise(recipe.eps, recipe.norm, data.clamp)}
