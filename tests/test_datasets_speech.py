"""Windows, spectrograms and splits of speech, on recordings made of numbers that are easy to recognise."""

import math

import pytest
import torch
import torchaudio

from vmlite import datasets
from vmlite.datasets import speech
from vmlite.datasets.base import Options
from vmlite.datasets.corpus import in_memory
from vmlite.datasets.speech import LogMel, SpeechDataset
from vmlite.datasets.synthetic import voices
from vmlite.evaluate import labelled, linear_probe
from vmlite.pretrain import start, train
from vmlite.recipes import preset

RATE = 8000


def corpus(n=12, length=2000, speakers=3):
    """Recording i is a tone of 200 + 100 i Hz; speakers take turns, every fourth recording is for testing."""
    t = torch.arange(length) / RATE
    waves = torch.sin(2 * math.pi * (200 + 100 * torch.arange(n))[:, None] * t)
    labels = {"word": [f"w{i % 2}" for i in range(n)], "speaker": [f"s{i % speakers}" for i in range(n)]}
    parts = ["test" if i % 4 == 3 else "train" for i in range(n)]
    return in_memory((waves * 20000).short(), RATE, labels, parts)


def dataset(made=None, window=1500, size=16, n=12):
    made = made or corpus()
    return SpeechDataset(
        "tones", made, torch.arange(n), {"word": torch.arange(n) % 2}, {"word": ("w0", "w1")}, window, size
    )


@pytest.mark.parametrize(
    ("window", "size"), [(8000, 16), (8000, 32), (8000, 24), (150_526, 64), (150_526, 112), (1500, 16)]
)
def test_spectrograms_are_square_at_any_size(window, size):
    assert LogMel(RATE, window, size)(torch.randn(2, window)).shape == (2, 1, size, size)


@pytest.mark.parametrize(("size", "hop", "frames"), [(64, 2360, 64), (112, 1344, 112)])
def test_the_papers_spectrograms(size, hop, frames):
    mel = LogMel(16_000, 150_526, size).mel
    assert (mel.hop_length, mel.n_fft, mel.n_mels) == (hop, 2048, size)
    assert mel(torch.zeros(1, 150_526)).shape[-1] == frames


def test_decibels_are_ten_log_ten_of_mel_power_above_a_floor():
    wave = 0.3 * torch.randn(1, 1500)
    front_end = LogMel(RATE, 1500, 16, mean=-3.0, std=2.0)
    mel = torchaudio.transforms.MelSpectrogram(RATE, 256, hop_length=94, n_mels=16)(wave)[..., :16]
    torch.testing.assert_close(front_end.decibels(wave)[:, 0], 10 * mel.clamp_min(1e-4).log10())
    torch.testing.assert_close(front_end(wave), (front_end.decibels(wave) + 3) / 2)
    assert (front_end.decibels(torch.zeros(1, 1500)) == -40).all()


def test_a_window_too_short_for_its_spectrogram_is_refused():
    with pytest.raises(ValueError, match="window of 300 samples is too short for 32 time steps; lower input_size"):
        LogMel(RATE, 300, 32)


def test_a_batch_is_cut_at_the_head_unless_random():
    data = dataset()
    index = torch.tensor([5, 0, 5])
    batch = data.batch(index)
    start, samples = data.corpus.starts[5], data.corpus.samples
    assert torch.equal(batch[0], samples[start : start + 1500] / 32768)
    assert torch.equal(batch[0], batch[2])
    assert torch.equal(batch, data.batch(index))


def test_random_cuts_are_heads_and_tails():
    data = dataset()
    start, samples = int(data.corpus.starts[5]), data.corpus.samples
    head, tail = samples[start : start + 1500] / 32768, samples[start + 500 : start + 2000] / 32768
    cuts = data.batch(torch.full((64,), 5), random=True)
    is_head, is_tail = (cuts == head).all(1), (cuts == tail).all(1)
    assert (is_head ^ is_tail).all()
    assert is_head.any()
    assert is_tail.any()


def test_short_recordings_are_followed_by_silence_and_not_by_their_neighbour():
    data = dataset(window=3000)
    for random in (False, True):
        batch = data.batch(torch.tensor([0, 11]), random)
        assert batch.shape == (2, 3000)
        assert (batch[:, 2000:] == 0).all()
        assert (batch[:, 1000:2000] != 0).any(1).all()


@pytest.mark.parametrize("limit", [0, 2**20])
@pytest.mark.parametrize("window", [1500, 2000, 3000])
@pytest.mark.parametrize("random", [False, True])
def test_inputs_are_the_front_end_of_the_same_batch(window, random, limit, monkeypatch):
    monkeypatch.setattr(speech, "CACHE_LIMIT", limit)
    data = dataset(window=window)
    index = torch.arange(12).repeat(3)
    torch.manual_seed(0)
    expected = data.front_end(data.batch(index, random))
    torch.manual_seed(0)
    found = data.inputs(index, random)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=4e-3 if limit else 1e-6)  # kept as float16


def test_inputs_are_normalised_by_the_training_statistics():
    data = dataset()
    inputs = data.inputs(torch.arange(12))
    assert abs(float(inputs.mean())) < 0.01
    assert float(inputs.std()) == pytest.approx(1, abs=0.01)
    test = SpeechDataset("t", corpus(4), torch.arange(4), {}, {}, 1500, 16, data.front_end)
    assert test.front_end is data.front_end


def test_recordings_of_silence_alone_give_finite_inputs():
    silent = in_memory(torch.zeros(4, 2000, dtype=torch.int16), RATE, {}, ["train"] * 4)
    assert SpeechDataset("silence", silent, torch.arange(4), {}, {}, 1500, 16).inputs(torch.arange(4)).isfinite().all()


