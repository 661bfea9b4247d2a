"""The cache of recordings: what is read, what is refused, what is done again."""

import dataclasses
import json
import multiprocessing
import re
import time

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmlite.datasets import corpus as module
from vmlite.datasets.corpus import Recording, cache, in_memory, verify
from vmlite.datasets.corpus_files import LOOK_AHEAD, PADDING

RATE = 8000


def noise(seed, length=400):
    return np.random.default_rng(seed).integers(-3000, 3000, length, dtype=np.int16)


@pytest.fixture
def recordings(tmp_path):
    """Twelve recordings of 400 to 455 samples: files, labels, splits."""
    made = []
    for i in range(12):
        file = tmp_path / "audio" / f"{i:02}.{('wav', 'flac')[i % 2]}"
        file.parent.mkdir(exist_ok=True)
        soundfile.write(file, noise(i, 400 + 5 * i), RATE, subtype="PCM_16")
        made.append(Recording(file, {"word": "ab"[i % 2], "speaker": f"s{i % 3}"}, "test" if i > 8 else "train"))
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def made(recordings, folder, **options):
    return cache("voices", recordings, folder, options.pop("rate", RATE), progress=False, **options)


def recording(corpus, i):
    return corpus.samples[corpus.starts[i] : corpus.starts[i] + corpus.lengths[i]].numpy()


def one(file, wave, rate=RATE, subtype="PCM_16"):
    """A recording of `wave`, and a second, plain one."""
    soundfile.write(file, wave, rate, subtype=subtype)
    other = file.with_name("other.wav")
    soundfile.write(other, noise(99), RATE)
    return [Recording(file, {"word": "a"}), Recording(other, {"word": "b"})]


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read, and a set of those at which reading is interrupted."""
    names, stops, read = [], set(), module.read_audio

    def counted(file, rate):
        name = file.rsplit("/", 1)[-1]
        if name in stops:
            raise KeyboardInterrupt
        names.append(name)
        return read(file, rate)

    monkeypatch.setattr(module, "read_audio", counted)
    return names, stops


# What is read


def test_corpus_holds_every_sample_label_and_split(recordings, folder):
    corpus = made(recordings, folder)
    assert len(corpus) == 12
    for i in range(12):
        np.testing.assert_array_equal(recording(corpus, i), noise(i, 400 + 5 * i))
    assert corpus.labels == {"word": list("ab") * 6, "speaker": ["s0", "s1", "s2"] * 4}
    assert corpus.splits == ["train"] * 9 + ["test"] * 3
    assert corpus.sources == [str(r.file) for r in recordings]
    assert (corpus.samples.dtype, corpus.sample_rate) == (torch.int16, RATE)
    assert len(corpus.samples) == corpus.lengths.sum() + PADDING
    assert not corpus.samples[-PADDING:].any()


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    window=st.integers(1, 40),
    tail=st.integers(0, 1),
)
def test_windows_are_head_or_tail_with_silence_behind(lengths, window, tail):
    """Against plain slicing of each recording."""
    waves = torch.randint(-999, 999, (len(lengths), 30), generator=torch.Generator().manual_seed(0)).short()
    corpus = dataclasses.replace(in_memory(waves, RATE, {}, ["train"] * len(lengths)), lengths=torch.tensor(lengths))
    rows = torch.arange(len(lengths))
    cut = corpus.windows(rows, window, torch.full_like(rows, tail))
    for row, length in zip(rows.tolist(), lengths, strict=True):
        whole = waves[row, :length].float() / 32768
        expected = whole[-window:] if tail else whole[:window]
        torch.testing.assert_close(cut[row], torch.nn.functional.pad(expected, (0, window - len(expected))))


def test_windows_reach_past_the_last_recording(recordings, folder):
    cut = made(recordings, folder).windows(torch.tensor([11]), 2000, torch.tensor([1]))
    np.testing.assert_allclose(cut[0, :455], noise(11, 455) / 32768)
    assert not cut[0, 455:].any()


def test_windows_of_a_file_are_asked_for_ahead_and_are_those_of_memory(recordings, folder):
    mapped = made(recordings, folder)
    assert mapped.mapped is not None
    loaded = dataclasses.replace(mapped, samples=mapped.samples.clone(), mapped=None)
    rows, tail = torch.arange(len(mapped)), torch.ones(len(mapped), dtype=torch.long)
    assert torch.equal(mapped.windows(rows, 300, tail), loaded.windows(rows, 300, tail))


@pytest.mark.parametrize(("memory", "stays"), [(10, True), (10**9, False)])
def test_a_file_moves_to_a_device_only_where_it_fits(memory, stays, recordings, folder, monkeypatch):
    monkeypatch.setattr(module, "total_memory", lambda device: memory)
    mapped = made(recordings, folder)
    assert (mapped.to(torch.device("cpu")) is mapped) == stays
    assert (mapped.to(torch.device("meta")).samples.device.type == "cpu") == stays


def test_floats_become_int16_by_rounding_and_clipping():
    waves = torch.tensor([[0.5, -1.0, 1.0, 1.5, 0.4 / 32768, 0.6 / 32768]])
    corpus = in_memory(waves, RATE, {"word": ["a"]}, ["train"])
    assert corpus.samples[:6].tolist() == [16384, -32768, 32767, 32767, 0, 1]
    assert len(corpus.samples) == 6 + PADDING


def test_stereo_is_averaged(tmp_path, folder):
    left, right = noise(1).astype(int), noise(2).astype(int)
    corpus = made(one(tmp_path / "stereo.wav", np.stack([left, right], 1).astype(np.int16)), folder)
    assert np.abs(recording(corpus, 0) - (left + right) / 2).max() <= 0.5


def test_floats_beyond_one_are_clipped_not_wrapped(tmp_path, folder):
    wave = np.array([0.25, 1.7, -1.7, 1.0], np.float32)
    corpus = made(one(tmp_path / "loud.wav", wave, subtype="FLOAT"), folder)
    assert recording(corpus, 0).tolist() == [8192, 32767, -32768, 32767]


@pytest.mark.parametrize("rate", [16000, 11025, 4000])
def test_other_rates_are_resampled(tmp_path, folder, rate):
    """A tone keeps its pitch and its loudness, and its length in seconds."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    wave = recording(made(one(tmp_path / "tone.wav", tone, rate), folder), 0) / 32768
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert len(wave) == RATE
    np.testing.assert_allclose(wave[200:-200], expected[200:-200], atol=0.01)


