"""Recordings in Pamap2's format: what is read, what is refused, the cache, and the download."""

import functools
import http.server
import io
import itertools
import os
import re
import socket
import threading
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmlite.datasets import pamap2
from vmlite.datasets.pamap2 import ACTIVITIES, CHANNELS, PARTICIPANTS, Recording, cached, download, find, read


def table(seed=0, rows=30, holes=0.3):
    """Rows of a recording (T, 54): no jumps, missing values everywhere except in the first two columns."""
    rng = np.random.default_rng(seed)
    made = rng.normal(0, 8, (rows, 54)).round(5)
    made[:, 2:][rng.random((rows, 52)) < holes] = np.nan
    made[rows // 2, 2:] = 1.5
    made[:, 0] = 8.38 + np.arange(rows) / 100
    made[:, 1] = rng.choice([0, *ACTIVITIES], rows)
    return made


def lines(made):
    """As text, in the form of the real files: 8.38 0 104 NaN 2.37223 ..."""
    return [
        " ".join([f"{row[0]:.2f}", *("NaN" if np.isnan(v) else f"{v:.6g}" for v in row[1:])]) + "\n" for row in made
    ]


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if isinstance(text, str) else "".join(text))
    return file


@pytest.fixture
def file(tmp_path):
    return tmp_path / "subject103.dat"


def slow(made):
    """Samples (52, T) by plain loops: the reference."""
    filled = []
    for channel in made[:, 2:].T.tolist():
        known = [i for i, v in enumerate(channel) if v == v]
        row = []
        for i, v in enumerate(channel):
            before, after = [k for k in known if k <= i], [k for k in known if k >= i]
            if v == v:
                row.append(v)
            elif not before or not after:
                row.append(channel[(before or after)[-1 if before else 0]])
            else:
                a, b = before[-1], after[0]
                row.append(channel[a] + (channel[b] - channel[a]) * (i - a) / (b - a))
        filled.append(row)
    return np.array(filled)


# What is read


def test_channels_are_52_in_the_order_of_the_file():
    assert len(CHANNELS) == len(set(CHANNELS)) == 52
    assert CHANNELS[:3] == ("heart rate", "hand temperature", "hand acceleration 16g x")
    assert CHANNELS[18] == "chest temperature"
    assert (CHANNELS[35], CHANNELS[-1]) == ("ankle temperature", "ankle orientation 4")
    assert CHANNELS[5:15] == (
        *(f"hand acceleration 6g {axis}" for axis in "xyz"),
        *(f"hand gyroscope {axis}" for axis in "xyz"),
        *(f"hand magnetometer {axis}" for axis in "xyz"),
        "hand orientation 1",
    )
    assert len(ACTIVITIES) == 12
    assert (ACTIVITIES[1], ACTIVITIES[24]) == ("lying", "rope jumping")


