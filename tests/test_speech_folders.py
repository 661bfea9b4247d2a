"""Speech data sets in their published layouts: which recordings are found, with which labels, and what is refused."""

import csv
import functools
import io
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vmlite.datasets.corpus import cache
from vmlite.datasets.speech_folders import SPEECH_FOLDERS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "spoken-digits"
WAVE = np.arange(-80, 80, dtype=np.int16)


@functools.cache
def encoded(suffix, rate):
    buffer = io.BytesIO()
    soundfile.write(buffer, WAVE, rate, format=suffix[1:].upper(), subtype="PCM_16")
    return buffer.getvalue()


def save(file, rate=16000):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(file.suffix, rate))


def find(dataset, data_dir):
    return SPEECH_FOLDERS[dataset].find(data_dir)


def counts(recordings, *tasks):
    """How many recordings there are of each split and combination of labels."""
    return Counter((r.split, *(r.labels[task] for task in tasks)) for r in recordings)


def librispeech(root, subset, speakers, n=10):
    """`n` recordings in two chapters for each speaker, with their transcripts."""
    for speaker, i in itertools.product(speakers, range(n)):
        chapter = 1000 + i % 2
        folder = root / "LibriSpeech" / subset / speaker / str(chapter)
        save(folder / f"{speaker}-{chapter}-{i:04}.flac")
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(f"{speaker}-{chapter}-{i:04} A WORD\n")
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text("; ID | SEX | SUBSET | MINUTES | NAME\n")


def librispeech_100(root):
    librispeech(root, "train-clean-100", ["19", "1034"], n=20)


def librispeech_960(root):
    for subset, speakers in (
        ("train-clean-100", ["19"]),
        ("train-clean-360", ["100"]),
        ("train-other-500", ["20", "25"]),
    ):
        librispeech(root, subset, speakers, n=20)


def librispeech_dev(root):
    librispeech(root, "dev-clean", ["84", "174"])


def voxceleb1(root):
    rows = []
    for speaker, i in itertools.product(("id10001", "id10270"), range(6)):
        name = f"{speaker}/1zcIwhmdeo4/{i + 1:05}.wav"
        save(root / "wav" / name)
        rows.append(f"{(1, 1, 1, 1, 2, 3)[i]} {name}")
    (root / "iden_split.txt").write_text("\n".join(rows) + "\n")


def speech_commands(root):
    top = root / "SpeechCommands" / "speech_commands_v0.02"
    lists = {"a1b2c3d4": None, "0132a06d": None, "feedbeef": "validation_list.txt", "00aa11bb": "testing_list.txt"}
    rows = {name: [] for name in ("validation_list.txt", "testing_list.txt")}
    for word, (speaker, part), i in itertools.product(("right", "left"), lists.items(), range(2)):
        save(top / word / f"{speaker}_nohash_{i}.wav")
        if part:
            rows[part].append(f"{word}/{speaker}_nohash_{i}.wav")
    for name, lines in rows.items():
        (top / name).write_text("\n".join(lines) + "\n")
    save(top / "_background_noise_" / "pink_noise.wav")
    (top / "README.md").write_text("# Speech Commands Data Set v0.02\n")


def fluent_speech_commands(root):
    top = root / "fluent_speech_commands_dataset"
    intents = [("activate", "lights", "kitchen"), ("increase", "heat", "none"), ("bring", "juice", "none")]
    for split, speakers in {
        "train": ("2BqVo8kVB2Skwgyb", "xRQE5VD7rRHVdyvM"),
        "valid": ("V1",),
        "test": ("T1",),
    }.items():
        rows = []
        for speaker, intent in itertools.product(speakers, intents):
            path = f"wavs/speakers/{speaker}/{split}-{intent[1]}.wav"
            save(top / path)
            rows.append((len(rows), path, speaker, f"Words, said of {intent[1]}", *intent))
        (top / "data").mkdir(exist_ok=True)
        with (top / "data" / f"{split}_data.csv").open("w", newline="") as file:
            header = ("", "path", "speakerId", "transcription", "action", "object", "location")
            csv.writer(file).writerows([header, *rows])