def test_the_same_file_may_appear_twice(recordings, folder):
    twice = [*recordings[:2], dataclasses.replace(recordings[0], split="test")]
    corpus = made(twice, folder)
    assert corpus.splits == ["train", "train", "test"]
    np.testing.assert_array_equal(recording(corpus, 2), noise(0, 400))


# Opened again, or made again


def test_a_finished_cache_is_opened_without_reading_audio(recordings, folder, reads, capsys):
    first = made(recordings, folder)
    assert len(reads[0]) == 12
    again = made(recordings, folder)
    assert len(reads[0]) == 12
    assert torch.equal(first.samples, again.samples)
    assert torch.equal(first.starts, again.starts)
    assert capsys.readouterr().out == ""
    assert sorted(f.suffix for f in folder.iterdir()) == [".int16", ".jsonl", ".lock"]


def test_index_states_source_label_and_place(recordings, folder):
    made(recordings, folder)
    header, *lines = map(json.loads, (folder / "voices.jsonl").read_text().splitlines())
    assert (header["sample_rate"], header["recordings"], len(lines)) == (RATE, 12, 12)
    assert lines[1]["file"] == str(recordings[1].file)
    assert lines[1]["labels"] == {"word": "b", "speaker": "s1"}
    assert (lines[1]["start"], lines[1]["length"], lines[1]["split"]) == (400, 405, "train")


