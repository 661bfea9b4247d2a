"""Pretraining that a notebook hands to other processes."""

import dataclasses
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from vmlite import distributed
from vmlite import launch as launching
from vmlite.launch import begin, launch, move, pretrain_apart, progress, reason
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
    assert [arguments[:4] for arguments in handed] == (expected if processes > 1 else [])


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
    told = [
        progress(line) for line in ("spectrograms kept\n", "[1]\n", json.dumps({"step": 3, "steps": 8, "loss": 0.5}))
    ]
    assert told[:2] == [None, None]
    bar = tqdm(file=io.StringIO())
    move(bar, told[2])
    assert (bar.n, bar.total) == (3, 8)


def test_the_reason_is_the_last_error_of_a_worker():
    text = (
        "[rank1]: Traceback (most recent call last):\n[rank1]: ValueError: lower it.\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\n"
    )
    assert reason(text) == "ValueError: lower it."
    assert reason("nothing known\n") == "nothing known"


@pytest.fixture
def settings(recipe, tmp_path):
    """Two arms so small that each takes seconds, most of them to start."""
    given = {"dataset": "spirograph", "views": "noise,viewmaker", "train_size": 64, "test_size": 32, "input_size": 12}
    read = read_parameters(namespace(tmp_path, **given, epochs=2, batch_size=16), "images", "02_images")
    arms = tuple(recipe.replace(views=arm.views) for arm in read.arms)
    return dataclasses.replace(read, recipe=recipe, arms=arms)


def weights_of(run):
    return run.encoder.state_dict()


def test_arms_side_by_side_are_those_of_the_notebook(settings, splits):
    threads = torch.get_num_threads()
    background = begin(settings)
    found = background.finish()
    assert found.resume
    assert background.finish() == found
    assert torch.get_num_threads() == threads
    for arm in settings.arms:
        there = train(start(arm, splits.train), settings.checkpoint(arm), resume=True, progress=False)
        here = train(start(arm, splits.train), progress=False)
        assert there.step == there.steps == here.step
        for key, value in weights_of(here).items():
            assert torch.equal(weights_of(there)[key], value)


@pytest.mark.parametrize("why", ["one core", "one arm", "several processes"])
def test_where_side_by_side_saves_nothing_the_notebook_pretrains(why, settings, monkeypatch):
    monkeypatch.setattr(launching, "launch", lambda *arguments: pytest.fail("launched"))
    monkeypatch.setattr(distributed, "cores", lambda: 1 if why == "one core" else 2)
    arms = settings.arms[:1] if why == "one arm" else settings.arms
    alone = dataclasses.replace(settings, arms=arms, processes=2 if why == "several processes" else 1)
    assert begin(alone).finish() == alone


def test_an_arm_that_fails_is_told_once_and_then_the_notebook_pretrains(settings):
    arms = (settings.arms[0], settings.arms[1].replace(batch_size=65))
    background = begin(dataclasses.replace(settings, arms=arms))
    with pytest.raises(RuntimeError, match="with viewmaker failed: ValueError: batch_size is 65"):
        background.finish()
    assert not background.finish().resume


def long(settings):
    """The same arms, each of which would take hours."""
    return dataclasses.replace(settings, arms=tuple(arm.replace(epochs=10**6) for arm in settings.arms))


def test_an_interrupt_ends_the_processes(settings, monkeypatch):
    children = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: children.append(popen(*a, **k)) or children[-1])
    background = begin(long(settings))
    while len(background.told) < 2:
        time.sleep(0.1)
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        background.finish()
    assert [child.poll() is not None for child in children] == [True, True]
    assert not background.finish().resume


def test_a_cell_that_is_run_again_ends_what_it_had_begun(settings):
    first = begin(long(settings))
    second = begin(settings)
    assert first.stopped
    assert not any(worker.is_alive() for worker in first._workers)
    assert second.finish().resume


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_the_processes_end_with_the_kernel(settings, tmp_path):
    recipes = tmp_path / "recipes.json"
    recipes.write_text(json.dumps([arm.to_json() for arm in long(settings).arms]))
    script = f"""
import json, sys, time
from dataclasses import replace
from pathlib import Path
from vmlite import distributed
from vmlite.launch import begin
from vmlite.parameters import read_parameters
from vmlite.recipes import Recipe

distributed.cores = lambda: 2
settings = read_parameters({{"preset": "quick", "device": "cpu", "out_dir": {str(tmp_path)!r}}}, "images", "02_images")
arms = tuple(Recipe.from_json(text) for text in json.loads(Path({str(recipes)!r}).read_text()))
background = begin(replace(settings, arms=arms))
while len(background.told) < 2:
    time.sleep(0.1)
print("running", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout.readline() == "running\n"
        kernel.kill()
    mine = str(tmp_path).encode()
    for _ in range(600):
        left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if mine in _read(p)]
        if not left:
            return
        time.sleep(0.1)
    pytest.fail(f"{len(left)} processes go on without their notebook")


def _read(path):
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
