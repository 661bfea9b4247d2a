"""Windows of sensor recordings: the grid and its labels, the front end, splits, and a training step on other shapes."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from vmlite.datasets import pamap2, sensors
from vmlite.datasets.base import Options
from vmlite.datasets.pamap2 import Recording
from vmlite.datasets.sensors import RELEASED, LogSpectrogram, SensorDataset, grid, other_nuisance, split
from vmlite.pretrain import pretrain, start
from vmlite.recipes import preset

TWELVE = tuple(pamap2.ACTIVITIES.values())


def recording(participant: str, activity: list[tuple[int, int]], gaps: tuple[int, ...] = ()) -> Recording:
    """`activity` holds (id, rows) of each bout. Every value of a sample is its row plus 100,000 times the participant."""
    ids = torch.cat([torch.full((rows,), code, dtype=torch.int16) for code, rows in activity])
    edges = [0, *gaps, len(ids)]
    stretches = torch.tensor(list(itertools.pairwise(edges)))
    values = torch.arange(len(ids)).float() + 100_000 * int(participant)
    return Recording(participant, values.expand(52, -1), ids, stretches)


def noisy(participant: str, codes=(1, 4, 0, 5), rows: int = 1500) -> Recording:
    made = recording(participant, [(code, rows) for code in codes])
    samples = torch.randn(made.samples.shape, generator=torch.Generator().manual_seed(int(participant)))
    return dataclasses.replace(made, samples=samples)


@pytest.fixture
def nine():
    return [noisy(p) for p in pamap2.PARTICIPANTS]


def dataset(recordings, n=None, window=1000, activities=TWELVE) -> SensorDataset:
    cells, labels = grid(recordings, window, n, activities)
    samples = torch.cat([r.samples for r in recordings], 1)
    front_end = None if window == 1000 else torch.nn.Identity()
    return SensorDataset("small", samples, cells, {"activity": labels}, {"activity": activities}, window, 32, front_end)


def test_bouts_are_numbered_as_the_recordings_go():
    both = [recording("1", [(4, 400), (0, 400), (4, 400)]), recording("2", [(4, 400)])]
    data = dataset(both, 40, 100)
    order = data.cells[:, 0].argsort()
    bouts, labels, person = data.bouts()[order], data.targets["activity"][order], data.participants[order]
    assert bouts[0] == 0
    assert set(bouts.diff().tolist()) == {0, 1}
    told = {(int(b), int(y), int(p)) for b, y, p in zip(bouts, labels, person, strict=True)}
    walking = TWELVE.index("walking")
    assert told == {(0, walking, 1), (1, -1, 1), (2, walking, 1), (3, walking, 2)}


def test_a_stretch_shorter_than_a_window_gives_none_and_leaves_labels_whole_numbers():
    cells, labels = grid([recording("1", [(4, 300)], gaps=(40,))], 100, None, TWELVE)
    assert labels.dtype == torch.long
    assert cells[:, 0].min() >= 40


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 4, 24]), st.integers(100, 900)), min_size=1, max_size=6),
    st.integers(0, 3),
    st.integers(1, 40),
)
def test_no_window_spans_a_gap_or_two_recordings_and_a_labelled_one_spans_no_bout(bouts, n_gaps, n):
    rows = sum(length for _, length in bouts)
    gaps = tuple(sorted({rows * (i + 1) // (n_gaps + 1) for i in range(n_gaps)}))
    both = [recording("1", bouts, gaps), recording("2", bouts)]
    window = min(200, rows // (n_gaps + 1) - 1)
    data = dataset(both, min(n, rows - window), window)
    index = torch.arange(len(data))
    for random in (False, True, True):
        x = data.batch(index, random)
        assert x.shape == (len(data), 52, window)
        assert (x[:, 0].diff() == 1).all()  # rows without a break, of one participant
        for values, label, who in zip(x[:, 0].long(), data.targets["activity"], data.cells[:, 3], strict=True):
            assert (values // 100_000 == who).all()
            source = both[int(who) - 1]
            covered = values % 100_000
            assert not any(covered[0] < gap <= covered[-1] for gap in gaps if who == 1)
            if label >= 0:
                names = {pamap2.ACTIVITIES[int(code)] for code in source.activity[covered]}
                assert names == {TWELVE[label]}


def test_a_label_needs_one_bout_not_only_one_activity():
    data = dataset([recording("1", [(4, 600), (1, 10), (4, 600)])], None, 500)
    assert (data.targets["activity"] >= 0).any()
    for x, label in zip(data.batch(torch.arange(len(data)))[:, 0], data.targets["activity"], strict=True):
        if label >= 0:
            assert x[-1] < 100_600 or x[0] >= 100_610


def test_the_grid_covers_the_recording_evenly():
    data = dataset([recording("1", [(4, 4999)])], 40, 1000)
    first = data.cells[:, 0].sort().values
    assert len(data) == 40
    assert first.diff().unique().tolist() == [100]
    assert (data.cells[:, 1] <= 100).all()


def test_random_windows_fill_their_cell_and_fixed_ones_stay():
    data = dataset([recording("1", [(4, 3000)])], 2, 1000)
    index = torch.zeros(3000, dtype=torch.long)
    starts = data.batch(index, random=True)[:, 0, 0] - 100_000 - data.cells[0, 0]
    assert starts.min() == 0
    assert starts.max() == data.cells[0, 1] - 1
    assert starts.unique().numel() > 900
    assert (data.batch(index) == data.batch(index)).all()


def test_transient_windows_and_left_out_activities_have_no_label():
    bouts = [(17, 3000), (0, 3000), (4, 3000)]
    all_of_them = dataset([recording("1", bouts)]).targets["activity"]
    released = dataset([recording("1", bouts)], activities=RELEASED).targets["activity"]
    assert set(all_of_them.tolist()) == {-1, TWELVE.index("ironing"), TWELVE.index("walking")}
    assert set(released.tolist()) == {-1, RELEASED.index("walking")}
    assert len(RELEASED) == 11


def test_the_front_end_is_the_papers_spectrogram():
    x = torch.randn(3, 52, 1000) + 9.81
    slow = torchaudio.transforms.Spectrogram(63, hop_length=32, power=2)(x)
    fast = LogSpectrogram(1000, 32).logarithm(x)
    assert fast.shape == (3, 52, 32, 32)
    error = (fast.exp() - 1e-6 - slow).abs()
    assert (error / slow.amax((2, 3), keepdim=True)).max() < 1e-5


def test_the_front_end_normalises_each_channel():
    recordings = [noisy("1", rows=5000)]
    scale = torch.logspace(-3, 3, 52)[:, None]
    recordings[0] = dataclasses.replace(recordings[0], samples=recordings[0].samples * scale)
    data = dataset(recordings)
    x = data.inputs(torch.arange(len(data)))
    std, mean = torch.std_mean(x, (0, 2, 3))
    assert mean.abs().max() < 0.05
    assert (std - 1).abs().max() < 0.05


def test_a_constant_channel_stays_finite(nine):
    flat = [dataclasses.replace(r, samples=r.samples.clone().index_fill_(0, torch.tensor([5]), 0.0)) for r in nine[:1]]
    data = dataset(flat)
    assert data.inputs(torch.arange(4)).isfinite().all()


@pytest.mark.parametrize(("window", "size", "word"), [(20, 32, "too short"), (5000, 32, "too long")])
def test_windows_that_do_not_fit_the_size_are_refused(window, size, word):
    with pytest.raises(ValueError, match=word):
        LogSpectrogram(window, size)


def test_the_papers_split_tests_on_participants_5_and_6(nine):
    train, test = split("nine", nine, Options(), TWELVE)
    assert sorted(set(train.cells[:, 3].tolist())) == [1, 2, 3, 4, 7, 8, 9]
    assert sorted(set(test.cells[:, 3].tolist())) == [5, 6]
    assert torch.equal(train.front_end.mean, test.front_end.mean)
    assert train.front_end.mean.shape == (52,)


def test_held_out_participants_and_numbers_of_windows_can_be_chosen(nine):
    train, test = split("nine", nine, Options(held_out="3", train_size=50, test_size=20), TWELVE)
    assert (len(train), len(test)) == (50, 20)
    assert set(test.cells[:, 3].tolist()) == {3}
    assert 3 not in train.cells[:, 3]


def test_only_keeps_one_participants_examples(nine):
    train, _ = split("nine", nine, Options(), TWELVE)
    one = train.only("1")
    assert set(one.cells[:, 3].tolist()) == {1}
    assert len(one) == len(one.targets["activity"]) == int((train.cells[:, 3] == 1).sum())
    with pytest.raises(ValueError, match="has participants 1, 2, 3, 4, 7, 8, 9, not 6"):
        train.only("6")


def test_first_and_to_keep_the_examples(nine):
    train, _ = split("nine", nine, Options(train_size=60), TWELVE)
    few = train.first(7).to(torch.device("cpu"))
    index = torch.arange(7)
    assert torch.equal(few.inputs(index), train.inputs(index))
    assert torch.equal(few.targets["activity"], train.targets["activity"][:7])
    with pytest.raises(ValueError, match="61 examples were asked"):
        train.first(61)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"held_out": "5,12"}, "held_out names 12; the participants are 1, 2"),
        ({"held_out": "1,2,3,4,5,6,7,8,9"}, "leave some for training"),
        ({"sample_rate": 50}, "recorded at 100 Hz"),
        ({"window_seconds": 80.0}, "have no 80 s without a gap; lower window_seconds"),
        ({"train_size": 10**6}, "1000000 windows were asked, but only"),
    ],
)
def test_what_cannot_be_is_refused(nine, asked, message):
    with pytest.raises(ValueError, match=message):
        split("nine", nine, Options(**asked), TWELVE)


def test_gaps_that_leave_no_window_name_the_participant(nine):
    broken = recording("4", [(4, 2000)], gaps=(700, 1400))
    with pytest.raises(ValueError, match=r"recordings of 4 have no 10 s"):
        split("nine", [broken, *nine[4:]], Options(), TWELVE)


def test_load_reads_a_folder_in_pamap2s_layout(tmp_path, monkeypatch):
    monkeypatch.setattr(sensors, "project_path", lambda path: tmp_path / path)
    folder = tmp_path / "PAMAP2_Dataset" / "Protocol"
    folder.mkdir(parents=True)
    row = " ".join(["80.5", *["9.5"] * 51])
    lines = [f"{i / 100:.2f} {4 if i < 1400 else 0} {row}\n" for i in range(1600)]
    for participant in pamap2.PARTICIPANTS:
        (folder / f"subject10{participant}.dat").write_text("".join(lines))
    train, test = sensors.LOADERS["pamap2"](tmp_path, Options(train_size=21, test_size=6))
    assert (train.name, len(train), len(test)) == ("pamap2", 21, 6)
    assert (train.batch(torch.arange(2)) == torch.tensor([80.5, *[9.5] * 51])[:, None]).all()
    assert sensors.LOADERS["pamap2-11"](tmp_path, Options()).train.classes["activity"] == RELEASED


def test_generated_recordings_are_written_once(tmp_path, monkeypatch):
    written = []

    def write(folder):
        written.append(folder)
        (folder / "Protocol").mkdir()
        for participant in pamap2.PARTICIPANTS:
            row = " ".join(["4"] + ["1.5"] * 52)
            text = "".join(f"{i / 100:.2f} {row}\n" for i in range(1100))
            (folder / "Protocol" / f"subject10{participant}.dat").write_text(text)

    monkeypatch.setattr(sensors, "project_path", lambda path: tmp_path / path)
    monkeypatch.setattr(sensors.motion_files, "write", write)
    for _ in range(2):
        train, _ = sensors.LOADERS["motions"](tmp_path, Options())
    assert train.name == "motions"
    assert len(written) == 1


def test_another_nuisance_keeps_windows_and_labels_and_needs_generated_first_participants(monkeypatch):
    def record(participant, nuisance=None):
        rows = np.random.default_rng([participant, nuisance or 0]).normal(size=(500, 54))
        rows[:, 0], rows[:, 1], rows[7, 5] = np.arange(500) / 100, 1, np.nan
        return rows

    def read(participant):
        table = record(100 + participant)
        samples = torch.from_numpy(pamap2.interpolated(table[:, 2:].T.astype("float32")))
        return Recording(str(participant), samples, torch.ones(500, dtype=torch.int16), torch.tensor([[0, 500]]))

    monkeypatch.setattr(sensors.motions, "record", record)
    data = dataset([read(5), read(6)], window=100)
    with pytest.raises(ValueError, match="generated recordings, motions, can be recorded again, not small"):
        other_nuisance(data)
    data.name = "motions"
    same = other_nuisance(data, nuisance=0)
    assert torch.equal(same.samples, data.samples)
    assert torch.equal(same.batch(torch.arange(4)), data.batch(torch.arange(4)))
    other = other_nuisance(data)
    assert torch.equal(other.cells, data.cells)
    assert other.front_end is not data.front_end
    assert not torch.isclose(other.samples, data.samples).all(1).any()
    assert other.samples.isfinite().all()
    assert torch.equal(other_nuisance(data.only("5")).samples, other.samples[:, :500])
    with pytest.raises(ValueError, match="others were recorded before participants \\[6\\]"):
        other_nuisance(data.only("6"))


def test_a_step_on_nine_channels_of_20_by_31_changes_both_players():
    class Odd(SensorDataset):
        def inputs(self, index, random=False):
            return self.batch(index, random)[:, :9, :620].reshape(-1, 9, 20, 31)

    data = dataset([noisy("1")])
    data.__class__ = Odd
    data.shape = (9, 20, 31)
    for update in ("joint", "alternating"):
        recipe = preset("quick", "sensors", batch_size=8, views="viewmaker", update=update)
        run = start(recipe, data)
        before = [p.clone() for p in (*run.encoder.parameters(), *run.views.parameters())]
        next(pretrain(run))
        after = (*run.encoder.parameters(), *run.views.parameters())
        assert run.history[0].isfinite().all()
        assert run.views(run.draw(torch.arange(4))).shape == (4, 9, 20, 31)
        moved = [not torch.equal(a, b) for a, b in zip(after, before, strict=True)]
        assert sum(moved) > 0.8 * len(moved)


@pytest.mark.parametrize("name", ["small", "paper"])
def test_presets_take_a_step_at_their_own_size(name):
    data = dataset([noisy("1")])
    recipe = preset(name, "sensors", batch_size=4, device="cpu")
    run = start(recipe, data)
    next(pretrain(run))
    assert run.train.shape == (52, 32, 32)
    assert run.encoder.net.conv1.kernel_size == (3, 3)
    assert run.history[0].isfinite().all()


def test_the_quick_preset_fits_its_window():
    recipe = preset("quick", "sensors")
    window = round(recipe.window_seconds * pamap2.SAMPLE_RATE)
    assert LogSpectrogram(window, recipe.input_size)(torch.randn(2, 3, window)).shape == (2, 3, 16, 16)