def test_caches_of_two_names_share_a_folder(recordings, folder):
    a = cache("audio-folder:a", recordings[:3], folder, RATE, progress=False)
    b = cache("audio-folder:b", recordings[3:5], folder, RATE, progress=False)
    assert (len(a), len(b), len(made(recordings, folder))) == (3, 2, 12)
    assert len(cache("audio-folder:a", recordings[:3], folder, RATE, progress=False)) == 3


def change_rate(recordings):
    return recordings, 4000


def change_list(recordings):
    return recordings[1:], RATE


def change_source(recordings):
    soundfile.write(recordings[3].file, noise(50, 700), RATE)
    return recordings, RATE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_rate, "made at 8000 Hz and 4000 Hz are asked"),
        (change_list, "the list of recordings has changed"),
        (change_source, "sources have changed in size: .*03.flac"),
    ],
)
def test_a_cache_of_other_settings_is_made_again_and_says_why(recordings, folder, capsys, change, reason):
    made(recordings, folder)
    changed, rate = change(recordings)
    corpus = made(changed, folder, rate=rate)
    assert re.match(f"voices: the cache is made again, because .*{reason}", capsys.readouterr().out)
    fresh = made(changed, folder / "fresh", rate=rate)
    assert torch.equal(corpus.samples, fresh.samples)
    assert torch.equal(corpus.starts, fresh.starts)
    assert corpus.sample_rate == rate


def test_new_labels_need_no_reading(recordings, folder, reads):
    made(recordings, folder)
    renamed = [dataclasses.replace(r, labels={"mood": "calm"}, split="test") for r in recordings]
    corpus = made(renamed, folder)
    assert len(reads[0]) == 12
    assert corpus.labels == {"mood": ["calm"] * 12}
    assert corpus.splits == ["test"] * 12
    assert '"mood": "calm"' in (folder / "voices.jsonl").read_text()


def cut_data(folder):
    with (folder / "voices.int16").open("r+b") as file:
        file.truncate(1000)


def drop_data(folder):
    (folder / "voices.int16").unlink()


def flip_data(folder):
    with (folder / "voices.int16").open("r+b") as file:
        file.seek(900)
        file.write(b"\x01\x02\x03")


