"""The paper's speech recipes, at full size, on a generated tree in LibriSpeech's layout."""

import numpy as np
import pytest
import soundfile
import torch

from vmlite import checkpoint
from vmlite.datasets import speech
from vmlite.pretrain import load_data, pretrain, start
from vmlite.recipes import preset

SUBSETS = {"paper": ["train-clean-100"], "paper-960": ["train-clean-100", "train-clean-360", "train-other-500"]}


def write_librispeech(folder, subsets):
    """Two speakers in each subset, 20 recordings each, the 20th of which is for testing."""
    generator = np.random.default_rng(0)
    for number, subset in enumerate(subsets):
        for speaker in (str(2 * number + 1), str(2 * number + 2)):
            chapter = folder / "LibriSpeech" / subset / speaker / "7"
            chapter.mkdir(parents=True)
            for i in range(20):
                wave = 0.1 * generator.standard_normal(4000)
                soundfile.write(chapter / f"{speaker}-7-{i:04d}.flac", wave, 16_000)


@pytest.mark.parametrize("name", SUBSETS)
def test_the_papers_runs_start_step_and_resume(name, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "project_path", lambda path: tmp_path / path)
    write_librispeech(tmp_path, SUBSETS[name])
    recipe = preset(name, "speech", data_dir=str(tmp_path), train_size=4, batch_size=2, epochs=1, device="cpu")
    data = load_data(recipe)
    side = {"paper": 64, "paper-960": 112}[name]
    assert data.train.shape == (1, side, side)
    assert len(data.train.classes["speaker"]) == 2 * len(SUBSETS[name])

    whole = start(recipe, data.train)
    steps = pretrain(whole)
    next(steps)
    checkpoint.save(whole, tmp_path / "half.pt")
    next(steps)
    resumed = start(recipe, data.train)
    checkpoint.load(resumed, tmp_path / "half.pt")
    next(pretrain(resumed))
    assert whole.step == resumed.step == whole.steps == 2
    assert whole.history.isfinite().all()
    assert torch.equal(whole.history, resumed.history)
    for a, b in zip(whole.views.parameters(), resumed.views.parameters(), strict=True):
        assert torch.equal(a, b)
