"""Pretraining that a notebook hands to torchrun."""

import io
import json

import pytest
import torch
from tqdm import tqdm

from vmlite import distributed
from vmlite import launch as launching
from vmlite.launch import launch, pretrain_apart, reason, show
from vmlite.parameters import read_parameters
from vmlite.pretrain import start, train


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(distributed, "cores", lambda: 2)


def namespace(tmp_path, **given):
    return {"preset": "quick", "out_dir": str(tmp_path), "device": "cpu", **given}


def test_a_notebook_goes_on_from_what_two_processes_trained(recipe, splits, tmp_path):
    file = tmp_path / "viewmaker.pt"
    launch(recipe, file, 2)
    run = train(start(recipe, splits.train), file, resume=True, progress=False)
    assert run.step == run.steps
    assert run.history.isfinite().all()
    for key, value in torch.load(file)["encoder"].items():
        assert torch.equal(run.encoder.state_dict()[key], value)


def test_what_went_wrong_in_the_processes_is_told(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "RESTARTS", 0)
    with pytest.raises(RuntimeError, match="on 2 processes failed: ValueError: batch_size 15 does not divide into 2"):
        launch(recipe.replace(batch_size=15), tmp_path / "viewmaker.pt", 2)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_arm_is_handed_over_with_more_than_one_process(processes, tmp_path, monkeypatch):
    handed = []
    monkeypatch.setattr(launching, "launch", lambda *arguments: handed.append(arguments))
    settings = read_parameters(namespace(tmp_path, processes=processes), "images", "02_images")
    found = pretrain_apart(settings)
    assert found.resume == (processes > 1)
    expected = [(arm, settings.checkpoint(arm), 2, False) for arm in settings.arms]
    assert handed == (expected if processes > 1 else [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 0}, "processes must be a whole number from 1, got 0"),
        ({"processes": 4096}, "processes is 4096, but there are"),
        ({"processes": 2, "batch_size": 33}, "batch_size 33 does not divide into 2"),
        ({"compile": "perhaps"}, "compile must be true or false"),
    ],
)
def test_parameters_that_cannot_be_met_are_refused_before_anything_starts(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_parameters(namespace(tmp_path, **given), "images", "02_images")


def test_compile_comes_from_papermills_text(tmp_path):
    assert read_parameters(namespace(tmp_path, compile="true"), "images", "02_images").recipe.compile is True


def test_progress_lines_move_the_bar_and_others_do_not():
    bar = tqdm(file=io.StringIO())
    for line in ("spectrograms kept\n", "[1]\n", json.dumps({"step": 3, "steps": 8, "loss": 0.5})):
        show(bar, line)
    assert (bar.n, bar.total) == (3, 8)


def test_the_reason_is_the_last_error_of_a_worker():
    text = (
        "[rank1]: Traceback (most recent call last):\n[rank1]: ValueError: lower it.\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\n"
    )
    assert reason(text) == "ValueError: lower it."
    assert reason("nothing known\n") == "nothing known"