def audio_mnist(root):
    for speaker, digit, i in itertools.product(("01", "02"), range(2), range(10)):
        save(root / "AudioMNIST" / "data" / speaker / f"{digit}_{speaker}_{i}.wav", 48000)
    (root / "AudioMNIST" / "data" / "audioMNIST_meta.txt").write_text("{}")


def spoken_digits(root):
    for speaker, digit, i in itertools.product(("theo", "lucas"), range(2), range(8)):
        save(root / "recordings" / f"{digit}_{speaker}_{i}.wav", 8000)
    save(root / "recordings" / "silence.wav")


def audio_folder(root):
    for split, name, i in itertools.product(("train", "test"), ("cat", "dog"), range(2)):
        save(root / split / name / "deeper" / f"{i}.{('wav', 'FLAC')[i]}")
    (root / "train" / "cat" / "notes.txt").write_text("not a recording")
    save(root / "train" / ".hidden" / "0.wav")


TREES = {
    "librispeech-100": librispeech_100,
    "librispeech-960": librispeech_960,
    "librispeech-dev": librispeech_dev,
    "voxceleb1": voxceleb1,
    "speech-commands": speech_commands,
    "fluent-speech-commands": fluent_speech_commands,
    "audio-mnist": audio_mnist,
    "spoken-digits": spoken_digits,
    "audio-folder": audio_folder,
}


@pytest.fixture
def tree(request, tmp_path):
    """The name of a data set and a small copy of it."""
    TREES[request.param](tmp_path)
    return request.param, tmp_path


each = pytest.mark.parametrize("tree", SPEECH_FOLDERS, indirect=True)


# What is found


@each
def test_recordings_exist_have_all_tasks_and_can_be_cached(tree, tmp_path):
    dataset, data_dir = tree
    recordings = find(dataset, data_dir)
    assert {r.split for r in recordings} == {"train", "test"}
    assert {tuple(sorted(r.labels)) for r in recordings} == {tuple(sorted(SPEECH_FOLDERS[dataset].tasks))}
    assert len({r.file for r in recordings}) == len(recordings)
    corpus = cache(dataset, recordings, tmp_path / "cache", SPEECH_FOLDERS[dataset].sample_rate, progress=False)
    assert len(corpus) == len(recordings)


@each
def test_no_audio_is_read(tree, monkeypatch):
    dataset, data_dir = tree
    monkeypatch.setattr(soundfile, "SoundFile", None)
    assert find(dataset, data_dir) == find(dataset, data_dir)


def test_librispeech_dev_is_split_80_to_20_within_each_speaker(tmp_path):
    librispeech_dev(tmp_path)
    found = find("librispeech-dev", tmp_path)
    assert counts(found, "speaker") == {(s, k): n for k in ("84", "174") for s, n in (("train", 8), ("test", 2))}
    assert all(r.labels["speaker"] == r.file.name.split("-")[0] for r in found)


def test_librispeech_100_and_960_take_their_subsets(tmp_path):
    librispeech_960(tmp_path)
    librispeech(tmp_path, "dev-clean", ["84"])
    librispeech(tmp_path, "train-clean-100", ["26"], n=20)
    speakers = {
        name: {r.labels["speaker"] for r in find(name, tmp_path)} for name in TREES if name[-3:] in ("100", "960")
    }
    assert speakers == {"librispeech-100": {"19", "26"}, "librispeech-960": {"19", "26", "100", "20", "25"}}
    assert counts(find("librispeech-960", tmp_path), "speaker")["test", "100"] == 1


def test_librispeech_window_is_the_papers():
    for name in ("librispeech-100", "librispeech-960", "librispeech-dev"):
        folder = SPEECH_FOLDERS[name]
        assert round(folder.window_seconds * folder.sample_rate) == 150_526


def test_data_dir_may_be_the_data_set_itself(tmp_path):
    for name in ("librispeech-dev", "speech-commands", "fluent-speech-commands", "audio-mnist"):
        TREES[name](tmp_path / name)
        [top] = (tmp_path / name).iterdir()
        inner = top / "speech_commands_v0.02" if name == "speech-commands" else top
        assert find(name, inner) == find(name, tmp_path / name)


