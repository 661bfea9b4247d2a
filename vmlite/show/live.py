"""The live training panel: a run trains in the background while its curves and its views are on the page.

    panel = live.Panel(pretrain.start(recipe, splits.train), splits.test)
    panel

Widgets only around functions that return pictures. The steps are those of `vmlite.pretrain.pretrain`, in a thread of
their own; everything that reads or changes the networks happens in that thread between two steps. The panel draws noise
from a generator of its own, so it trains to the same weights as `vmlite.pretrain.train`, pauses or not, as long as nothing
else in the kernel draws from torch's global generator while a step is under way. What draws in a block of
`vmlite.pretrain.seeded` waits for the step, and changes nothing.
"""

from __future__ import annotations

import html
import math
import threading
import time
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import torch

from vmlite import checkpoint as checkpoints
from vmlite.datasets import Dataset
from vmlite.pretrain import Run, pretrain
from vmlite.show import progress
from vmlite.show.progress import Measured
from vmlite.show.shown import BudgetSlider, Shown, picture

_told = threading.Condition()  # guards what panels know of each other, and is notified of every change
_working: list[Panel] = []  # those with a thread


def training() -> Panel | None:
    """The panel that trains in this kernel now."""
    with _told:
        return next((panel for panel in _working if panel.state == "training"), None)