def cut_index(folder):
    text = (folder / "voices.jsonl").read_text()
    (folder / "voices.jsonl").write_text(text[: len(text) // 2])


def spoil_index(folder):
    (folder / "voices.jsonl").write_bytes(b"\xff\x00 not an index")


DAMAGE = {
    cut_data: "its samples have 1000 of",
    drop_data: "its samples have 0 of",
    flip_data: "damaged: .*01.flac",
    cut_index: "its index has .* of 12",
    spoil_index: "its index is damaged",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_again_and_says_why(recordings, folder, capsys, damage):
    whole = made(recordings, folder).samples.clone()
    damage(folder)
    assert torch.equal(made(recordings, folder).samples, whole)
    assert re.match(f"voices: the cache is made again, because .*{DAMAGE[damage]}", capsys.readouterr().out)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_refused_where_the_sources_are_gone(recordings, folder, damage):
    made(recordings, folder)
    damage(folder)
    recordings[5].file.unlink()
    with pytest.raises(ValueError, match=rf"cannot be used \(.*{DAMAGE[damage]}.*sources are missing: .*05\.flac"):
        made(recordings, folder)


def test_a_sound_cache_serves_without_its_sources(recordings, folder):
    made(recordings, folder)
    for r in recordings:
        r.file.unlink()
    np.testing.assert_array_equal(recording(made(recordings, folder), 7), noise(7, 435))


def test_verify_finds_damage_that_the_size_does_not_show(recordings, folder):
    made(recordings, folder)
    assert verify("voices", folder) == []
    flip_data(folder)
    assert verify("voices", folder) == [str(recordings[1].file)]


def test_verify_needs_a_finished_cache(recordings, folder):
    with pytest.raises(ValueError, match=r"no complete cache of voices .*never finished"):
        verify("voices", folder)
    made(recordings, folder)
    cut_data(folder)
    with pytest.raises(ValueError, match=r"no complete cache of voices .*1000 of"):
        verify("voices", folder)


# Interrupted


def interrupted(recordings, folder, reads, name):
    reads[1].add(name)
    with pytest.raises(KeyboardInterrupt):
        made(recordings, folder)
    reads[1].clear()
    assert not (folder / "voices.jsonl").exists()


def test_an_interrupted_cache_goes_on_where_it_stopped(recordings, folder, reads):
    interrupted(recordings, folder, reads, "10.wav")
    assert "09.flac" in reads[0]
    reads[0].clear()
    corpus = made(recordings, folder)
    assert sorted(reads[0]) == ["10.wav", "11.flac"]
    for i in range(12):
        np.testing.assert_array_equal(recording(corpus, i), noise(i, 400 + 5 * i))
    assert len(corpus.samples) == corpus.lengths.sum() + PADDING
    assert verify("voices", folder) == []


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_half_written_records_are_read_again(recordings, folder, reads, cut):
    """What a killed process leaves: samples without a line, and half a line."""
    interrupted(recordings, folder, reads, "10.wav")
    with (folder / "voices.int16.part").open("ab") as file:
        file.write(b"half a recording")
    text = (folder / "voices.jsonl.part").read_text()
    (folder / "voices.jsonl.part").write_text(text[:-cut])
    corpus = made(recordings, folder)
    for i in range(12):
        np.testing.assert_array_equal(recording(corpus, i), noise(i, 400 + 5 * i))
    assert len(corpus.samples) == corpus.lengths.sum() + PADDING


def test_lines_without_their_samples_are_read_again(recordings, folder, reads):
    interrupted(recordings, folder, reads, "10.wav")
    with (folder / "voices.int16.part").open("r+b") as file:
        file.truncate(2 * 1000)
    reads[0].clear()
    corpus = made(recordings, folder)
    assert len(reads[0]) == 10
    assert verify("voices", folder) == []
    np.testing.assert_array_equal(recording(corpus, 11), noise(11, 455))


def test_an_interrupted_cache_of_another_rate_is_not_continued(recordings, folder, reads):
    interrupted(recordings, folder, reads, "10.wav")
    reads[0].clear()
    corpus = made(recordings, folder, rate=4000)
    assert len(reads[0]) == 12
    assert corpus.lengths[0] == 200


def test_an_interrupted_rebuild_leaves_the_old_cache_in_use(recordings, folder, reads):
    whole = made(recordings, folder).samples.clone()
    reads[1].add("05.flac")
    with pytest.raises(KeyboardInterrupt):
        made(recordings, folder, rate=4000)
    reads[0].clear()
    assert torch.equal(made(recordings, folder).samples, whole)
    assert reads[0] == []


def test_reading_keeps_a_bounded_distance_to_writing(tmp_path, folder, monkeypatch):
    begun, furthest, crc32 = [], [], module.zlib.crc32
    monkeypatch.setattr(module, "read_audio", lambda file, rate: begun.append(file) or np.ones(5, np.int16))

    class Slow:
        @staticmethod
        def crc32(data):
            time.sleep(0.001)
            furthest.append(len(begun) - len(furthest))
            return crc32(data)

    monkeypatch.setattr(module, "zlib", Slow)
    made([Recording(tmp_path / f"{i}.wav", {"word": "a"}) for i in range(60)], folder)
    assert len(begun) == 60
    assert max(furthest) <= LOOK_AHEAD + 1


def _cached(recordings, folder, barrier):
    torch.set_num_threads(1)
    barrier.wait()
    made(recordings, folder)


def test_of_two_processes_one_makes_the_cache(recordings, folder, monkeypatch):
    context = multiprocessing.get_context("fork")
    barrier, count, read = context.Barrier(2), context.Value("i"), module.read_audio

    def slow(file, rate):
        time.sleep(0.02)
        with count.get_lock():
            count.value += 1
        return read(file, rate)

    monkeypatch.setattr(module, "read_audio", slow)
    workers = [context.Process(target=_cached, args=(recordings, folder, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert count.value == 12
    assert verify("voices", folder) == []


# Bad input


def spoil(recordings):
    """Six bad recordings of twelve: {name: reason}."""
    files = [r.file for r in recordings]
    files[0].write_bytes(b"this is not audio")
    files[1].write_bytes(files[1].read_bytes()[:300])
    soundfile.write(files[2], noise(0, 0), RATE)
    soundfile.write(files[4], np.array([0.1, np.nan, 0.2], np.float32), RATE, subtype="FLOAT")
    files[6].write_bytes(files[6].read_bytes()[:500])
    files[8].unlink()
    return {
        "00.wav": "Format not recognised",
        "01.flac": "",
        "02.wav": "it has no samples",
        "04.wav": "it has samples that are NaN or infinite",
        "06.wav": "it is cut short",
        "08.wav": "it does not exist",
    }


def test_bad_recordings_are_counted_and_three_named(recordings, folder):
    spoil(recordings)
    with pytest.raises(ValueError, match=r"^6 of 12 recordings of voices cannot be read: ") as raised:
        made(recordings, folder)
    assert "and 3 more" in str(raised.value)
    assert "skip_bad=True" in str(raised.value)
    assert [f"{i:02}." in str(raised.value) for i in (0, 1, 2, 4, 6, 8)] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("name", ["00.wav", "01.flac", "02.wav", "04.wav", "06.wav", "08.wav"])
def test_each_kind_of_bad_recording_is_named_with_its_reason(recordings, folder, name):
    reasons = spoil(recordings)
    alone = [r for r in recordings if r.file.name not in reasons or r.file.name == name]
    with pytest.raises(ValueError, match=rf"^1 of 7 recordings .*{name} \(.*{reasons[name]}.*\)"):
        made(alone, folder)


def test_infinite_samples_are_bad_too(tmp_path, folder):
    with pytest.raises(ValueError, match=r"^1 of 2 .*NaN or infinite"):
        made(one(tmp_path / "bad.wav", np.array([0.1, np.inf], np.float32), subtype="FLOAT"), folder)


def test_bad_recordings_are_skipped_when_asked_and_counted(recordings, folder, capsys, reads):
    spoil(recordings)
    corpus = made(recordings, folder, skip_bad=True)
    assert capsys.readouterr().out.startswith("voices: 6 of 12 recordings cannot be read and are left out: ")
    good = [3, 5, 7, 9, 10, 11]
    assert corpus.sources == [str(recordings[i].file) for i in good]
    assert corpus.labels["word"] == [recordings[i].labels["word"] for i in good]
    for row, i in enumerate(good):
        np.testing.assert_array_equal(recording(corpus, row), noise(i, 400 + 5 * i))
    reads[0].clear()
    made(recordings, folder, skip_bad=True)
    assert reads[0] == []
    assert "6 of 12" in capsys.readouterr().out
    with pytest.raises(ValueError, match="6 of 12"):
        made(recordings, folder)


def test_nothing_read_is_lost_to_a_bad_recording(recordings, folder, reads):
    recordings[4].file.write_bytes(b"this is not audio")
    with pytest.raises(ValueError, match=r"^1 of 12"):
        made(recordings, folder)
    soundfile.write(recordings[4].file, noise(4, 420), RATE)
    reads[0].clear()
    corpus = made(recordings, folder)
    assert reads[0] == ["04.wav"]
    for i in range(12):
        np.testing.assert_array_equal(recording(corpus, i), noise(i, 400 + 5 * i))


def test_only_bad_recordings_are_refused_even_when_skipping(tmp_path, folder):
    (tmp_path / "bad.wav").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"^1 of 1 recordings"):
        made([Recording(tmp_path / "bad.wav", {})], folder, skip_bad=True)


def test_no_recordings_are_refused(folder):
    with pytest.raises(ValueError, match="voices has no recordings"):
        made([], folder)
