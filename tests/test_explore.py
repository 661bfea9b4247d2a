import asyncio
import base64
import gc
import io
import math
import threading
import tracemalloc

import ipywidgets
import pytest
import torch
from PIL import Image
from torch import nn

from vmlite.datasets import load
from vmlite.encoders import resnet18
from vmlite.pretrain import start
from vmlite.show import explore
from vmlite.show.shown import BudgetSlider, Later
from vmlite.viewmaker import Viewmaker
from vmlite.views import L1Noise


@pytest.fixture
def explorer(splits, recipe):
    made = explore.of_run(start(recipe, splits.train), splits.test)
    yield made
    made.close()


def runs_of(explorer, monkeypatch):
    """Counts how often each viewmaker runs."""
    seen = []
    for name, maker in explorer.makers.items():
        if isinstance(maker, Viewmaker):
            inner = maker.generate
            monkeypatch.setattr(
                maker, "generate", lambda *given, name=name, inner=inner: (seen.append(name), inner(*given))[1]
            )
    return seen


def test_the_first_picture_and_all_read_outs_are_there_at_once(explorer):
    for image in (explorer.picture, explorer.near):
        assert Image.open(io.BytesIO(image.value)).format == "PNG"
        assert image.tooltip
    assert "–" not in explorer.text.value
    assert all(name in explorer.text.value for name in ("trained", "untrained", "random noise"))


@pytest.mark.parametrize("control", ["eps", "norm"])
def test_a_new_budget_only_projects_again(explorer, monkeypatch, control):
    seen, before = runs_of(explorer, monkeypatch), explorer.picture.value
    if control == "eps":
        explorer.eps.value = 0.4
    else:
        explorer.norm.value = 2.0
    assert explorer.picture.value != before
    assert not seen


def test_another_example_other_noise_and_another_count_run_the_networks(explorer, monkeypatch):
    seen = runs_of(explorer, monkeypatch)
    for move in (
        lambda: setattr(explorer.place, "value", 5),
        explorer.again.click,
        lambda: setattr(explorer.count, "value", 3),
    ):
        before = explorer.picture.value
        move()
        assert explorer.picture.value != before
        assert sorted(seen) == ["trained", "untrained"]
        seen.clear()


def test_noise_stays_for_the_next_example_only_where_it_is_frozen(explorer):
    first = explorer.picture.value
    explorer.place.value = 3
    explorer.place.value = 0
    assert explorer.picture.value == first
    explorer.frozen.value = False
    explorer.place.value = 3
    explorer.place.value = 0
    assert explorer.picture.value != first


def test_a_class_leaves_only_its_examples_to_choose_from(explorer, splits):
    label = int(splits.test.targets["class"][7])
    explorer.place.value = 31
    explorer.kind.value = label
    members = (splits.test.targets["class"] == label).nonzero()[:, 0].tolist()
    assert explorer.place.max == len(members) - 1
    for place, member in enumerate(members):
        explorer.place.value = place
        assert explorer.index == member
    explorer.kind.value = -1
    assert explorer.place.max == 31


def test_classes_without_examples_are_not_offered(splits, recipe):
    data = splits.test.first(4)
    data.targets = {"class": torch.tensor([2, -1, 2, 0])}
    explorer = explore.of_run(start(recipe, splits.train), data)
    assert [label for _, label in explorer.kind.options] == [-1, 0, 2]
    explorer.kind.value = 2
    assert [int(i) for i in explorer.members] == [0, 2]
    explorer.close()


def test_the_untrained_viewmaker_is_the_trained_one_before_its_training(splits, recipe):
    run = start(recipe, splits.train)
    explorer = explore.of_run(run, splits.test)
    torch.testing.assert_close(explorer.sketch.raw["untrained"], explorer.sketch.raw["trained"], rtol=0, atol=0)
    explorer.close()