def test_voxceleb1_follows_its_list_and_leaves_validation_out(tmp_path):
    voxceleb1(tmp_path)
    found = find("voxceleb1", tmp_path)
    assert counts(found, "speaker") == {
        (s, k): n for k in ("id10001", "id10270") for s, n in (("train", 4), ("test", 1))
    }
    assert {r.file.name for r in found if r.split == "test"} == {"00006.wav"}


def test_speech_commands_follows_its_lists_without_background_noise(tmp_path):
    speech_commands(tmp_path)
    found = find("speech-commands", tmp_path)
    assert counts(found, "word", "speaker") == {
        (split, word, speaker): 2
        for word in ("right", "left")
        for split, speaker in (("train", "a1b2c3d4"), ("train", "0132a06d"), ("test", "00aa11bb"))
    }


def test_fluent_speech_commands_follows_its_tables(tmp_path):
    fluent_speech_commands(tmp_path)
    found = find("fluent-speech-commands", tmp_path)
    assert counts(found) == {("train",): 6, ("test",): 3}
    assert counts(found, "action", "object", "location", "speaker")["test", "increase", "heat", "none", "T1"] == 1
    assert all(r.labels["object"] in r.file.name and r.labels["speaker"] == r.file.parent.name for r in found)


def test_audio_mnist_tests_every_fifth_index_of_each_digit_and_speaker(tmp_path):
    audio_mnist(tmp_path)
    found = find("audio-mnist", tmp_path)
    assert counts(found, "digit", "speaker") == {
        (split, digit, speaker): n
        for digit, speaker, (split, n) in itertools.product("01", ("01", "02"), (("train", 8), ("test", 2)))
    }
    assert {r.file.stem.split("_")[2] for r in found if r.split == "test"} == {"4", "9"}


def test_spoken_digits_tests_the_first_five_indices(tmp_path):
    spoken_digits(tmp_path)
    found = find("spoken-digits", tmp_path)
    assert counts(found, "digit", "speaker") == {
        (split, digit, speaker): n
        for digit, speaker, (split, n) in itertools.product("01", ("theo", "lucas"), (("test", 5), ("train", 3)))
    }


def test_audio_folder_takes_its_two_splits_at_any_depth(tmp_path):
    audio_folder(tmp_path)
    found = find("audio-folder", tmp_path)
    assert counts(found, "class") == {(s, k): 2 for s in ("train", "test") for k in ("cat", "dog")}


def test_audio_folder_without_splits_tests_every_fifth_recording_of_a_class(tmp_path):
    for name, i in itertools.product(("cat", "dog"), range(7)):
        save(tmp_path / name / f"{i}.wav")
    found = find("audio-folder", tmp_path)
    assert [(r.labels["class"], r.file.name) for r in found if r.split == "test"] == [
        ("cat", "4.wav"),
        ("dog", "4.wav"),
    ]
    assert len(found) == 14


# What is refused


@pytest.mark.parametrize("dataset", SPEECH_FOLDERS)
def test_a_missing_folder_is_named_with_what_to_do(dataset, tmp_path):
    hint = SPEECH_FOLDERS[dataset].hint
    with pytest.raises(ValueError, match=f"^{dataset} lacks .*nowhere") as raised:
        find(dataset, tmp_path / "nowhere")
    assert str(raised.value).endswith(hint.replace("{data_dir}", str(tmp_path / "nowhere")))
    assert ("https://" in hint) or ("http://" in hint) or dataset == "audio-folder"


MISSING = [
    ("librispeech-100", "LibriSpeech/train-clean-100"),
    ("librispeech-960", "LibriSpeech/train-other-500"),
    ("librispeech-dev", "LibriSpeech/dev-clean"),
    ("voxceleb1", "iden_split.txt"),
    ("voxceleb1", "wav/id10270"),
    ("speech-commands", "SpeechCommands/speech_commands_v0.02/testing_list.txt"),
    ("speech-commands", "SpeechCommands/speech_commands_v0.02/left/00aa11bb_nohash_1.wav"),
    ("fluent-speech-commands", "fluent_speech_commands_dataset/data/test_data.csv"),
    ("audio-mnist", "AudioMNIST/data"),
    ("spoken-digits", "recordings"),
    ("audio-folder", "test"),
]


