"""Recipes: frozen values, JSON both ways, what they refuse; the presets."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmlite.datasets import DATASETS
from vmlite.encoders import ENCODERS, HEADS, STEMS
from vmlite.objectives import NTXENT_FORMS, OBJECTIVES
from vmlite.recipes import PRECISIONS, PRESETS, UPDATES, Recipe, one_of, preset
from vmlite.views import VIEWS

NAMES = [field.name for field in dataclasses.fields(Recipe)]
ALL_PRESETS = [(topic, name) for topic in PRESETS for name in PRESETS[topic]]

sizes = st.integers(1, 10**6)
positive = st.floats(1e-6, 1e6)
VALID = {
    "dataset": st.sampled_from(DATASETS),
    "data_dir": st.none() | st.text(min_size=1),
    "train_size": st.none() | sizes,
    "test_size": st.none() | sizes,
    "input_size": st.none() | sizes,
    "views": st.lists(st.sampled_from(VIEWS), min_size=1, max_size=3).map("+".join),
    "eps": positive | st.integers(1, 10),
    "norm": st.sampled_from([1, 2, 1.0, 2.0, math.inf, "1", "2", "inf"]),
    "viewmaker_width": sizes,
    "viewmaker_blocks": st.integers(0, 5),
    "encoder": st.sampled_from(list(ENCODERS)),
    "encoder_width": sizes,
    "stem": st.sampled_from(STEMS),
    "head": st.sampled_from(HEADS),
    "embedding_dim": sizes,
    "objective": st.sampled_from(OBJECTIVES),
    "loss_form": st.sampled_from(NTXENT_FORMS),
    "temperature": positive,
    "update": st.sampled_from(UPDATES),
    "epochs": sizes,
    "batch_size": sizes,
    "encoder_lr": positive,
    "encoder_momentum": st.floats(0, 0.99),
    "weight_decay": st.floats(0, 1),
    "viewmaker_lr": positive,
    "seed": st.integers(0, 2**40),
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:1"]),
    "precision": st.sampled_from(PRECISIONS),
}


def strict_json(text: str):
    """Parse, refusing the constants that JSON does not have."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@given(st.fixed_dictionaries({}, optional={name: VALID[name] for name in NAMES if name in VALID}))
def test_json_both_ways_for_any_valid_recipe(fields):
    recipe = Recipe().replace(**fields)
    text = recipe.to_json()
    assert set(strict_json(text)) == set(NAMES)
    assert Recipe.from_json(text) == recipe
    assert Recipe.from_json(text).to_json() == text
    for name, value in fields.items():
        assert getattr(recipe, name) == (float(value) if name == "norm" else value)


@pytest.mark.parametrize(("topic", "name"), ALL_PRESETS)
@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_json_both_ways_for_every_preset(topic, name, norm):
    recipe = preset(name, topic, norm=norm)
    assert strict_json(recipe.to_json())["norm"] == ("inf" if norm == math.inf else norm)
    back = Recipe.from_json(recipe.to_json())
    assert back == recipe
    assert back.norm == norm


def test_json_with_fields_left_out_takes_the_defaults():
    recipe = Recipe.from_json('{"eps": 0.2}')
    assert recipe == Recipe(eps=0.2)
    assert recipe != Recipe()


def test_json_with_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="unknown recipe field 'epsilon'"):
        Recipe.from_json('{"epsilon": 0.2}')


@pytest.mark.parametrize("text", ["", "{", Recipe().to_json()[:-5]])
def test_json_that_is_damaged_is_refused(text):
    with pytest.raises(json.JSONDecodeError):
        Recipe.from_json(text)


def test_a_path_as_data_dir_becomes_text():
    recipe = Recipe(data_dir=Path("here") / "photos")
    assert recipe.data_dir == str(Path("here/photos"))
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_recipes_are_frozen_values():
    recipe = Recipe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.eps = 0.1
    changed = recipe.replace(eps=0.1)
    assert (recipe.eps, changed.eps) == (0.05, 0.1)
    assert hash(changed) == hash(Recipe(eps=0.1))
    assert {changed, Recipe(eps=0.1), recipe} == {recipe, changed}


# What is refused


def test_unknown_field_lists_the_fields_and_the_closest():
    with pytest.raises(ValueError, match="unknown recipe field 'batchsize'") as raised:
        Recipe().replace(batchsize=3)
    assert all(name in str(raised.value) for name in NAMES)
    assert "Did you mean 'batch_size'?" in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value", "valid", "close"),
    [
        ("dataset", "cifar", DATASETS, "cifar10"),
        ("encoder", "resnet20", ENCODERS, "resnet"),
        ("stem", "smal", STEMS, "small"),
        ("head", "liner", HEADS, "linear"),
        ("objective", "simclear", OBJECTIVES, "simclr"),
        ("loss_form", "release", NTXENT_FORMS, "released"),
        ("update", "alternate", UPDATES, "alternating"),
        ("precision", "float16", PRECISIONS, "float32"),
        ("views", "viewmakr", VIEWS, "viewmaker"),
        ("views", "expert+nois", VIEWS, "noise"),
    ],
)
def test_unknown_name_lists_the_valid_ones_and_the_closest(field, value, valid, close):
    with pytest.raises(ValueError, match=f"unknown {field}") as raised:
        Recipe(**{field: value})
    assert repr(value.split("+")[-1]) in str(raised.value)
    assert all(name in str(raised.value) for name in valid)
    assert f"Did you mean '{close}" in str(raised.value)


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(ValueError, match="choose from a, b") as raised:
        one_of("letter", "zzz", ("a", "b"))
    assert "mean" not in str(raised.value)


