"""A checkpoint is whole or refused, and belongs to its recipe."""

import io
import itertools
import os

import pytest
import torch

from vmlite import checkpoint
from vmlite.pretrain import pretrain, start


def stepped(recipe, splits, n):
    run = start(recipe, splits.train)
    for _ in itertools.islice(pretrain(run), n):
        pass
    return run


def weights(run):
    return [t.clone() for part in (run.encoder, run.views, run.objective) for t in part.state_dict().values()]


def identical(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_save_then_load_restores_everything(recipe, splits, tmp_path):
    run = stepped(recipe.replace(norm="inf"), splits, 3)
    checkpoint.save(run, tmp_path / "deep" / "run.pt")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["run.pt"]
    other = start(recipe.replace(norm="inf"), splits.train)
    assert not identical(weights(other), weights(run))
    checkpoint.load(other, tmp_path / "deep" / "run.pt")
    assert other.step == 3
    assert identical(weights(other), weights(run))
    assert torch.equal(other.history[:3], run.history[:3])
    for name in ("encoder_optimizer", "viewmaker_optimizer"):
        ours, theirs = other.optimizers[name].state_dict(), run.optimizers[name].state_dict()
        assert ours["param_groups"] == theirs["param_groups"]
        assert ours["state"].keys() == theirs["state"].keys() != set()
        for key, values in theirs["state"].items():
            assert all(
                torch.equal(torch.as_tensor(ours["state"][key][k]), torch.as_tensor(v)) for k, v in values.items()
            )


def test_a_checkpoint_does_not_change_with_the_run_that_wrote_it(recipe, splits, tmp_path):
    run = stepped(recipe, splits, 2)
    checkpoint.save(run, tmp_path / "run.pt")
    before = weights(run)
    next(pretrain(run))
    other = start(recipe, splits.train)
    checkpoint.load(other, tmp_path / "run.pt")
    assert identical(weights(other), before)
    assert not identical(weights(run), before)


def fail_in_the_middle(state, file):
    buffer = io.BytesIO()
    original(state, buffer)
    file.write(buffer.getvalue()[: buffer.tell() // 2])
    raise OSError("no space left on device")


original = torch.save


@pytest.mark.parametrize("failure", ["save", "fsync", "replace"])
def test_a_kill_while_writing_leaves_the_old_file(recipe, splits, tmp_path, monkeypatch, failure):
    file, run = tmp_path / "run.pt", stepped(recipe, splits, 1)
    checkpoint.save(run, file)
    old = weights(run)
    next(pretrain(run))

    def killed(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        if failure == "save":
            patch.setattr(torch, "save", fail_in_the_middle)
        else:
            patch.setattr(os, failure, killed)
        with pytest.raises(OSError, match=r"killed|no space"):
            checkpoint.save(run, file)
    other = start(recipe, splits.train)
    checkpoint.load(other, file)
    assert other.step == 1
    assert identical(weights(other), old)
    checkpoint.save(run, file)  # what the failure left behind is not in the way
    checkpoint.load(other, file)
    assert other.step == 2
    assert identical(weights(other), weights(run))


@pytest.mark.parametrize("damage", ["empty", "half", "last byte", "text", "other", "a list"])
def test_a_damaged_file_is_refused_and_changes_nothing(recipe, splits, tmp_path, damage):
    file = tmp_path / "run.pt"
    checkpoint.save(stepped(recipe, splits, 1), file)
    whole = file.read_bytes()
    if damage in ("other", "a list"):
        torch.save({"weights": torch.ones(2)} if damage == "other" else [1, 2], file)
    else:
        contents = {"empty": b"", "half": whole[: len(whole) // 2], "last byte": whole[:-1], "text": b"{}\n"}
        file.write_bytes(contents[damage])
    run = start(recipe, splits.train)
    before = weights(run)
    with pytest.raises(ValueError, match=r"run\.pt cannot be read .*delete it to start anew"):
        checkpoint.load(run, file)
    assert run.step == 0
    assert identical(weights(run), before)


def test_a_missing_file_is_named(recipe, splits, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.pt"):
        checkpoint.load(start(recipe, splits.train), tmp_path / "nowhere.pt")


def test_another_recipes_checkpoint_is_refused_with_the_differences(recipe, splits, tmp_path):
    file = tmp_path / "run.pt"
    checkpoint.save(stepped(recipe, splits, 1), file)
    run = start(recipe.replace(eps=0.1, objective="instdisc"), splits.train)
    before = weights(run)
    with pytest.raises(ValueError, match="another recipe") as error:
        checkpoint.load(run, file)
    assert "eps is 0.05 there, 0.1 here" in str(error.value)
    assert "objective is 'simclr' there, 'instdisc' here" in str(error.value)
    assert "seed" not in str(error.value)
    assert "viewmaker_width" not in str(error.value)
    assert run.step == 0
    assert identical(weights(run), before)


def test_a_checkpoint_holds_nothing_that_must_be_unpickled(recipe, splits, tmp_path):
    checkpoint.save(stepped(recipe, splits, 1), tmp_path / "run.pt")
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert type(recipe).from_json(state["recipe"]) == recipe
