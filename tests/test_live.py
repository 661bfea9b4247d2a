"""The live panel trains as `train` does, whatever is pressed; it holds on to nothing, and hides no error."""

import base64
import io
import itertools
import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from vmlite import checkpoint, datasets
from vmlite.pretrain import pretrain, seeded, start, train
from vmlite.show import live, progress
from vmlite.show.progress import Measured, Sample, curves, draw_views, measured, strip

LONG = 60  # seconds; only a broken panel takes them


def weights(run):
    return [t.clone() for part in (run.encoder, run.views, run.objective) for t in part.state_dict().values()]


def identical(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    for panel in list(live._working):
        panel.close()
    assert not live._working
    assert not [thread for thread in threading.enumerate() if thread.name == "vmlite live panel"]


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """The thread does not draw curves, which takes longer than the training here."""
    monkeypatch.setattr(progress, "curves", lambda history, found, chance: b"%d" % len(history))


@pytest.fixture
def panel(recipe, splits, tmp_path):
    panel = live.Panel(start(recipe, splits.train), splits.test, checkpoint=tmp_path / "run.pt")
    yield panel
    panel.close()


@pytest.fixture
def allowed(monkeypatch):
    """Steps are only taken when this semaphore is released; `live._told` hears of them."""
    semaphore = threading.Semaphore(0)

    def steps(run):
        inner = pretrain(run)
        while semaphore.acquire(timeout=LONG) and next(inner, None):
            with live._told:
                live._told.notify_all()
            yield run

    monkeypatch.setattr(live, "pretrain", steps)
    yield semaphore
    semaphore.release(100)


def reached(panel, step):
    with live._told:
        return live._told.wait_for(lambda: panel.run.step >= step, LONG)


# the run


@pytest.mark.parametrize("views", ["viewmaker", "expert+viewmaker"])
def test_pauses_and_stops_do_not_change_what_is_learned(recipe, splits, allowed, views):
    recipe = recipe.replace(views=views)
    expected = train(start(recipe, splits.train), progress=False)
    panel = live.Panel(start(recipe, splits.train), splits.test)
    before = torch.get_rng_state()
    for ask, seen in ((panel.pause, "paused"), (panel.stop, "stopped"), (panel.pause, "paused")):
        step = panel.run.step
        panel.start()
        allowed.release()
        assert reached(panel, step + 1)
        ask()
        allowed.release()  # for the step that may be waited for already
        assert panel.wait(LONG)
        assert panel.state == seen
    panel.go_on()
    allowed.release(100)
    assert panel.wait(LONG)
    assert panel.state == "finished"
    assert torch.equal(panel.run.history, expected.history)
    assert identical(weights(panel.run), weights(expected))
    assert torch.equal(torch.get_rng_state(), before)


def test_stopping_leaves_a_checkpoint_and_start_goes_on(panel, recipe, splits, allowed):
    panel.start()
    allowed.release(3)
    assert reached(panel, 2)
    panel.stop()
    allowed.release()
    assert panel.wait(LONG)
    assert panel.state == "stopped"
    assert panel.status.value.endswith(f"checkpoint {panel.checkpoint}<br>")
    assert 2 <= panel.run.step <= 4
    other = start(recipe, splits.train)
    checkpoint.load(other, panel.checkpoint)
    assert other.step == panel.run.step
    assert identical(weights(other), weights(panel.run))
    allowed.release(100)
    panel.start()
    assert panel.wait(LONG)
    checkpoint.load(other, panel.checkpoint)
    assert other.step == other.steps == 8
    assert [m.step for m in panel.measured] == sorted(m.step for m in panel.measured)


def test_the_accuracy_is_measured_at_the_beginning_and_after_each_epoch(panel):
    panel.start()
    assert panel.wait(LONG)
    assert [m.step for m in panel.measured if m.accuracy is not None][:2] == [0, 4]
    assert panel.measured[-1].accuracy == progress.neighbour_accuracy(panel.run, panel.sample)
    assert panel.run.encoder.training
    assert all(p.requires_grad for p in panel.run.encoder.parameters())


def pause_early(panel, allowed):
    """Start, and pause after a step or two."""
    panel.start()
    allowed.release()
    assert reached(panel, 1)
    panel.pause()
    allowed.release()
    assert panel.wait(LONG)


def test_a_paused_panel_has_pictures_of_where_it_is(panel, allowed):
    pause_early(panel, allowed)
    assert panel.measured[-1].step == panel.run.step
    assert f"Curves over {panel.run.step} steps" in panel.curves.tooltip
    assert f"after step {panel.run.step}," in panel.views.tooltip
    assert "paused" in panel.status.value


# the budget


def test_eps_moved_during_training_is_that_of_the_next_step(panel, recipe, allowed):
    panel.start()
    allowed.release()
    assert reached(panel, 1)
    panel.slider.value = 0.5
    allowed.release(100)
    assert panel.wait(LONG)
    assert panel.run.recipe == recipe.replace(eps=0.5)
    assert [view.eps for view in progress.budgeted(panel.run)] == [0.5]
    assert (panel.measured[0].eps, panel.measured[-1].eps) == (0.05, 0.5)
    assert panel.measured[-1].budget > 2 * panel.measured[0].budget
    assert '"eps": 0.5' in torch.load(panel.checkpoint, weights_only=True)["recipe"]


def test_the_page_putting_the_handle_on_its_grid_is_no_move(panel, recipe):
    grid = panel.slider.min + 0.02 * round((math.log10(recipe.eps) - panel.slider.min) / 0.02)
    panel.slider.value = 10**grid  # JupyterLab sends this when it shows the slider
    panel.start()
    assert panel.wait(LONG)
    assert panel.run.recipe == recipe
    assert panel.slider.value == recipe.eps


def test_eps_moved_during_a_pause_is_seen_at_once(panel, allowed):
    pause_early(panel, allowed)
    old = panel.views.value
    panel.slider.value = 1.0
    with live._told:
        assert live._told.wait_for(lambda: panel.measured[-1].eps == 1.0, LONG)
    panel.stop()
    assert panel.wait(LONG)
    assert panel.views.value != old
    assert 1 <= panel.run.step <= 2


@pytest.mark.parametrize(("eps", "views", "controls"), [(5.0, "viewmaker", 3), (0.05, "noise", 3), (0.05, "expert", 2)])
def test_the_slider_is_there_for_views_with_a_budget_and_does_not_move_it(recipe, splits, eps, views, controls):
    panel = live.Panel(start(recipe.replace(eps=eps, views=views), splits.train), splits.test)
    panel.start()
    assert panel.wait(LONG)
    assert panel.run.recipe.eps == eps
    assert panel.error is None
    assert panel.slider.value == pytest.approx(eps)
    assert len(panel._controls.children) == controls
    panel.close()


# what can go wrong


def test_two_panels_take_turns(recipe, splits, allowed):
    first, second = (live.Panel(start(recipe, splits.train), splits.test) for _ in range(2))
    first.start()
    assert live.training() is first
    second.slider.value = 0.2
    assert "step 0 of 8 (epoch 1 of 2); eps 0.2 from the next step on" in second.status.value
    second.slider.value = 0.05
    with pytest.raises(RuntimeError, match=r"another panel \(viewmaker on spirograph, step 0 of 8\) is training"):
        second.start()
    second.toggle.click()
    assert second.state == "ready"
    assert "pause or stop it first" in second.status.value
    first.pause()
    allowed.release()
    assert first.wait(LONG)
    second.toggle.click()
    assert (second.state, first.state) == ("training", "paused")
    with pytest.raises(RuntimeError, match="is training"):
        first.go_on()
    allowed.release(100)
    assert second.wait(LONG)
    first.go_on()
    assert first.wait(LONG)
    assert identical(weights(first.run), weights(second.run))


def test_two_panels_of_one_run_do_not_train_it_together(panel, splits, allowed):
    other = live.Panel(panel.run, splits.test)
    panel.start()
    panel.pause()
    allowed.release()
    assert panel.wait(LONG)
    with pytest.raises(RuntimeError, match="has this run: stop it first"):
        other.start()
    panel.stop()
    assert panel.wait(LONG)
    allowed.release(100)
    other.start()
    assert other.wait(LONG)
    assert other.state == "finished"


def test_a_finished_run_says_how_to_begin_anew(panel):
    panel.start()
    assert panel.wait(LONG)
    with pytest.raises(RuntimeError, match=r"all 8 steps are done. To begin anew, make a panel of a new run"):
        panel.start()
    panel.toggle.click()
    assert "all 8 steps are done" in panel.status.value
    assert panel.state == "finished"


def test_a_failing_step_is_told_and_the_panel_can_go_on(panel, monkeypatch):
    def fails(run):
        yield from itertools.islice(pretrain(run), 2)
        raise MemoryError("out of memory at <batch_size> 16")

    with monkeypatch.context() as patch:
        patch.setattr(live, "pretrain", fails)
        panel.start()
        assert panel.wait(LONG)
    assert panel.state == "failed"
    assert isinstance(panel.error, MemoryError)
    assert "MemoryError: out of memory at &lt;batch_size&gt; 16" in panel.status.value
    assert panel.run.step == 2
    panel.start()
    assert panel.wait(LONG)
    assert (panel.state, panel.error) == ("finished", None)


def test_a_checkpoint_that_cannot_be_written_is_told(recipe, splits, tmp_path):
    (tmp_path / "file").write_text("")
    panel = live.Panel(start(recipe, splits.train), splits.test, checkpoint=tmp_path / "file" / "run.pt")
    panel.start()
    assert panel.wait(LONG)
    assert panel.state == "failed"
    assert isinstance(panel.error, OSError)
    assert type(panel.error).__name__ in panel.status.value
    assert panel.run.step == 4


@pytest.mark.parametrize("close", [lambda p: p.close(), lambda p: p.box.close()], ids=["panel", "its box"])
@pytest.mark.parametrize("paused", [False, True])
def test_a_closed_panel_ends_its_thread_and_writes_the_checkpoint(panel, allowed, close, paused):
    panel.start()
    thread = panel._thread
    if paused:
        panel.pause()
    allowed.release()
    assert not paused or panel.wait(LONG)
    allowed.release()
    close(panel)
    allowed.release(1)
    thread.join(LONG)
    assert not thread.is_alive()
    assert panel.state == "stopped"
    assert torch.load(panel.checkpoint, weights_only=True)["step"] == panel.run.step
    with pytest.raises(RuntimeError, match="closed"):
        panel.start()
    panel.close()


def test_other_test_examples_are_refused(recipe, splits):
    run = start(recipe, splits.train)
    other = datasets.load("spirograph", input_size=16, train_size=4, test_size=4)
    with pytest.raises(ValueError, match=r"test examples are \(3, 16, 16\), the run's \(3, 12, 12\)"):
        live.Panel(run, other.test)
    with pytest.raises(ValueError, match="no task 'speaker'; it has class"):
        live.Panel(run, splits.test, "speaker")


# buttons


def test_buttons_follow_the_state(panel, allowed):
    def looks():
        return panel.toggle.description, panel.toggle.disabled, panel.stop_button.disabled

    assert looks() == ("Start", False, True)
    panel.toggle.click()
    assert looks() == ("Pause", False, False)
    panel.toggle.click()
    assert looks() == ("Go on", False, False)
    assert "to pause after this step" in panel.status.value
    allowed.release()
    assert panel.wait(LONG)
    panel.toggle.click()
    assert looks() == ("Pause", False, False)
    panel.stop_button.click()
    assert looks() == ("Go on", False, True)
    allowed.release()
    assert panel.wait(LONG)
    assert panel.state == "stopped"
    panel.pause(), panel.stop()
    assert panel.state == "stopped"


def test_pages_without_widgets_get_the_picture(panel, monkeypatch):
    monkeypatch.setattr(progress, "curves", curves)

    def picture():
        return base64.b64decode(panel._repr_mimebundle_()["image/png"])

    assert picture() == panel.views.value
    panel.start()
    assert panel.wait(LONG)
    assert picture() == panel.curves.value == curves(panel.run.history, panel.measured, panel.sample.chance)
    bundle = panel._repr_mimebundle_(include=None, exclude=None)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.box.model_id
    assert bundle["text/plain"] == "Panel: a widget, run the cell to use it"


# pictures


def test_views_are_drawn_from_their_own_generator(recipe, splits):
    run = start(recipe.replace(views="expert:crop-flip+viewmaker+noise"), splits.train)
    x = splits.test.inputs(torch.arange(4))
    before = torch.get_rng_state()
    first, again, other = (draw_views(run, x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad


def test_numbers_of_views_are_those_of_their_definition(recipe, splits):
    run = start(recipe, splits.train)
    x = torch.full((2, 3, 12, 12), 0.5)
    views = torch.stack([x + 0.25, x.clone()])
    views[0, 0] = 1.0
    assert measured(run, x, views, 50.0) == Measured(0, 0.05, pytest.approx((0.5 + 0.25) / 4), 0.25, 50.0)


def test_the_strip_shows_originals_views_and_changes(recipe, splits):
    sample = Sample.of(start(recipe, splits.train), splits.test, "class")
    assert len(sample.x) == progress.MEASURED
    same, other = torch.stack([sample.x] * 2), torch.stack([1 - sample.x, sample.x])
    a, b = pixels(strip(sample, same)), pixels(strip(sample, other))
    assert a.shape == b.shape
    changed = (a != b).any((1, 2)).nonzero()[0]
    assert 84 < changed.min() < 120  # the first row, of originals, is the same
    assert not np.array_equal(strip(sample, same), strip(sample, other))


@pytest.mark.parametrize("topic", ["speech", "sensors"])
def test_spectrograms_have_a_strip_too(recipe, topic):
    sizes = (24, 24) if topic == "speech" else (2000, 1000)
    options = {"input_size": 16, "train_size": sizes[0], "test_size": sizes[1]}
    name, views = {"speech": ("voices", "expert:time+viewmaker"), "sensors": ("motions", "viewmaker")}[topic]
    data = datasets.load(name, **options, **({"window_seconds": 4.9} if topic == "sensors" else {}))
    run = start(recipe.replace(views=views), data.train)
    sample = Sample.of(run, data.test, next(iter(data.test.targets)))
    views = torch.stack([draw_views(run, sample.start, torch.Generator().manual_seed(0))] * 2)
    assert views.shape == (2, *sample.x.shape)
    low = sample.x.clone()
    low[:, sample.channel, :8] = sample.x.max()
    picture, changed = (pixels(strip(sample, torch.stack([v] * 2))) for v in (sample.x, low))
    rows = (picture != changed)[:-40].any((1, 2)).nonzero()[0]
    row = rows[rows < rows.min() + 60]
    assert row.min() > picture.shape[0] // 4 + 20  # low frequencies are at the bottom of the second row
    assert "8 spectrograms" in progress.strip_in_words(sample, measured(run, sample.x, views))


@pytest.mark.parametrize("steps", [0, 1, 7, 5000])
def test_curves_of_any_length(steps):
    history = torch.randn(steps, 2, generator=torch.Generator().manual_seed(0))
    found = [Measured(0, 0.05, 0.04, 0.1, 20.0), Measured(max(steps, 1), 0.1, 0.08, 0.1)]
    assert pixels(curves(history, found, 11.0)).shape == (176, 768, 3)
    assert pixels(curves(history, [], 11.0)).std() > 0
    x, y = progress._running_mean(history[:, 0].numpy())
    assert len(x) == len(y) <= progress.POINTS
    assert not steps or x[-1] == steps
    width = max(1, steps // 50)
    assert not steps or y[-1] == pytest.approx(history[-width:, 0].mean().item(), abs=1e-5)


def test_where_a_run_is(recipe, splits):
    run = start(recipe, splits.train)
    assert progress.where(run) == "viewmaker on spirograph, step 0 of 8 (epoch 1 of 2)"
    run.step = 4
    assert progress.where(run, 0.5).endswith("step 4 of 8 (epoch 2 of 2); 0.5 steps a second, about 8 s to go")
    run.step = 8
    assert progress.where(run).endswith("(epoch 2 of 2)")


def test_curves_in_words_have_the_numbers():
    history = torch.tensor([[2.0, -1.0], [4.0, -3.0]])
    told = progress.curves_in_words(history, [Measured(0, 0.05, 0.04, 0.0, 20.0), Measured(2, 0.05, 0.045, 0.0, 31.5)])
    assert told == (
        "Curves over 2 steps. Now: loss of the encoder 3.000, loss of the viewmaker -2.000, realised budget 0.045 of "
        "0.05, kNN accuracy 31.5 %, 20.0 % at first."
    )
    assert "no step" in progress.curves_in_words(history[:0], [])


@pytest.mark.parametrize(("value", "limit"), [(0.3, 0.5), (0.5, 0.5), (0.51, 1.0), (2e-4, 2e-4), (0.0, 1.0), (7, 10)])
def test_the_scale_of_changes_is_a_round_number(value, limit):
    assert progress._rounded_up(value) == pytest.approx(limit)


@pytest.mark.parametrize(("views", "told"), [("viewmaker", True), ("expert+viewmaker", False), ("expert", False)])
def test_the_realised_budget_is_told_where_it_is_that_of_the_views(recipe, splits, views, told):
    panel = live.Panel(start(recipe.replace(views=views), splits.train), splits.test)
    panel.start()
    assert panel.wait(LONG)
    assert panel.error is None
    for picture in (panel.views, panel.curves):
        assert ("budget" in picture.tooltip) == told
    panel.close()


def test_seeded_draws_elsewhere_neither_change_the_run_nor_are_changed(recipe, splits):
    def drawn():
        with seeded("elsewhere"):
            return torch.rand(1000)

    expected = drawn()
    undisturbed = train(start(recipe, splits.train), progress=False)
    panel = live.Panel(start(recipe, splits.train), splits.test)
    panel.start()
    same = []
    while not panel.wait(0):
        same.append(torch.equal(drawn(), expected))
    assert same
    assert all(same)
    assert torch.equal(panel.run.history, undisturbed.history)
    panel.close()


def test_a_panel_made_during_another_ones_training_has_its_views(recipe, splits, allowed):
    first = live.Panel(start(recipe, splits.train), splits.test)
    first.start()
    second = live.Panel(start(recipe.replace(views="expert+viewmaker"), splits.train), splits.test)
    assert len(second.views.value)
    allowed.release(100)
    assert first.wait(LONG)
    second.close()
    first.close()