def test_unticked_makers_are_not_shown_and_no_maker_asks_for_one(explorer):
    both = Image.open(io.BytesIO(explorer.picture.value)).height
    explorer.shown[1].value = False
    assert Image.open(io.BytesIO(explorer.picture.value)).height < both
    assert "untrained" not in explorer.text.value
    explorer.shown[0].value = explorer.shown[2].value = False
    assert "tick at least one box" in explorer.text.value
    explorer.shown[0].value = True
    assert "trained" in explorer.text.value


@pytest.mark.parametrize("eps", [0.0003, 0.001, 0.05, 0.2, 0.12345, 2.0, 5.0])
def test_the_grid_of_a_budget_slider_goes_through_the_first_budget(eps):
    slider = BudgetSlider(eps)
    moves = []
    slider.observe(lambda change: moves.append(change.new), "value")
    steps = round((math.log10(eps) - slider.min) / slider.step)
    slider.value = 10 ** (slider.min + steps * slider.step)  # as the page sends it
    assert (slider.value, moves) == (eps, [])
    slider.value = 10 ** (slider.min + (steps + 1) * slider.step)
    assert len(moves) == 1


def test_read_outs_wait_until_the_slider_rests(explorer, monkeypatch):
    called = []
    read_out = explorer._read_out
    explorer._rest = Later(lambda: (called.append(explorer.eps.value), read_out()), 0.05)

    async def moves():
        for eps in (0.01, 0.02, 0.04):
            explorer.eps.value = eps
        assert not called
        assert "–" in explorer.text.value
        for _ in range(200):
            await asyncio.sleep(0.02)
            if called:
                break

    asyncio.run(moves())
    assert called == [pytest.approx(0.04, rel=0.03)]
    assert "–" not in explorer.text.value


def test_training_that_goes_on_does_not_change_what_is_shown(splits, recipe):
    run = start(recipe, splits.train)
    explorer = explore.of_run(run, splits.test)
    with torch.no_grad():
        for p in [*run.views.parameters(), *run.encoder.parameters()]:
            p.add_(1)
    first = explorer.picture.value
    explorer.place.value = 3
    explorer.place.value = 0
    assert explorer.picture.value == first
    assert run.encoder.training


def test_moves_leave_no_threads_and_no_memory(explorer):
    def moves(count):
        for i in range(count):
            explorer.eps.value = 0.01 + 0.001 * (i % 100)
        gc.collect()

    moves(20)
    threads, widgets = threading.active_count(), len(ipywidgets.Widget.widgets)
    tracemalloc.start()
    moves(20)
    before = tracemalloc.get_traced_memory()[0]
    moves(100)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000
    assert threading.active_count() == threads
    assert len(ipywidgets.Widget.widgets) == widgets


def test_a_closed_explorer_takes_all_its_widgets_along(splits, recipe):
    run = start(recipe, splits.train)
    explore.of_run(run, splits.test).close()
    before = len(ipywidgets.Widget.widgets)
    explorer = explore.of_run(run, splits.test)

    async def close_while_read_outs_wait():
        explorer.eps.value = 0.3
        explorer.close()
        await asyncio.sleep(0.3)

    asyncio.run(close_while_read_outs_wait())
    assert len(ipywidgets.Widget.widgets) == before
    explorer.eps.value = 0.2
    explorer.close()


def test_two_explorers_do_not_move_each_other(explorer, splits, recipe):
    other = explore.of_run(start(recipe, splits.train), splits.test)
    before = other.picture.value
    explorer.eps.value = 0.7
    assert other.picture.value == before
    other.close()


def test_a_page_without_widgets_gets_the_picture(explorer):
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == explorer.picture.value
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"].startswith("Explorer")