class Panel(Shown):
    """Start, pause, stop and go on with a run, see its losses, budget, accuracy and views, and change its budget.

    One panel trains at a time in a kernel. `run` is usable whenever the panel does not train.

    Args:
        run: to train; it may have been trained in part.
        test: the examples that are shown, and whose accuracy is measured.
        task: that the accuracy is of; None: the data set's first.
        checkpoint: file that is written after each epoch, on stopping and at the end; its recipe has the current eps.
        every: seconds between pictures, at least; they take no more than a tenth of the time.
        accuracy_every: steps from one measurement of the accuracy to the next; None: an epoch.

    Attributes:
        state: "ready", "training", "paused", "stopped", "finished" or "failed".
        error: what made it fail.
        measured: what was measured so far.
        box: the widgets.

    Raises ValueError for test examples of another shape, on another device, or without the task.
    """

    def __init__(
        self,
        run: Run,
        test: Dataset,
        task: str | None = None,
        checkpoint: Path | str | None = None,
        every: float = 0.7,
        accuracy_every: int | None = None,
    ) -> None:
        self.run, self.every = run, every
        self.checkpoint = Path(checkpoint) if checkpoint else None
        self.sample = progress.Sample.of(run, test, task or next(iter(test.targets)))
        self.epoch = max(1, run.steps // run.recipe.epochs)  # in steps
        self.accuracy_every = accuracy_every or self.epoch
        self.state, self.measured = "ready", list[Measured]()
        self.error: BaseException | None = None
        self._wish, self._notice = "train", ""  # the wish: "train", "pause" or "stop"
        self._eps: float | None = None  # that the views are to get before the next step
        self._thread: threading.Thread | None = None
        self._due, self._clock, self._speed = 0.0, (0.0, run.step), 0.0
        self._generator = torch.Generator(run.device).manual_seed(run.recipe.seed)
        self._build()
        self._show_views()
        self._refresh()

    # what buttons, and notebooks, ask for

    def start(self) -> None:
        """Begin, or go on after a pause or a stop. Raises RuntimeError where another panel is in the way."""
        with _told:
            self._check()
            self.state, self.error, self._wish, self._notice = "training", None, "train", ""
            self._clock = (time.monotonic(), self.run.step)
            if self not in _working:
                _working.append(self)
                self._thread = threading.Thread(target=self._work, name="vmlite live panel", daemon=True)
                self._thread.start()
            self._refresh()

    go_on = start

    def pause(self) -> None:
        """Wait after the current step, without using the processor."""
        self._ask("pause")

    def stop(self) -> None:
        """End after the current step and write the checkpoint; `start` goes on from there."""
        self._ask("stop")

    def wait(self, timeout: float | None = None) -> bool:
        """Return once the panel has paused, stopped, finished or failed; False where that takes over `timeout` seconds."""
        with _told:
            return _told.wait_for(
                lambda: self not in _working or (self.state, self._wish) == ("paused", "pause"), timeout
            )

    def close(self, timeout: float = 10.0) -> None:
        """Stop, and take the widgets off the page; waits at most `timeout` seconds for the step under way."""
        self.stop()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        super().close()

    def _ask(self, wish: str) -> None:
        with _told:
            if self in _working:
                self._wish, self._notice = wish, ""
                self._refresh()

    def _check(self) -> None:
        """Raise RuntimeError where training cannot begin now."""
        if self.box.comm is None:
            raise RuntimeError(
                "this panel is closed; make a new one with live.Panel(run, test), it goes on from there."
            )
        if self in _working and self._wish == "stop":
            raise RuntimeError("this panel is just stopping; start it when it has stopped.")
        if self.run.step >= self.run.steps:
            raise RuntimeError(
                f"nothing is left to train: all {self.run.steps} steps are done. To begin anew, make a panel of a new "
                "run, pretrain.start(recipe, train)."
            )
        for other in _working:
            same = other.run is self.run
            if other is not self and (same or other.state == "training"):
                raise RuntimeError(
                    f"another panel ({progress.name(other.run)}) {'has this run' if same else 'is training'}: "
                    f"{'stop' if same else 'pause or stop'} it first."
                    + ("" if other.state == "paused" else " live.training() is that panel.")
                )

    # in the thread

    def _work(self) -> None:
        end = "failed"
        try:
            self._show(accuracy=not self.measured)
            steps = pretrain(self.run)
            while self._may_step() and next(steps, None):
                self._after_step()
            end = "finished" if self.run.step >= self.run.steps else "stopped"
            if self.checkpoint:
                checkpoints.save(self.run, self.checkpoint)
            self._show()
        except BaseException as error:  # told on the page: nobody would see what a thread raises
            end, self.error = "failed", error
        with _told:
            _working.remove(self)
            self.state = end
            self._refresh()

    def _may_step(self) -> bool:
        """Do what was asked since the last step, and wait while the panel is paused. False: stop."""
        self._set_eps()
        while self._wish == "pause":
            self._show()
            with _told:
                if self._wish == "pause":
                    self.state = "paused"
                    self._refresh()
                _told.wait_for(lambda: (self.state, self._wish, self._eps) != ("paused", "pause", None))
            self._set_eps()
        return self._wish == "train"

    def _set_eps(self) -> None:
        """Give the views and the recipe the budget that the slider was moved to."""
        with _told:
            eps, self._eps = self._eps, None
            if eps is not None:
                progress.set_eps(self.run, eps)
                self._due = 0.0

    def _after_step(self) -> None:
        step = self.run.step
        if self.checkpoint and step % self.epoch == 0:
            checkpoints.save(self.run, self.checkpoint)
        accuracy = step % self.accuracy_every == 0 or step == self.run.steps
        if accuracy or time.monotonic() >= self._due:
            self._show(accuracy)

    def _show(self, accuracy: bool = False) -> None:
        """Measure and draw, unless that has been done since the last change."""
        if self.measured and self.measured[-1][:2] == (self.run.step, self.run.recipe.eps):
            return
        began = time.monotonic()
        (last, step), self._clock = self._clock, (began, self.run.step)
        self._speed = (self.run.step - step) / max(began - last, 1e-6)
        self._show_views(accuracy)
        curves = progress.curves(self.run.history[: self.run.step], self.measured, self.sample.chance)
        self.curves.put(curves, progress.curves_in_words(self.run.history[: self.run.step], self.measured))
        self._refresh()
        now = time.monotonic()
        self._due = now + max(self.every, 9 * (now - began))

    def _show_views(self, accuracy: bool = False) -> None:
        sample = self.sample
        views = torch.stack([progress.draw_views(self.run, sample.start, self._generator) for _ in range(2)])
        told = progress.neighbour_accuracy(self.run, sample) if accuracy else None
        found = progress.measured(self.run, sample.x, views, told)
        if self.state != "ready":
            self.measured.append(found)
        self.views.put(progress.strip(sample, views), progress.strip_in_words(sample, found))

    # on the page

    def _build(self) -> None:
        self.toggle, self.stop_button = widgets.Button(), widgets.Button(description="Stop")
        self.status = widgets.HTML()
        self.curves, self.views = picture("live-curves"), picture("live-views")
        self.slider = BudgetSlider(self.run.recipe.eps)
        controls = [self.toggle, self.stop_button, *([self.slider] if progress.budgeted(self.run) else [])]
        self._controls = widgets.HBox(controls, layout=widgets.Layout(flex_flow="row wrap"))
        self.box = widgets.VBox([self._controls, self.status, self.curves, self.views])
        for widget, name in (
            (self.box, ""), (self.slider, "-eps"), (self.toggle, "-run"), (self.stop_button, "-stop"), (self.status, "-status"),
        ):  # fmt: skip
            widget.add_class(f"vmlite-live{name}")
        self.toggle.on_click(self._press)
        self.stop_button.on_click(self._press_stop)
        self.slider.observe(self._move, "value")
        self.box.observe(lambda _: self.stop(), "comm")  # which changes when it is closed

    def _press(self, _: widgets.Button) -> None:
        try:
            self.pause() if self.state == "training" and self._wish == "train" else self.start()
        except RuntimeError as error:
            self._notice = str(error)
            self._refresh()

    def _press_stop(self, _: widgets.Button) -> None:
        self.toggle.focus()  # the pressed button is going to be disabled
        self.stop()

    def _move(self, change: Any) -> None:
        eps = float(f"{change.new:.3g}")
        with _told:
            self._eps = None if math.isclose(eps, self.run.recipe.eps, rel_tol=0.005) else eps
            self._refresh()

    def _refresh(self) -> None:
        """Bring buttons and the line of text to the state, and tell those who wait."""
        with _told:
            _told.notify_all()
            goes = self.state == "training" and self._wish == "train"
            first = self.state == "ready" and not self.run.step
            self.toggle.description = "Pause" if goes else "Start" if first else "Go on"
            self.stop_button.disabled = self not in _working or self._wish == "stop"
            told = (
                progress.where(self.run, self._speed if goes else 0.0)
                if self.error is None
                else f"{type(self.error).__name__}: {self.error}"
            )
            hints = {
                f"to {self._wish} after this step": self.state == "training" and not goes,
                f"eps {self._eps} from the next step on": self._eps and self.run.step < self.run.steps and not goes,
                f"checkpoint {self.checkpoint}": self.checkpoint and self.state in ("stopped", "finished"),
            }
            text = "; ".join([told, *(hint for hint, holds in hints.items() if holds)])
            self.status.value = f"<b>{self.state}</b>: {html.escape(text)}<br>{html.escape(self._notice)}"

    def static_picture(self) -> bytes:
        """The curves, or before the first step the views, as PNG."""
        return (self.curves if self.run.step else self.views).value