def test_first_and_to_keep_front_end_and_labels():
    data = dataset()
    part = data.first(5).to(torch.device("cpu"))
    assert len(part) == 5
    assert torch.equal(part.targets["word"], data.targets["word"][:5])
    torch.testing.assert_close(part.inputs(torch.arange(5)), data.inputs(torch.arange(5)))
    assert data.first(None) is data
    with pytest.raises(ValueError, match="13 examples were asked of tones, which has 12"):
        data.first(13)


def test_without_held_out_speakers_the_split_is_the_corpus_own():
    train_set, test_set = speech.split("tones", corpus(), Options(input_size=16), 0.2)
    assert (len(train_set), len(test_set)) == (9, 3)
    for part in (train_set, test_set):
        for task, labels in part.corpus.labels.items():
            assert [part.classes[task][y] for y in part.targets[task]] == [labels[i] for i in part.rows]
    assert test_set.front_end is train_set.front_end


def test_held_out_speakers_are_only_tested_and_only_on_the_other_tasks():
    made = corpus()
    train_set, test_set = speech.split("tones", made, Options(input_size=16, held_out="s1"), 0.2)
    assert train_set.classes["speaker"] == ("s0", "s2")
    assert all(made.labels["speaker"][i] != "s1" for i in train_set.rows)
    who = [made.labels["speaker"][i] for i in test_set.rows]
    assert who.count("s1") == 4
    for name, word, speaker in zip(who, test_set.targets["word"], test_set.targets["speaker"], strict=True):
        assert (word >= 0) == (name == "s1")
        assert (speaker >= 0) == (name != "s1")


def test_a_task_without_test_examples_is_dropped():
    made = corpus()
    made.labels["speaker"][:] = [
        f"train {i % 2}" if part == "train" else "tester" for i, part in enumerate(made.splits)
    ]
    for part in speech.split("tones", made, Options(input_size=16), 0.2):
        assert list(part.targets) == list(part.classes) == ["word"]


def test_a_window_longer_than_the_silence_after_the_last_recording_is_refused():
    with pytest.raises(ValueError, match=r"window_seconds must be at most 32.768 at 8000 Hz"):
        dataset(window=300_000)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [("s7", "held_out names s7; the speakers are s0, s1, s2"), ("s0,s1,s2", "0 training and 12 test recordings")],
)
def test_impossible_held_out_speakers(held_out, message):
    with pytest.raises(ValueError, match=message):
        speech.split("tones", corpus(), Options(input_size=16, held_out=held_out), 0.2)


def test_voices_are_split_by_speaker():
    train_set, test_set = datasets.load("voices", input_size=16, train_size=40, test_size=20)
    assert (len(train_set), len(test_set)) == (40, 20)
    assert train_set.shape == (1, 16, 16)
    assert set(train_set.classes["word"]) <= set(voices.WORDS)
    assert set(train_set.classes["speaker"]) <= set(voices.SPEAKERS[:8])
    heard = test_set.targets["speaker"] >= 0
    assert heard.sum() == 10
    assert torch.equal(heard, test_set.targets["word"] < 0)
    again = datasets.load("voices", input_size=16, train_size=40, test_size=20).train
    assert torch.equal(again.batch(torch.arange(40)), train_set.batch(torch.arange(40)))


@pytest.mark.parametrize("options", [{"sample_rate": 16_000}, {"window_seconds": 2.0}])
def test_voices_have_one_rate_and_length(options):
    with pytest.raises(ValueError, match="voices are one second at 8000 Hz; leave sample_rate and window_seconds out"):
        datasets.load("voices", train_size=40, test_size=20, **options)


@pytest.mark.parametrize(("topic", "dataset"), [("quick", "voices"), ("small", "spoken-digits")])
def test_thin_presets_leave_rate_and_window_to_the_data(topic, dataset):
    recipe = preset(topic, "speech")
    assert (recipe.dataset, recipe.sample_rate, recipe.window_seconds) == (dataset, None, None)


def test_recordings_options_are_refused_for_images():
    with pytest.raises(ValueError, match="are for recordings; spirograph has images"):
        datasets.load("spirograph", held_out="v01")


@pytest.mark.parametrize("views", ["noise", "viewmaker", "expert:time", "expert:spectral", "expert:time+viewmaker"])
def test_a_training_step_with_each_kind_of_views(views):
    tiny = preset("quick", "speech", train_size=32, test_size=8, input_size=16, epochs=1, batch_size=16, encoder_width=4,
                  viewmaker_width=4, embedding_dim=8, device="cpu", views=views)  # fmt: skip
    data = datasets.load("voices", input_size=16, train_size=32, test_size=8)
    run = train(start(tiny, data.train), progress=False)
    assert run.history.isfinite().all()
    assert run.raw_views == ("time" in views)


def test_expert_views_of_another_modality_are_refused():
    data = datasets.load("voices", input_size=16, train_size=32, test_size=8)
    with pytest.raises(ValueError, match="views 'expert' are not for speech, whose experts are expert:time"):
        start(preset("quick", "speech", batch_size=16, views="expert"), data.train)


@pytest.mark.parametrize("name", ["voices", "voices-shuffled"])
def test_what_precedes_a_word_does_not_tell_it(name):
    """Words and everything else about a clip are drawn independently: 50 ms of background say nothing about the word."""
    train_set, test_set = datasets.load(name, input_size=16, train_size=1500, test_size=1000)

    def background(data, index):
        return torch.fft.rfft(data.batch(index)[:, :400]).abs().clamp_min(1e-5).log()

    parts = [(part, labelled(part, "word")) for part in (train_set, test_set)]
    (x, y), (x_test, y_test) = [(background(part, index), part.targets["word"][index]) for part, index in parts]
    assert linear_probe(x, y, x_test, y_test) < 18
