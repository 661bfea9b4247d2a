"""What all widgets of the notebooks share: a static picture beside them, rest before slow answers, sliders, pictures."""

from __future__ import annotations

import asyncio
import base64
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import traitlets

REST = 0.15  # seconds without a move until the read-outs follow
SLIDER_STEP = 0.02  # of the budget's logarithm: 5 %


class Later:
    """Calls a function once `Later` has not been called for some seconds; at once where no event loop runs."""

    def __init__(self, function: Callable[[], None], seconds: float) -> None:
        self.function, self.seconds = function, seconds
        self.waiting: asyncio.TimerHandle | None = None

    def __call__(self) -> None:
        """Ask for the function; an earlier request that still waits is forgotten."""
        self.cancel()
        try:
            self.waiting = asyncio.get_running_loop().call_later(self.seconds, self.now)
        except RuntimeError:
            self.now()

    def now(self) -> None:
        """Call the function, and nothing afterwards."""
        self.cancel()
        self.function()

    def cancel(self) -> None:
        """Forget a request that still waits."""
        if self.waiting:
            self.waiting.cancel()
        self.waiting = None


class Shown(ABC):
    """A box of widgets that a notebook shows, with a picture for pages that cannot, such as on GitHub or on paper."""

    box: widgets.Box

    @abstractmethod
    def static_picture(self) -> bytes:
        """PNG."""

    def close(self) -> None:
        """Take the widgets off the page and forget them."""
        for widget in (*_inside(self.box), self.box):
            for part in (widget.layout, getattr(widget, "style", None), widget):
                if part is not None:
                    part.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        name = type(self).__name__
        bundle = self.box._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = f"{name}: a widget, run the cell to use it"
        if still := self.static_picture():
            bundle["image/png"] = base64.b64encode(still).decode()
        return bundle


class SixDigits(traitlets.CFloat):  # type: ignore[misc]
    """A number rounded to six significant digits, before it is compared with the one that was there."""

    def validate(self, obj: Any, value: Any) -> float:
        """The rounded number."""
        return float(f"{super().validate(obj, value):.6g}")


class BudgetSlider(widgets.FloatLogSlider):  # type: ignore[misc]
    """A budget from about .001 to 2 on a logarithmic scale, further where it starts outside.

    A page that shows a slider puts its handle on the scale's grid and sends that as a move. So the grid goes through the
    first budget, and the rounding of the page's arithmetic is rounded away.
    """

    value = SixDigits(1.0).tag(sync=True)

    def __init__(self, eps: float) -> None:
        first = math.log10(eps)
        steps = max(1, math.ceil((first + 3) / SLIDER_STEP))
        ends = {"min": first - steps * SLIDER_STEP, "max": max(math.log10(2), first + SLIDER_STEP)}
        super().__init__(eps, **ends, step=SLIDER_STEP, description="eps", readout_format=".3f")


class Picture(widgets.Image):  # type: ignore[misc]
    """A PNG with alternative text: `tooltip` becomes the picture's accessible name. Without bytes it is not on the page.

    ipywidgets shows a tooltip only for widgets that have a description.
    """

    description = traitlets.Unicode("").tag(sync=True)

    def put(self, picture: bytes, words: str) -> None:
        """Show a picture and its alternative text at once."""
        with self.hold_sync():
            self.value, self.tooltip = picture, words

    @traitlets.observe("value")  # type: ignore[untyped-decorator]
    def _hide_if_empty(self, change: Any) -> None:
        display = None if len(change["new"]) else "none"
        if self.layout.display != display:
            self.layout.display = display


def picture(name: str) -> Picture:
    """An empty picture of its own size, but never wider than the page."""
    layout = widgets.Layout(width="max-content", max_width="100%", object_fit="contain", display="none")
    made = Picture(format="png", layout=layout)
    return made.add_class(f"vmlite-{name}")


def _inside(box: widgets.Box) -> list[widgets.Widget]:
    """All widgets in a box, however deep."""
    return [
        w for child in box.children for w in ((*_inside(child), child) if isinstance(child, widgets.Box) else (child,))
    ]