@pytest.mark.parametrize("seed", range(3))
def test_values_activities_and_participant_are_those_of_the_file(file, seed):
    made = table(seed)
    recording = read(write(file, lines(made)))
    assert recording.participant == "3"
    assert (recording.samples.dtype, recording.activity.dtype) == (torch.float32, torch.int16)
    np.testing.assert_allclose(recording.samples, slow(made), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(recording.activity, made[:, 1])
    assert recording.stretches.tolist() == [[0, 30]]
    assert recording.stretches.dtype == torch.int64
    assert recording.samples.is_contiguous()


def test_known_values_are_kept_to_the_last_digit(file):
    made = table(holes=0)
    text = lines(made)
    exact = np.array([[np.float32(v) for v in line.split()[2:]] for line in text]).T
    np.testing.assert_array_equal(read(write(file, text)).samples, exact)


def test_optional_activities_are_known_and_stay_as_they_are(file):
    made = table()
    made[:6, 1] = [9, 10, 11, 18, 19, 20]
    assert read(write(file, lines(made))).activity[:6].tolist() == [9, 10, 11, 18, 19, 20]
    assert not {9, 10, 11, 18, 19, 20, 0} & set(ACTIVITIES)


def test_windows_line_ends_and_blank_lines_change_nothing(file):
    plain = read(write(file, lines(table())))
    file.write_bytes("".join(lines(table())).replace("\n", "\r\n").encode() + b"\r\n")
    other = read(file)
    assert torch.equal(plain.samples, other.samples)


def test_another_file_name_is_the_participant(tmp_path):
    assert read(write(tmp_path / "anna.dat", lines(table()))).participant == "anna"


def test_one_row_is_a_recording(file):
    recording = read(write(file, lines(table(rows=1))))
    assert recording.samples.shape == (52, 1)
    assert recording.stretches.tolist() == [[0, 1]]


columns = st.lists(st.one_of(st.just(float("nan")), st.floats(-100, 100, width=32)), min_size=1, max_size=30)


@given(columns.filter(lambda c: any(v == v for v in c)))
def test_missing_values_lie_on_the_line_between_their_neighbours(channel):
    """Against the plain loops, and what must hold: the known stay, nothing leaves the range of the known."""
    samples = np.array([channel], np.float32)
    filled = pamap2.interpolated(samples.copy())
    known = ~np.isnan(samples)
    np.testing.assert_array_equal(filled[known], samples[known])
    assert samples[known].min() - 1e-4 <= filled.min() <= filled.max() <= samples[known].max() + 1e-4
    reference = slow(np.concatenate([np.zeros((len(channel), 2)), samples.T], axis=1))
    np.testing.assert_allclose(filled, reference, rtol=1e-5, atol=1e-4)


# Stretches


def stretches(timestamps):
    return pamap2.steady(np.array(timestamps, np.float32)).tolist()


def test_jumps_forward_and_back_end_a_stretch(file):
    made = table()
    made[10:, 0] += 0.01  # one row is missing
    made[15:, 0] -= 3
    made[16:, 0] -= 0.01  # the same timestamp again
    made[29:, 0] += 600
    recording = read(write(file, lines(made)))
    assert recording.stretches.tolist() == [[0, 10], [10, 15], [15, 16], [16, 29], [29, 30]]


def test_steps_within_half_a_step_are_no_jumps():
    assert stretches([0, 0.01, 0.024, 0.03, 0.036]) == [[0, 5]]
    assert stretches([0, 0.01, 0.026, 0.036]) == [[0, 2], [2, 4]]
    assert stretches([0, 0.01, 0.014, 0.03]) == [[0, 2], [2, 3], [3, 4]]


@given(start=st.integers(0, 3_000_000), jumps=st.sets(st.integers(1, 399), max_size=5), back=st.booleans())
def test_float32_timestamps_find_exactly_the_jumps(start, jumps, back):
    """Up to hours into a recording, with two decimals as in the file, even where a single row is missing."""
    steps = np.ones(400)
    steps[list(jumps)] = -500 if back and start > 200_000 else 2
    timestamps = (start + np.cumsum(steps)) / 100
    edges = [0, *sorted(jumps), 400]
    assert stretches(timestamps) == [[a, b] for a, b in itertools.pairwise(edges)]


# What is refused


def refusal(file, text):
    """What the error says that reading this text raises."""
    write(file, text)
    with pytest.raises(ValueError, match=re.escape(file.name)) as raised:
        read(file)
    assert str(file) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("columns", [1, 53, 55])
@pytest.mark.parametrize("number", [1, 4, 30])
def test_wrong_column_count_names_file_and_line(file, number, columns):
    text = lines(table())
    text[number - 1] = " ".join(["1"] * columns) + "\n"
    assert f"line {number} has {columns} columns; it must have 54" in refusal(file, text)


def test_wrong_column_count_in_every_line(file):
    assert "line 1 has 53 columns; it must have 54" in refusal(file, lines(table()[:, :-1]))


@pytest.mark.parametrize("cut", [2, 3, 40, 200], ids=["last line end and digit", "value", "values", "many"])
def test_file_cut_in_mid_row(file, cut):
    assert "is cut off in line 30" in refusal(file, "".join(lines(table()))[:-cut])


def test_file_cut_at_the_very_end_of_its_last_value(file):
    assert "is cut off in line 30" in refusal(file, "".join(lines(table()))[:-1])


@pytest.mark.parametrize("text", ["", "\n\n"], ids=["no bytes", "blank lines"])
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_empty_file(file, text):
    assert "is empty" in refusal(file, text)


def test_missing_file(file):
    with pytest.raises(ValueError, match=r"subject103\.dat cannot be read \(No such file"):
        read(file)


@pytest.mark.parametrize("value", ["x", "1,5", "--", "2.3.4", "#", "1_0"])
def test_values_that_are_no_number(file, value):
    made = [line.split() for line in lines(table())]
    made[6][5] = value
    assert f"{value}'" in refusal(file, [" ".join(line) + "\n" for line in made])


def test_value_that_is_no_number_is_named_with_line_and_channel(file):
    made = [line.split() for line in lines(table())]
    made[6][5], made[9][7] = "left", "right"
    text = "\n" + "".join(" ".join(line) + "\n" for line in made)
    assert "line 8 has 'left' for hand acceleration 16g y; it must be a number or NaN" in refusal(file, text)


def test_comments_are_not_part_of_the_format(file):
    assert "line 1 has 4 columns" in refusal(file, ["# recorded in 2012\n", *lines(table())])


def test_binary_file(file):
    file.write_bytes(np.random.default_rng(0).bytes(5000) + b"\n")
    with pytest.raises(ValueError, match=r"line 1 has \d+ columns"):
        read(file)


@pytest.mark.parametrize("value", ["inf", "-inf", "1e60"])
def test_infinite_values(file, value):
    made = [line.split() for line in lines(table())]
    made[6][2] = value
    assert re.search(
        "line 7 has the heart rate -?inf; it must be finite", refusal(file, [" ".join(line) + "\n" for line in made])
    )


@pytest.mark.parametrize("column", [0, 17, 51])
def test_channel_without_any_value_is_named(file, column):
    made = table()
    made[:, 2 + column] = np.nan
    assert f"no value but NaN for {CHANNELS[column]};" in refusal(file, lines(made))


@pytest.mark.parametrize("activity", [8, 25, -1, 1.5, np.nan, 70_000])
def test_unknown_or_missing_activity_names_the_line(file, activity):
    made = table()
    made[[12, 20], 1] = activity
    assert re.search(
        f"line 13 has the activity {activity:g}; it must be one of 0, 1, 2.* 24", refusal(file, lines(made))
    )


def test_blank_lines_count_in_line_numbers(file):
    made = table()
    made[12, 1] = 8
    text = lines(made)
    assert "line 15 has the activity 8" in refusal(file, [*text[:5], "\n", " \n", *text[5:]])


@pytest.mark.parametrize("time", [np.nan, 1.3e9, 40_000, -40_000])
def test_timestamps_that_are_missing_or_not_in_seconds_of_the_recording(file, time):
    made = table()
    made[3, 0] = time
    assert re.search("line 4 has the timestamp .*; it must be in seconds, below 32768", refusal(file, lines(made)))


# Where files are


@pytest.mark.parametrize("below", [".", "Protocol", "PAMAP2_Dataset/Protocol"])
def test_files_are_found_in_the_folder_or_below(tmp_path, below):
    for participant in PARTICIPANTS:
        write(tmp_path / below / f"subject10{participant}.dat", "")
    found = find(tmp_path)
    assert tuple(found) == PARTICIPANTS
    assert all(path.is_file() and path.name == f"subject10{p}.dat" for p, path in found.items())


def test_missing_participants_are_named_and_their_place(tmp_path):
    for participant in "1234578":
        write(tmp_path / "Protocol" / f"subject10{participant}.dat", "")
    with pytest.raises(ValueError, match=r"lacks subject106\.dat, subject109\.dat; put them into ") as raised:
        find(tmp_path)
    assert str(raised.value).endswith(f"into {tmp_path / 'Protocol'}.")


def test_all_missing(tmp_path):
    with pytest.raises(ValueError, match=r"subject101.*subject109\.dat; put .*PAMAP2_Dataset.Protocol"):
        find(tmp_path / "nowhere")


# The cache


@pytest.fixture
def files(tmp_path):
    """Three recordings of 20 to 40 rows; the second has a jump."""
    made = {}
    for i, participant in enumerate("159"):
        rows = table(i, 20 + 10 * i)
        rows[12:, 0] += i == 1
        made[participant] = write(tmp_path / "data" / f"subject10{participant}.dat", lines(rows))
    return made


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read, and a set of those at which reading is interrupted."""
    names, stops, plain = [], set(), pamap2.read

    def counted(file):
        if file.name in stops:
            raise KeyboardInterrupt
        names.append(file.name)
        return plain(file)

    monkeypatch.setattr(pamap2, "read", counted)
    return names, stops


@pytest.fixture
def kept(files, tmp_path):
    """A function that opens the cache of `files` and compares every recording with its source, as it was at first."""
    expected = {participant: read(file) for participant, file in files.items()}

    def opened():
        made = cached("motions", files, tmp_path / "cache", progress=False)
        assert [r.participant for r in made] == list(files)
        for recording in made:
            same(recording, expected[recording.participant])
        return made

    opened.expected = expected
    return opened


def same(a: Recording, b: Recording):
    for name in ("samples", "activity", "stretches"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other), name


def store(tmp_path, participant="5"):
    return tmp_path / "cache" / "motions" / f"{participant}.cache"


def test_each_file_is_read_once(kept, reads, capsys):
    kept()
    assert reads[0] == ["subject101.dat", "subject105.dat", "subject109.dat"]
    kept()
    assert len(reads[0]) == 3
    assert capsys.readouterr().out == ""


def test_participants_are_those_that_were_asked_whatever_the_files_are_called(tmp_path, file):
    write(file, lines(table()))
    made = cached("own", {"anna": file, "a/b": file}, tmp_path / "cache", progress=False)
    assert [r.participant for r in made] == ["anna", "a/b"]


def test_writing_to_samples_changes_no_file(kept, reads):
    recording = kept()[0]
    recording.samples.add_(1)
    recording.activity[:] = 7
    kept()
    assert len(reads[0]) == 3


def test_interrupted_call_keeps_what_was_finished(kept, reads, tmp_path):
    names, stops = reads
    stops.add("subject109.dat")
    with pytest.raises(KeyboardInterrupt):
        kept()
    names.clear()
    stops.clear()
    kept()
    assert names == ["subject109.dat"]
    assert not list(tmp_path.rglob("*.part"))


def test_interrupted_writing_leaves_no_recording_behind(kept, reads, tmp_path, monkeypatch):
    part = store(tmp_path).with_suffix(".part")
    with monkeypatch.context() as patch:

        def cut(*_):
            raise KeyboardInterrupt

        patch.setattr(type(part), "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            kept()
    assert not list(tmp_path.rglob("*.cache"))
    kept()
    assert reads[0] == ["subject101.dat", "subject101.dat", "subject105.dat", "subject109.dat"]


def test_bad_file_keeps_the_recordings_before_it(kept, files, reads):
    whole = files["9"].read_text()
    write(files["9"], whole[:-1])
    with pytest.raises(ValueError, match="cut off in line 40"):
        kept()
    write(files["9"], whole)
    reads[0].clear()
    kept()
    assert reads[0] == ["subject109.dat"]


@pytest.mark.parametrize("value", ["1.25", "1.6"], ids=["another size", "same size, another time"])
def test_changed_source_is_read_again_and_a_line_says_so(kept, files, reads, capsys, value):
    kept()
    before = files["5"].stat()
    write(files["5"], files["5"].read_text().replace(" 1.5 ", f" {value} "))
    os.utime(files["5"], ns=(before.st_atime_ns, before.st_mtime_ns + (len(value) == 3)))
    kept.expected["5"] = read(files["5"])
    reads[0].clear()
    kept()
    assert reads[0] == ["subject105.dat"]
    out = capsys.readouterr().out
    assert out == "motions: the cache is made again for participant 5 (subject105.dat has changed).\n"


def damage(store, how):
    whole = store.read_bytes()
    position = {"first sample": 4096, "last byte": len(whole) - 1, "header": 3}.get(how)
    if position is None:
        store.write_bytes(
            {"cut": whole[:-7], "cut in the header": whole[:100], "empty": b"", "longer": whole + b"x"}[how]
        )
    else:
        store.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])


@pytest.mark.parametrize("how", ["first sample", "last byte", "header", "cut", "cut in the header", "empty", "longer"])
def test_damaged_cache_is_made_again_and_a_line_says_so(kept, reads, tmp_path, capsys, how):
    kept()
    damage(store(tmp_path), how)
    reads[0].clear()
    kept()
    assert reads[0] == ["subject105.dat"]
    out = capsys.readouterr().out
    assert out == "motions: the cache is made again for participant 5 (it is damaged).\n"
    kept()
    assert capsys.readouterr().out == ""


def test_any_flipped_byte_is_found_or_harmless(kept, tmp_path):
    """A bit in every byte of the header, and in some of the rest."""
    kept()
    place = store(tmp_path)
    whole = place.read_bytes()
    header = len(whole[:4096].rstrip())
    rng = np.random.default_rng(0)
    for position in (*range(header + 1), *rng.integers(header, len(whole), 50).tolist()):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << rng.integers(8)
        place.write_bytes(flipped)
        assert len(kept()) == 3


def test_cache_of_another_version_is_made_again(kept, reads, capsys, monkeypatch):
    kept()
    monkeypatch.setattr(pamap2, "VERSION", pamap2.VERSION + 1)
    kept()
    assert len(reads[0]) == 6
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "1 (it is of another version), 5 (it is of another version)" in out


def test_sound_cache_needs_no_sources(kept, files, reads, tmp_path):
    kept()
    for file in files.values():
        file.unlink()
    kept()
    assert len(reads[0]) == 3
    damage(store(tmp_path), "last byte")
    with pytest.raises(ValueError, match=r"subject105\.dat cannot be read \(No such file"):
        kept()


# The download


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def archive():
    """An archive in the layout of the real one, and the text of each participant's recording."""
    texts = {p: "".join(lines(table(int(p), 5))) for p in PARTICIPANTS}
    inner = {f"PAMAP2_Dataset/Protocol/subject10{p}.dat": text for p, text in texts.items()}
    inner |= {"PAMAP2_Dataset/Optional/subject101.dat": "optional", "PAMAP2_Dataset/readme.pdf": "read me"}
    inner |= {"__MACOSX/PAMAP2_Dataset/Protocol/._subject101.dat": "what macOS leaves"}
    return zipped({"PAMAP2_Dataset.zip": zipped(inner), "readme.pdf": "read me"}), texts


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine alone: (address of the archive, the folder that it serves, the paths asked of it)."""
    asked, folder = [], tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}/pamap2+physical.zip", folder / "pamap2+physical.zip", asked
        served.shutdown()
        thread.join()


@pytest.fixture
def closed_url(monkeypatch):
    """An address where nobody listens: a port bound here, but not listening."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/pamap2+physical.zip"


def check_unpacked(data_dir, texts):
    assert {p: file.read_text() for p, file in find(data_dir).items()} == texts
    assert sorted(f.name for f in (data_dir / "PAMAP2_Dataset" / "Protocol").iterdir()) == [
        f"subject10{p}.dat" for p in PARTICIPANTS
    ]


def test_archive_is_downloaded_once_and_its_recordings_unpacked(archive, server, tmp_path):
    url, served, asked = server
    served.write_bytes(archive[0])
    download(tmp_path / "data", url)
    check_unpacked(tmp_path / "data", archive[1])
    assert asked
    asked.clear()
    download(tmp_path / "data", url)
    assert asked == []


def test_archive_put_there_by_hand_needs_no_network(archive, closed_url, tmp_path):
    (tmp_path / "pamap2+physical.zip").write_bytes(archive[0])
    download(tmp_path, closed_url)
    check_unpacked(tmp_path, archive[1])


def test_no_network_says_where_to_put_the_archive(closed_url, tmp_path):
    with pytest.raises(ValueError, match=r"could not be downloaded .*Put pamap2\+physical\.zip.*by hand") as raised:
        download(tmp_path / "here", closed_url)
    assert f"into {tmp_path / 'here'} by hand" in str(raised.value)


def test_download_that_broke_off_is_started_anew(archive, server, tmp_path):
    url, served, _ = server
    served.write_bytes(archive[0][:-1000])
    with pytest.raises(ValueError, match="not a zip file"):
        download(tmp_path, url)
    assert not (tmp_path / served.name).exists()
    served.write_bytes(archive[0])
    download(tmp_path, url)
    check_unpacked(tmp_path, archive[1])


def test_archive_damaged_inside_is_refused_and_leaves_no_half_recording(archive, closed_url, tmp_path):
    damaged = bytearray(archive[0])
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "pamap2+physical.zip").write_bytes(damaged)
    with pytest.raises(ValueError, match="could not be downloaded or unpacked"):
        download(tmp_path, closed_url)
    with pytest.raises(ValueError, match="lacks"):
        find(tmp_path)


def test_archive_of_something_else_is_refused(closed_url, tmp_path):
    (tmp_path / "pamap2+physical.zip").write_bytes(zipped({"other.txt": "other"}))
    with pytest.raises(ValueError, match=r"PAMAP2_Dataset\.zip"):
        download(tmp_path, closed_url)