def test_speech_has_a_player_for_the_original_and_each_maker_without_any_sound_device():
    data = load("voices", input_size=16, train_size=24, test_size=12)
    explorer = explore.Explorer(data.train, {"noise": L1Noise()}, count=2)
    assert list(explorer.players) == ["original", "noise"]
    assert all(bytes(player.value[:4]) == b"RIFF" for player in explorer.players.values())
    before = bytes(explorer.players["noise"].value)
    explorer.eps.value = 1.0
    assert explorer.players["noise"].value != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"example": 32}, "example 32 is not there: spirograph has 32, 0 to 31"),
        ({"example": -1}, "example -1 is not there"),
        ({"makers": {"wide": Viewmaker(52, width=4)}}, "'wide' takes 52 channels, but the examples of spirograph have 3"),
        ({"makers": {}}, "at least one viewmaker"),
        ({"makers": {"expert": nn.Identity()}}, "no budget to move"),
        ({"encoder": resnet18(1, 4)}, "the encoder takes 1 channels, but the examples of spirograph have 3"),
        ({"task": "word"}, "spirograph has no task 'word'; it has class"),
        ({"count": 0}, "count must be 1 to 9, got 0"),
        ({"eps": -0.1}, "eps must be a positive number"),
        ({"norm": 3.0}, "norm must be one of 1, 2, inf"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused(splits, change, message):
    settings = {"makers": {"noise": L1Noise()}} | change
    with pytest.raises(ValueError, match=message):
        explore.Explorer(splits.test, settings.pop("makers"), **settings)


def test_a_run_without_a_viewmaker_is_explored_beside_an_untrained_one(splits, recipe):
    explorer = explore.of_run(start(recipe.replace(views="expert"), splits.train), splits.test)
    assert list(explorer.makers) == ["untrained", "random noise"]
    explorer.close()


def test_the_shipped_viewmaker_is_ready_to_explore():
    explorer = explore.of_shipped("voices", load("voices", input_size=32, train_size=64, test_size=16))
    assert list(explorer.makers) == ["trained", "untrained", "random noise"]
    similarity = [float(found.mean()) for found in explorer.found.similarity.values()]
    assert similarity == sorted(similarity)
    explorer.close()


def test_unticked_makers_are_silent_and_nothing_ticked_shows_nothing():
    data = load("voices", input_size=16, train_size=24, test_size=12)
    explorer = explore.Explorer(data.train, {"noise": L1Noise(), "other": L1Noise()}, count=2)
    explorer.shown[1].value = False
    assert not len(explorer.players["other"].value)
    assert len(explorer.players["noise"].value)
    explorer.shown[0].value = False
    assert not len(explorer.picture.value)
    assert not len(explorer.players["noise"].value)
    assert explorer.picture.layout.display == "none"
    explorer.shown[0].value = True
    assert explorer.picture.layout.display is None
    explorer.close()


@pytest.mark.parametrize(
    ("views", "names"),
    [
        ("viewmaker+noise", ["trained", "untrained", "random noise"]),
        ("viewmaker:deterministic", ["trained", "untrained", "random noise"]),
        ("viewmaker:untrained", ["untrained", "random noise"]),
    ],
)
def test_what_is_called_trained_is_a_trained_viewmaker(splits, recipe, views, names):
    run = start(recipe.replace(views=views), splits.train)
    explorer = explore.of_run(run, splits.test)
    assert list(explorer.makers) == names
    untrained = explorer.makers["untrained"]
    torch.testing.assert_close(untrained.state_dict(), run.views[0].state_dict(), rtol=0, atol=0)
    assert untrained.noise_scale == run.views[0].noise_scale
    explorer.close()


def test_a_class_runs_the_networks_once(explorer, monkeypatch, splits):
    explorer.place.value = 5
    seen = runs_of(explorer, monkeypatch)
    explorer.kind.value = int(splits.test.targets["class"][3])
    assert sorted(seen) == ["trained", "untrained"]


def test_data_without_a_task_are_refused(splits):
    data = splits.test.first(4)
    data.targets, data.classes = {}, {}
    with pytest.raises(ValueError, match="spirograph has no task; give its examples one"):
        explore.Explorer(data, {"noise": L1Noise()})
