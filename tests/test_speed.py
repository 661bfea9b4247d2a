"""Turns and ratios of timings, counted work against a hand count, and variants of a step that compute the same."""

import math

import pytest
import torch
from torch import nn

from vmlite import floor, hardware, speed
from vmlite.floor import flops, traffic
from vmlite.pretrain import start
from vmlite.speed import PLAIN, PRODUCT, VARIANTS, interleaved, parts, random_images, ratios, stepper
from vmlite.views import Chain


@pytest.fixture
def images():
    return random_images((3, 12, 12), 64)


def test_variants_take_turns_in_an_order_that_is_reversed_every_other_round():
    called = []
    variants = {name: lambda name=name: called.append(name) for name in "abc"}
    seconds = interleaved(variants, rounds=3, warmup=1)
    assert "".join(called) == "cba" + "abc" + "cba" + "abc"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_each_variant_gets_the_seconds_of_its_own_calls(monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock["now"])

    def takes(seconds):
        return lambda: clock.update(now=clock["now"] + seconds)

    assert interleaved({"slow": takes(2.0), "fast": takes(0.5)}, rounds=2) == {"slow": [2.0, 2.0], "fast": [0.5, 0.5]}


def test_a_ratio_is_the_median_over_rounds_and_not_the_ratio_of_medians():
    found = ratios({"plain": [1.0, 10.0, 4.0], "fast": [1.0, 2.0, 2.0]}, "plain")
    assert found["fast"] == (2.0, 1.0, 5.0)
    assert found["plain"] == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="unknown baseline 'slow'; choose from plain"):
        ratios({"plain": [1.0]}, "slow")


def test_counted_work_equals_a_hand_count(recipe, images):
    run = start(recipe, images)
    run.views = Chain(nn.Conv2d(3, 3, 3, padding=1, bias=False))
    run.encoder = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(5 * 144, 7, bias=False)
    )
    view = 2 * 144 * 3 * 3 * 9
    conv, linear = 2 * 144 * 3 * 5 * 9, 2 * 5 * 144 * 7
    encoder = conv + linear
    assert flops(run) == {
        "encoder": encoder,
        "viewmaker": view,
        # two views; images need no gradient, so the viewmaker's only convolution goes back once
        "joint": 2 * (2 * view + 3 * encoder),
        # the encoder's first convolution needs no gradient of its input in its own step; later it needs only that
        "alternating": 2 * (view + 2 * conv + 3 * linear) + 2 * (2 * view + 2 * encoder),
    }


def test_traffic_is_what_operations_read_and_write_and_views_of_a_tensor_are_free(recipe, images):
    run = start(recipe, images)
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    run.views = Chain(conv, nn.Flatten(), nn.ReLU(), nn.Unflatten(1, (3, 12, 12)))
    image, weight = 4 * 3 * 144, 4 * 3 * 3 * 9
    assert traffic(run)["viewmaker"] == 4 * image + weight // 2  # counted on two examples, which share the weight


def test_counting_leaves_the_run_as_it_is(recipe, images):
    run = start(recipe, images)
    before = [p.clone() for p in run.encoder.parameters()]
    flops(run)
    assert run.step == 0
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, run.encoder.parameters(), strict=True))


@pytest.fixture
def switched(monkeypatch):
    calls = []
    monkeypatch.setattr(hardware, "keep_memory", lambda on=True: calls.append(on))
    return calls


@pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if not variant.compile])
def test_each_variant_computes_finite_losses_and_leaves_kept_memory_off(recipe, images, switched, name):
    step = stepper(recipe, images, VARIANTS[name])
    losses = torch.stack([step().clone() for _ in range(5)])  # more than an epoch
    assert losses.shape == (5, 2)
    assert losses.isfinite().all()
    assert switched == [VARIANTS[name].kept_memory, False] * 5


def test_kept_memory_is_off_again_after_a_step_that_fails(recipe, images, switched, monkeypatch):
    step = stepper(recipe, images, VARIANTS["kept memory"])
    monkeypatch.setattr(images, "images", None)
    with pytest.raises(TypeError):
        step()
    assert switched == [True, False]


@pytest.mark.parametrize("update", ["alternating", "joint"])
def test_the_order_of_memory_and_its_reuse_change_no_loss(recipe, images, update):
    wanted = None
    for layout in (False, True):
        step = stepper(recipe, images, speed.Variant(update, channels_last=layout, kept_memory=layout))
        losses = torch.stack([step().clone() for _ in range(2)])
        wanted = losses if wanted is None else wanted
        torch.testing.assert_close(losses, wanted, rtol=1e-3, atol=0)


def test_plain_networks_lie_in_the_usual_order_of_memory_and_the_product_in_the_convolutions(
    recipe, images, monkeypatch
):
    runs = []
    monkeypatch.setattr(speed, "pretrain", lambda run: runs.append(run))
    for name in (PLAIN, PRODUCT):
        stepper(recipe, images, VARIANTS[name])
    for run, contiguous in zip(runs, (True, False), strict=True):
        weights = [p for p in (*run.encoder.parameters(), *run.views.parameters()) if p.ndim == 4 and min(p.shape) > 1]
        kernels = [w for w in weights if w.shape[-1] > 1]
        assert {w.is_contiguous() for w in kernels} == {contiguous}


def test_parts_are_those_of_a_step_and_can_be_called_again(recipe, images):
    run = start(recipe.replace(update="joint"), images)
    found = parts(run)
    assert list(found) == ["data", "front end", "viewmaker", "encoder", "loss", "optimisers"]
    weight = next(run.encoder.parameters())
    before = weight.clone()
    for _ in range(2):
        for name, part in found.items():
            part()
            assert torch.equal(weight, before) == (name != "optimisers")
            before = weight.detach().clone()
    assert sum(g.shape == p.shape for g, p in zip(found["encoder"]()[1:], run.encoder.parameters(), strict=True)) > 1


def test_ceilings_are_finite_rates(monkeypatch):
    monkeypatch.setattr(floor, "interleaved", lambda work, calls: {name: [2.0, 1.0] for name in work})
    found = floor.ceilings(torch.device("cpu"))
    assert found.flops == max(2 * 2048**3, 2 * 32 * 128 * 1024 * 128 * 9)
    assert found.bytes == 2**28


def test_peak_memory_is_that_of_the_process_asked_and_not_of_its_parent(recipe):
    held = torch.ones(2**28)  # a GiB
    assert speed.peak_memory(torch.device("cpu")) > held.nbytes
    assert 2**26 < speed.memory_of(recipe, PLAIN, steps=1) < held.nbytes
    assert math.isfinite(held[0].item())
