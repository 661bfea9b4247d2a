import io
import math

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from vmlite.datasets import load
from vmlite.encoders import resnet18
from vmlite.show import perturbations as made_of
from vmlite.viewmaker import NORMS, Viewmaker, perturb
from vmlite.views import L1Noise


@pytest.fixture(scope="module")
def makers():
    torch.manual_seed(0)
    return {"one": Viewmaker(3, 0.05, clamp=(0, 1), width=4), "noise": L1Noise(0.05, clamp=(0, 1))}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    return resnet18(3, 4).eval()


@pytest.fixture(scope="module")
def voices():
    return load("voices", input_size=16, train_size=24, test_size=12)


@pytest.fixture
def x(splits):
    return splits.train.batch(torch.tensor([3]))


@given(eps=st.floats(0.001, 2), norm=st.sampled_from(NORMS), seed=st.integers(0, 5))
def test_a_sketch_projects_to_the_views_that_the_viewmaker_makes(makers, splits, eps, norm, seed):
    x = splits.train.batch(torch.tensor([3]))
    made = made_of.sketch(x, makers, 3, seed, (0, 1))
    noise = makers["one"].draw_noise(x.expand(3, -1, -1, -1), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = perturb(x, makers["one"].generate(x.expand(3, -1, -1, -1), noise), eps, norm, (0, 1))
    torch.testing.assert_close(made.views(eps, norm)["one"], expected)


def test_a_sketch_neither_uses_nor_moves_torchs_generator(makers, x):
    torch.manual_seed(0)
    first, state = made_of.sketch(x, makers, 2, 7, (0, 1)), torch.get_rng_state()
    torch.manual_seed(1)
    second = made_of.sketch(x, makers, 2, 7, (0, 1))
    for name in makers:
        torch.testing.assert_close(first.raw[name], second.raw[name], rtol=0, atol=0)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_other_seeds_are_other_noise(makers, x):
    one, other = (made_of.sketch(x, makers, 2, seed, (0, 1)) for seed in (0, 1))
    assert all(not torch.equal(one.raw[name], other.raw[name]) for name in makers)
    assert not torch.equal(one.raw["one"][0], one.raw["one"][1])


def test_the_last_viewmaker_or_noise_of_some_views_is_taken(makers):
    assert made_of.maker_in(nn.Sequential(nn.Identity(), makers["noise"], makers["one"])) is makers["one"]
    assert made_of.maker_in(makers["noise"]) is makers["noise"]
    with pytest.raises(ValueError, match="no budget to move: give a Viewmaker"):
        made_of.maker_in(nn.Sequential(nn.Identity()))


def test_numbers_are_the_realised_budget_and_the_clamped_share(x):
    change = torch.zeros(2, *x.shape[1:])
    change[:, 0, 0, 0] = 1e6  # one value of 432 goes out of the range
    made = made_of.Sketch(x * 0.5, {"spike": change}, (0, 1))
    found = made_of.numbers(made, made.views(0.05), 1.0)["spike"]
    n = x[0].numel()
    assert found.clamped == pytest.approx(1 / n)
    assert found.budget == pytest.approx(float(1 - 0.5 * x[0, 0, 0, 0]) / n)


def test_the_nearest_neighbour_of_a_training_example_is_itself(splits, encoder, x):
    memory = made_of.remember(encoder, splits.train, "class")
    found = made_of.compare(encoder, memory, x, {"same": x.repeat(2, 1, 1, 1), "other": 1 - x})
    assert found.nearest["original"][0] == found.nearest["same"][0] == 3
    torch.testing.assert_close(found.similarity["same"], torch.ones(2))
    assert found.similarity["other"].max() < 1
    slow = torch.cosine_similarity(encoder(x), encoder(1 - x))
    torch.testing.assert_close(found.similarity["other"], slow)


def test_neighbours_are_sorted_by_the_cosine_of_embeddings(splits, encoder, x):
    memory = made_of.remember(encoder, splits.test, "class", 10)
    assert len(memory.index) == 10
    assert memory.index.max() < len(splits.test)
    found = made_of.compare(encoder, memory, x, {}, k=10).nearest["original"]
    with torch.no_grad():
        cosine = torch.cosine_similarity(encoder(x), encoder(splits.test.inputs(found)))
    assert cosine.tolist() == sorted(cosine.tolist(), reverse=True)


def test_neighbours_are_labelled_examples_where_there_are_any(splits, encoder):
    data = splits.test.first(16)
    data.targets = {"class": torch.tensor([-1, 0] * 8)}
    assert made_of.remember(encoder, data, "class").index.tolist() == list(range(1, 16, 2))
    assert made_of.remember(encoder, data, "class", 4).index.tolist() == [1, 5, 9, 13]
    data.targets = {"class": torch.full((16,), -1)}
    assert len(made_of.remember(encoder, data, "class").index) == 16
    assert len(made_of.remember(encoder, data, "word").index) == 16


def test_pictures_of_views_and_neighbours_are_png(splits, makers, encoder, x):
    made, look = made_of.sketch(x, makers, 4, 0, (0, 1)), made_of.Look(splits.train)
    views = made.views(0.05)
    small, large = (
        Image.open(io.BytesIO(made_of.views_picture(made, v, look))) for v in ({"one": views["one"]}, views)
    )
    assert small.format == "PNG"
    assert small.width == large.width
    assert small.height < large.height
    memory = made_of.remember(encoder, splits.train, "class")
    found = made_of.compare(encoder, memory, x, views)
    assert Image.open(io.BytesIO(made_of.neighbours_picture(memory, found, look, "class", x))).format == "PNG"


def test_a_larger_budget_changes_the_views_and_not_the_pattern_of_the_heat_map(splits, makers, x):
    made, look = made_of.sketch(x * 0 + 0.5, {"one": makers["one"]}, 2, 0, (0, 1)), made_of.Look(splits.train)
    small, large = (
        np.asarray(Image.open(io.BytesIO(made_of.views_picture(made, made.views(e), look)))) for e in (0.01, 0.02)
    )
    half = small.shape[0] // 2 - 8
    assert (small[:half] != large[:half]).any()
    changed = small[half:-30].astype(int) - large[half:-30]
    assert np.abs(changed).max() <= 8


def test_the_table_has_a_row_for_each_maker_and_dashes_until_embeddings_are_there():
    spend = {"trained": made_of.Numbers(0.0491, 0.02), "noise": made_of.Numbers(0.05, 0.0)}
    early = made_of.table(spend)
    assert "0.0491" in early
    assert "2.0%" in early
    assert early.count("–") == 4
    assert "clamped" not in made_of.table(spend, clamps=False)
    nearest = {
        "original": torch.tensor([1, 2, 3]),
        "trained": torch.tensor([3, 4, 1]),
        "noise": torch.tensor([7, 8, 9]),
    }
    similar = {"trained": torch.tensor([0.5, 0.7]), "noise": torch.tensor([0.9, 0.9])}
    late = made_of.table(spend, made_of.Comparison(similar, nearest))
    assert "0.600 (0.500 to 0.700)" in late
    assert "2 of 3" in late
    assert "0 of 3" in late


def test_spectrograms_show_the_chosen_channel_with_low_frequencies_at_the_bottom(voices):
    data = voices.train
    x = torch.zeros(1, 1, 16, 16)
    x[:, :, 0] = 1  # the lowest band
    plane = made_of.Look(data, 0).plane(x)
    assert plane[0, -1].min() == 1
    assert plane[0, :-1].max() == 0
    assert made_of.Look(data).heat(x).max() == data.front_end.std
    assert "dB" in made_of.Look(data).label


def test_sounds_are_wav_files_and_an_unchanged_view_sounds_as_its_original(voices):
    data = voices.train
    x = data.inputs(torch.tensor([5]))
    made = made_of.Sketch(x, {}, None)
    found = made_of.sounds_of(data, 5, made, {"same": x, "louder": x + 6 / data.front_end.std})
    original, same, louder = (soundfile.read(io.BytesIO(found[name])) for name in ("original", "same", "louder"))
    assert original[1] == data.sample_rate
    assert len(original[0]) == data.batch(torch.tensor([5])).shape[1]
    np.testing.assert_allclose(same[0], original[0], atol=2e-3)
    assert np.abs(louder[0]).max() == pytest.approx(1, abs=1e-3)
    assert np.linalg.norm(louder[0]) / np.linalg.norm(original[0]) == pytest.approx(2, rel=0.02)


def test_a_viewmaker_of_other_channels_is_refused_by_name(splits):
    with pytest.raises(
        ValueError, match="the viewmaker 'sensors' takes 52 channels, but the examples of spirograph have 3"
    ):
        made_of.check_makers({"sensors": Viewmaker(52, width=4)}, splits.train)
    with pytest.raises(ValueError, match="at least one viewmaker"):
        made_of.check_makers({}, splits.train)


@pytest.mark.parametrize("example", [-1, 32, 5000])
def test_an_example_that_is_not_there_is_refused(splits, example):
    with pytest.raises(ValueError, match=f"example {example} is not there: spirograph has 32, 0 to 31"):
        made_of.check_example(example, splits.test)


def test_names():
    assert [made_of.name_of(n) for n in (1.0, 2.0, math.inf)] == ["l1", "l2", "l-infinity"]
    assert made_of.in_words(["a"]) == "a"
    assert made_of.in_words(["a", "b", "c"]) == "a, b and c"


def test_an_example_without_a_label_is_called_unlabelled(splits):
    data = splits.test.first(4)
    data.targets = {"class": torch.tensor([-1, 0, 1, 2])}
    assert made_of.class_name(data, "class", 0) == "unlabelled"
    assert made_of.class_name(data, "class", 1) == data.classes["class"][0]