@pytest.mark.parametrize(("tree", "gone"), MISSING, indirect=["tree"])
def test_a_missing_split_is_named_with_what_to_do(tree, gone):
    dataset, data_dir = tree
    (data_dir / gone).rename(data_dir / "moved")
    with pytest.raises(ValueError, match=f"^{dataset} lacks .*{gone}. ") as raised:
        find(dataset, data_dir)
    assert SPEECH_FOLDERS[dataset].hint.replace("{data_dir}", str(data_dir)) in str(raised.value)


@each
def test_folders_without_recordings_are_refused(tree):
    dataset, data_dir = tree
    for file in [f for f in data_dir.rglob("*") if f.suffix.lower() in (".wav", ".flac")]:
        file.unlink()
    for file in data_dir.rglob("*_list.txt"):
        file.write_text("")
    for file in data_dir.rglob("*_data.csv"):
        file.write_text("path\n")
    for file in data_dir.rglob("iden_split.txt"):
        file.write_text("")
    with pytest.raises(ValueError, match=f"^{dataset} has no recordings in "):
        find(dataset, data_dir)


def test_a_part_without_recordings_is_refused(tmp_path):
    for name, i in itertools.product(("cat", "dog"), range(4)):
        save(tmp_path / name / f"{i}.wav")
    with pytest.raises(ValueError, match=r"^audio-folder in .* has no test recordings among 8"):
        find("audio-folder", tmp_path)


def test_one_class_is_refused(tmp_path):
    librispeech(tmp_path, "dev-clean", ["84"])
    with pytest.raises(ValueError, match="has one speaker, 84; at least two"):
        find("librispeech-dev", tmp_path)
    for i in range(6):
        save(tmp_path / "one" / "cat" / f"{i}.wav")
    with pytest.raises(ValueError, match="has one class, cat; at least two"):
        find("audio-folder", tmp_path / "one")


def test_test_classes_without_training_recordings_are_refused(tmp_path):
    audio_folder(tmp_path)
    for name in ("eel", "fox", "gnu", "hen"):
        save(tmp_path / "test" / name / "0.wav")
    with pytest.raises(ValueError, match="no training recordings of the class eel, fox, gnu and 1 more"):
        find("audio-folder", tmp_path)


def test_a_speaker_with_test_recordings_alone_is_refused(tmp_path):
    spoken_digits(tmp_path)
    save(tmp_path / "recordings" / "1_jackson_0.wav")
    with pytest.raises(ValueError, match="no training recordings of the speaker jackson"):
        find("spoken-digits", tmp_path)


def test_a_table_without_a_column_is_refused(tmp_path):
    fluent_speech_commands(tmp_path)
    table = tmp_path / "fluent_speech_commands_dataset" / "data" / "test_data.csv"
    table.write_text(table.read_text().replace("speakerId", "who"))
    with pytest.raises(ValueError, match=r"test_data\.csv has no column speakerId"):
        find("fluent-speech-commands", tmp_path)


# Real recordings


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/spoken-digits")
def test_real_spoken_digits(tmp_path):
    recordings = find("spoken-digits", SHARED)
    assert set(counts(recordings, "digit", "speaker").values()) == {5, 45}
    corpus = cache("spoken-digits", recordings, tmp_path, 8000, progress=False)
    seconds = corpus.lengths / 8000
    assert len(corpus) == len(recordings)
    assert 0.3 < seconds.mean() < 0.6
    for i in (0, len(corpus) // 2, len(corpus) - 1):
        wave, rate = soundfile.read(corpus.sources[i], dtype="int16")
        start = corpus.starts[i]
        assert rate == 8000
        np.testing.assert_array_equal(corpus.samples[start : start + corpus.lengths[i]], wave)
