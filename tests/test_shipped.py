"""The trained networks that come with the package: small, whole, of their recipes, and trained indeed."""

import functools
import json
import os
from importlib import resources
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

from vmlite import shipped
from vmlite.build import build_encoder, build_views
from vmlite.evaluate import extract, linear_probe
from vmlite.pretrain import load_data, seeded, start
from vmlite.recipes import Recipe
from vmlite.shipped import BUDGETS, FOLDER, SHIPPED, load, save

KEPT = Path(__file__).resolve().parent.parent / "notebooks" / "results" / "04_sensors"
WITH_ENCODER = [name for name in SHIPPED if name not in BUDGETS]
FILES = [f"{name}.viewmaker" for name in SHIPPED] + [f"{name}.encoder" for name in WITH_ENCODER]


@pytest.fixture
def tiny(recipe, splits, tmp_path, monkeypatch):
    """A run of `recipe` that is shipped as "tiny" from an empty folder; its batch statistics are not the initial ones."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    monkeypatch.setitem(SHIPPED, "tiny", recipe)
    run = start(recipe, splits.train)
    run.encoder(splits.train.inputs(torch.arange(32)))
    return run


def contents(file):
    with safetensors.safe_open(file, "pt") as stored:
        return stored.metadata(), {key: stored.get_tensor(key) for key in list(stored.keys())}


# The files in the package


def test_the_folder_holds_these_files_and_no_others():
    assert sorted(file.name for file in FOLDER.iterdir()) == sorted(f"{name}.safetensors" for name in FILES)
    assert resources.files("vmlite").joinpath("weights", "spirograph.encoder.safetensors").is_file()


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_is_small_finite_and_of_the_recipe_of_its_name(name):
    """Where the recipe differs, a preset has changed since: `make weights`."""
    file = FOLDER / f"{name}.safetensors"
    assert file.stat().st_size < 1_000_000
    about, weights = contents(file)
    assert Recipe.from_json(about["recipe"]) == SHIPPED[name.rpartition(".")[0]]
    assert about["torch"]
    assert all(value.isfinite().all() for value in weights.values())
    assert {value.dtype for value in weights.values()} <= {torch.float16, torch.int64}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_viewmaker_makes_views_within_the_budget_of_its_recipe(name, generator):
    state = torch.get_rng_state()
    made = load(name)
    assert torch.equal(torch.get_rng_state(), state)
    about, _ = contents(FOLDER / f"{name}.viewmaker.safetensors")
    x = torch.rand(4, *json.loads(about["inputs"])["shape"], generator=generator)
    assert made.recipe == SHIPPED[name]
    assert x.shape[2:] == (made.recipe.input_size,) * 2
    assert made.viewmaker.clamp == ((0, 1) if name == "spirograph" else None)
    assert not made.viewmaker.training
    with torch.no_grad():
        views = made.viewmaker(x)
        size = (views - x).abs().flatten(1).mean(1)
    assert views.shape == x.shape
    assert views.dtype == torch.float32
    if made.viewmaker.clamp:
        assert (size <= made.recipe.eps * 1.0001).all()
        assert 0 <= views.min() <= views.max() <= 1
    else:
        torch.testing.assert_close(size, torch.full((4,), made.recipe.eps), rtol=2e-5, atol=0)  # of rounding
    if name in BUDGETS:
        assert made[2:] == (None, None, None)
    else:
        assert not made.encoder.training
        with torch.no_grad():
            assert made.encoder(views).shape == (4, made.recipe.embedding_dim)


@pytest.mark.parametrize("run", ["eps0.02", "eps0.05", "eps0.1", "seed0", "eps0.5", "eps2.0"])
def test_the_sweep_is_that_of_notebook_04(run):
    kept = json.loads((KEPT / f"quick-{run}" / "results.json").read_text())["recipe"]
    there = Recipe.from_json(json.dumps(kept))
    assert SHIPPED[f"motions-eps{there.eps}"] == there.replace(device="cpu")


@functools.cache
def examples(name):
    """48 inputs of the data set of a shipped encoder, and the training set that they come with."""
    data = load_data(SHIPPED[name].replace(train_size=48, test_size=48))
    return data.test.inputs(torch.arange(48)), data.train


def similarities(encoder, views, x):
    """Cosine similarities (N, N) of the embeddings of two views of each example."""
    first, second = (F.normalize(encoder(views(x))) for _ in range(2))
    return first @ second.T


@pytest.mark.parametrize("name", WITH_ENCODER)
@torch.no_grad()
def test_a_shipped_encoder_tells_apart_examples_that_an_untrained_one_confuses(name):
    made, (_, train) = load(name), examples(name)
    test = load_data(SHIPPED[name].replace(train_size=48, test_size=384)).test
    batches = [test.inputs(index) for index in torch.arange(384).split(48)]

    def loss(encoder):  # at the paper's temperature for all: at that of motions no loss is small
        return sum(F.cross_entropy(similarities(encoder, made.viewmaker, x) / 0.07, torch.arange(48)) for x in batches)

    with seeded("test"):
        untrained = build_encoder(made.recipe, train)
        untrained(train.inputs(torch.arange(48)))
        assert loss(made.encoder) < 0.3 * loss(untrained.eval())


@pytest.mark.parametrize("name", SHIPPED)
@torch.no_grad()
def test_views_of_a_shipped_viewmaker_vary_more_for_the_encoder_than_those_of_untrained_ones(name):
    topic = name.partition("-")[0]
    made, encoder, (x, train) = load(name), load(topic).encoder, examples(topic)
    with seeded("test"):
        trained = similarities(encoder, made.viewmaker, x).diag().mean()
        for _ in range(3):
            assert trained < similarities(encoder, build_views(made.recipe, train), x).diag().mean()


# Save and load


def test_what_is_saved_is_loaded_up_to_half_precision(tiny, splits):
    networks = {"viewmaker": tiny.views[0], "encoder": tiny.encoder}
    before = {kind: {k: v.clone() for k, v in network.state_dict().items()} for kind, network in networks.items()}
    save("tiny", tiny, splits.test)
    made = load("tiny")
    assert made.recipe == tiny.recipe
    for kind, old in before.items():
        new = getattr(made, kind).state_dict()
        assert new.keys() == old.keys()
        for key, value in old.items():
            assert torch.equal(new[key], value.half().float() if value.is_floating_point() else value), key
    x = splits.test.inputs(torch.arange(8))
    noise = made.viewmaker.draw_noise(x)
    tiny.encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(made.viewmaker(x, noise), tiny.views[0](x, noise))
        torch.testing.assert_close(made.encoder(x), tiny.encoder(x))


def test_the_accuracy_is_that_of_the_weights_in_the_file(tiny, splits):
    save("tiny", tiny, splits.test)
    made = load("tiny")
    part = extract(made.encoder, splits.train), extract(made.encoder, splits.test)
    y, y_test = (part.targets["class"] for part in splits)
    assert made.task == "class"
    assert made.accuracy == pytest.approx(linear_probe(part[0], y, part[1], y_test), abs=1e-4)
    about, _ = contents(shipped.FOLDER / "tiny.encoder.safetensors")
    assert about["n"] == "32"


def test_without_test_examples_the_viewmaker_is_saved_alone(tiny):
    save("tiny", tiny)
    assert [file.name for file in shipped.FOLDER.iterdir()] == ["tiny.viewmaker.safetensors"]


def test_a_kill_while_writing_leaves_the_old_file(tiny, monkeypatch):
    save("tiny", tiny)
    file = shipped.FOLDER / "tiny.viewmaker.safetensors"
    old = file.read_bytes()
    torch.nn.init.zeros_(tiny.views[0].out.weight)

    def killed(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(OSError, match="killed"):
            save("tiny", tiny)
    assert file.read_bytes() == old
    save("tiny", tiny)
    assert not contents(file)[1]["out.weight"].any()
    assert [file.name for file in shipped.FOLDER.iterdir()] == ["tiny.viewmaker.safetensors"]


# What is refused


def test_an_unknown_name_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="unknown shipped network 'spiro'; choose from spirograph, voices, motions, "):
        load("spiro")


@pytest.mark.parametrize("kind", ["viewmaker", "encoder"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "text", "no metadata"])
def test_a_damaged_file_is_named_with_the_mend(tiny, splits, kind, damage):
    save("tiny", tiny, splits.test)
    file = shipped.FOLDER / f"tiny.{kind}.safetensors"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "no metadata":
        file.write_bytes(safetensors.torch.save(contents(file)[1]))
    else:
        file.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"weights"}[damage])
    reason = "is missing" if damage == "missing" else "cannot be read"
    with pytest.raises(ValueError, match=rf"tiny\.{kind}\.safetensors {reason}.*; make it again with `make weights`"):
        load("tiny")


@pytest.mark.parametrize(("kind", "change"), [("viewmaker", "viewmaker_width"), ("encoder", "encoder_width")])
def test_weights_that_do_not_fit_their_recipe_are_refused(tiny, splits, kind, change):
    save("tiny", tiny, splits.test)
    file = shipped.FOLDER / f"tiny.{kind}.safetensors"
    about, weights = contents(file)
    about["recipe"] = tiny.recipe.replace(**{change: 6}).to_json()
    file.write_bytes(safetensors.torch.save(weights, about))
    with pytest.raises(ValueError, match=rf"tiny\.{kind}\.safetensors holds weights that do not fit its recipe"):
        load("tiny")


# Making them


def test_main_trains_what_is_named(tiny, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["vmlite.shipped", "tiny"])
    shipped.main()
    made = load("tiny")
    assert (made.viewmaker.out.weight - tiny.views[0].out.weight).abs().max() > 1e-3
    assert 0 <= made.accuracy <= 100
    assert "tiny: 8 steps" in capsys.readouterr().out


def test_main_refuses_an_unknown_name_before_any_training(tiny, monkeypatch):
    monkeypatch.setattr("sys.argv", ["vmlite.shipped", "tiny", "tinny"])
    with pytest.raises(ValueError, match="unknown shipped network 'tinny'"):
        shipped.main()
    assert not shipped.FOLDER.exists()