@pytest.mark.parametrize("views", ["", "+", "viewmaker+", "expert + noise", None, 3])
def test_views_that_are_not_a_sum_of_known_ones(views):
    with pytest.raises(ValueError, match="unknown views"):
        Recipe(views=views)


@pytest.mark.parametrize("eps", [0, -0.05, math.nan, math.inf, "0.05", True, None])
def test_eps_must_be_a_positive_number(eps):
    with pytest.raises(ValueError, match="eps must be a positive number"):
        Recipe(eps=eps)


@pytest.mark.parametrize("norm", [0, 3, 1.5, -1, math.nan, "two", None])
def test_norm_must_be_one_of_three(norm):
    with pytest.raises(ValueError, match="norm must be one of 1, 2, inf"):
        Recipe(norm=norm)


@pytest.mark.parametrize("value", [0, -1, 2.0, "8", True, math.nan])
@pytest.mark.parametrize("field", ["epochs", "batch_size", "train_size", "encoder_width", "embedding_dim"])
def test_counts_must_be_positive_whole_numbers(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a positive whole number"):
        Recipe(**{field: value})


@pytest.mark.parametrize("field", ["epochs", "batch_size", "encoder_width"])
def test_only_sizes_of_data_may_be_left_open(field):
    with pytest.raises(ValueError, match=f"{field} must be a positive whole number, got None"):
        Recipe(**{field: None})
    assert Recipe(train_size=None, test_size=None, input_size=None).train_size is None


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "0.1", True, None])
@pytest.mark.parametrize("field", ["temperature", "encoder_lr", "viewmaker_lr"])
def test_rates_must_be_positive(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a positive number"):
        Recipe(**{field: value})


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0", True, None])
@pytest.mark.parametrize("field", ["encoder_momentum", "weight_decay"])
def test_momentum_and_decay_may_not_be_negative(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a number from 0 up"):
        Recipe(**{field: value})
    assert getattr(Recipe(**{field: 0}), field) == 0


@pytest.mark.parametrize("value", [-1, 1.0, "1", True, None])
@pytest.mark.parametrize("field", ["seed", "viewmaker_blocks"])
def test_seed_and_blocks_are_whole_numbers(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a whole number from 0 up"):
        Recipe(**{field: value})


# Presets


def test_every_topic_has_the_three_presets():
    assert PRESETS
    assert all(set(presets) >= {"quick", "small", "paper"} for presets in PRESETS.values())


def test_preset_with_changes():
    base = preset("quick")
    assert preset("quick", eps=None, seed=None) == base
    changed = preset("quick", eps=0.3, seed=7)
    assert changed == base.replace(eps=0.3, seed=7)
    assert changed != base


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("papr",), "unknown preset 'papr'; choose from quick, small, paper. Did you mean 'paper'?"),
        (("quick", "image"), "unknown topic 'image'; choose from images.* Did you mean 'images'?"),
    ],
)
def test_unknown_preset_or_topic(arguments, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace("?", r"\?").replace(r"\.*", ".*")):
        preset(*arguments)


def test_unknown_change_of_a_preset():
    with pytest.raises(ValueError, match="unknown recipe field 'ep'"):
        preset("quick", ep=0.1)


def test_paper_preset_is_the_papers_cifar10_column():
    """FACTS, section 1, the table of recipes."""
    expected = {
        "dataset": "cifar10", "train_size": None, "input_size": None, "views": "viewmaker", "eps": 0.05, "norm": 1.0,
        "viewmaker_width": 32, "viewmaker_blocks": 3, "encoder": "resnet18", "encoder_width": 64, "stem": "small",
        "head": "linear", "embedding_dim": 128, "objective": "simclr", "temperature": 0.07, "update": "alternating",
        "epochs": 200, "batch_size": 256, "encoder_lr": 0.03, "encoder_momentum": 0.9, "weight_decay": 1e-4,
        "viewmaker_lr": 1e-3,
    }  # fmt: skip
    paper = dataclasses.asdict(preset("paper", "images"))
    assert {name: paper[name] for name in expected} == expected


def test_quick_presets_need_no_download():
    assert PRESETS["images"]["quick"].dataset == "spirograph"
