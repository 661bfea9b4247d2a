"""The budget explorer: choose a point of a sweep over budgets, and see the views of the viewmaker trained there."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import torch
from torch import nn

from vmlite.datasets import Dataset
from vmlite.show import perturbations as made_of
from vmlite.show import pictures
from vmlite.show.shown import Shown, picture


class BudgetExplorer(Shown):
    """The results of a sweep as curves, one budget chosen by a slider, and views by the viewmaker trained with it.

    Args:
        curves: names, and values by budget, such as linear accuracies from `results.json` files.
        makers: viewmakers by the budget they were trained with, or the `views` of runs; each has its own eps and norm.
        data: where the example is from.
        label: of the curves' axis.
        example: which one is shown.
        channel: of spectrograms, None: the mean of all.
        count: how many views.
        seed: of the noise, the same for all budgets.

    Raises ValueError where there is no curve, where an example is not there, and for viewmakers of other channels.
    """

    def __init__(
        self,
        curves: Mapping[str, Mapping[float, float]],
        makers: Mapping[float, nn.Module],
        data: Dataset,
        label: str = "linear accuracy, percent",
        example: int = 0,
        channel: int | None = None,
        count: int = 6,
        seed: int = 0,
    ) -> None:
        if not any(curves.values()):
            raise ValueError("there is no point on any curve: give values by budget, such as {'test': {0.05: 61.6}}.")
        made_of.check_example(example, data)
        device = next(iter(data.targets.values())).device
        self.makers = {eps: copy.deepcopy(made_of.maker_in(views)).to(device) for eps, views in makers.items()}
        if self.makers:
            made_of.check_makers({f"eps {eps:g}": maker for eps, maker in self.makers.items()}, data)
        self.curves, self.data, self.label, self.count, self.seed = curves, data, label, count, seed
        self.look = made_of.Look(data, channel)
        self.x = data.inputs(torch.tensor([example], device=device))
        budgets = sorted({eps for curve in curves.values() for eps in curve})
        self.eps = widgets.SelectionSlider(
            options=[(f"{eps:g}", eps) for eps in budgets], description="eps", continuous_update=True
        )
        self.curve, self.views, self.text = picture("curve"), picture("views"), widgets.HTML()
        self.box = widgets.VBox([self.eps, self.text, self.curve, self.views])
        self.box.add_class("vmlite-budgets")
        self.eps.add_class("vmlite-budget")
        self.eps.observe(self._show, "value")
        self._drawn: dict[float, tuple[bytes, bytes]] = {}
        self._show()

    def static_picture(self) -> bytes:
        """The curves, as PNG."""
        return self.curve.value

    def _show(self, change: Any = None) -> None:
        """Draw the chosen point, once for each."""
        eps = self.eps.value
        if eps not in self._drawn:
            self._drawn[eps] = curves_picture(self.curves, self.label, eps), self._views_at(eps)
        curve, views = self._drawn[eps]
        values = ", ".join(f"{name} {found[eps]:.1f}" for name, found in self.curves.items() if eps in found)
        self.text.value = f"eps {eps:g}: {values}" + ("" if eps in self.makers else "; no viewmaker is kept for it")
        every = [budget for _, budget in self.eps.options]
        self.curve.put(curve, f"{self.label} against eps from {every[0]} to {every[-1]}; chosen: {eps:g}, {values}")
        self.views.put(views, f"{self.count} views by the viewmaker trained with eps {eps:g}, and their perturbations")

    def _views_at(self, eps: float) -> bytes:
        """Views by the viewmaker trained with this budget; no picture where there is none."""
        if eps not in self.makers:
            return b""
        maker = self.makers[eps]
        made = made_of.sketch(self.x, {f"trained with eps {eps:g}": maker}, self.count, self.seed, self.data.clamp)
        return made_of.views_picture(made, made.views(maker.eps, maker.norm), self.look)


def curves_picture(curves: Mapping[str, Mapping[float, float]], label: str, chosen: float) -> bytes:
    """`pictures.budget_curves` with one budget marked, as PNG."""
    buffer = io.BytesIO()
    pictures.budget_curves(curves, label, chosen).savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
