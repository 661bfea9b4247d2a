"""Generated wearable sensors: the file format of Pamap2, and movements that are where they were asked to be."""

import io
import itertools
import os

import numpy as np
import pytest

from vmlite.datasets.synthetic import motion_files
from vmlite.datasets.synthetic.motion_files import text
from vmlite.datasets.synthetic.motions import ACTIVITIES, COLUMNS, GRAVITY, PARTICIPANTS, RATE, plan, record

UNITS = {"hand": 3, "chest": 20, "ankle": 37}  # the first column of each


@pytest.fixture(scope="module")
def rows():
    """Participant 101."""
    return record(101, 7)


def bouts(rows: np.ndarray, activity: int) -> list[np.ndarray]:
    """The rows of each bout of an activity."""
    at = np.flatnonzero(rows[:, 1] == activity)
    return [rows[part] for part in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)]


def columns(rows: np.ndarray, unit: str, first: int, count: int = 3) -> np.ndarray:
    """Some of a unit's columns, without the rows that were lost."""
    start = UNITS[unit] + first
    part = rows[:, start : start + count]
    return part[~np.isnan(part[:, 0])]


def test_a_recording_has_54_columns_and_lasts_ten_minutes_or_more(rows):
    assert rows.shape[1] == COLUMNS == 54
    assert len(rows) >= 10 * 60 * RATE


def test_timestamps_are_ten_milliseconds_apart_in_the_file(rows):
    written = [line.split()[0] for line in text(rows[:3000]).splitlines()]
    assert written == [b"%.2f" % (5 + i / 100) for i in range(3000)]


@pytest.mark.parametrize(("times", "shortest", "longest"), [(1, 54, 66), (5, 10, 12)])
def test_a_plan_has_each_activity_as_often_and_as_long_as_asked_with_transients_between(times, shortest, longest):
    stretches = plan(np.random.default_rng(0), times, shortest, longest)
    named = [s for s in stretches if s.activity]
    assert sorted(s.activity for s in named) == sorted(times * list(ACTIVITIES))
    assert all(shortest * RATE <= s.stop - s.start <= longest * RATE for s in named)
    assert all((a.activity == 0) != (b.activity == 0) and a.stop == b.start for a, b in itertools.pairwise(stretches))


def test_a_recording_holds_each_activity_once_and_that_of_a_test_participant_twelve_times(rows):
    assert set(rows[:, 1]) == {0, *ACTIVITIES}
    assert all(len(bouts(rows, activity)) == 1 for activity in ACTIVITIES)
    assert np.allclose(np.diff(rows[:, 0]), 1 / RATE)
    tested = record(106, 7)
    assert all(len(bouts(tested, activity)) == 12 for activity in ACTIVITIES)


def test_heart_rate_is_in_every_eleventh_row_and_rises_with_effort(rows):
    assert np.array_equal(~np.isnan(rows[:, 2]), np.arange(len(rows)) % 11 == 0)
    heart = rows[::11, 2]
    assert np.array_equal(heart, np.round(heart))
    assert heart.min() > 40
    assert heart.max() < 220

    def late(activity: int) -> float:
        return np.mean([np.nanmean(bout[-500:, 2]) for bout in bouts(rows, activity)])

    assert np.mean([late(5), late(24)]) > np.mean([late(1), late(2)])


def test_missing_rows_of_a_unit_are_missing_in_all_its_columns_and_rare(rows):
    for start in UNITS.values():
        missing = np.isnan(rows[:, start : start + 17])
        assert np.array_equal(missing.all(1), missing.any(1))
        assert 0 < missing[:, 0].mean() < 0.01
    assert not np.isnan(rows[:, :2]).any()


def test_the_same_seed_gives_the_same_recording_and_another_seed_or_participant_does_not(rows):
    assert np.array_equal(rows, record(101, 7), equal_nan=True)
    other = record(102, 7)
    n = min(len(rows), len(other))
    assert not np.allclose(rows[:n, 4:7], other[:n, 4:7], equal_nan=True)
    orders = [[k for k in r[np.flatnonzero(np.diff(r[:, 1])) + 1, 1] if k] for r in (rows, other, record(101, 8))]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_another_nuisance_leaves_time_activity_heart_and_movement(rows):
    other = record(101, 7, nuisance=1)
    assert np.array_equal(rows[:, :3], other[:, :3], equal_nan=True)
    assert not np.allclose(rows[:, 4:7], other[:, 4:7], equal_nan=True)
    assert np.array_equal(other, record(101, 7, nuisance=1), equal_nan=True)
    assert not np.array_equal(other, record(101, 7, nuisance=2), equal_nan=True)
    walk = rows[:, 1] == 4
    length = [np.linalg.norm(table[walk][:, 38:41], axis=1) for table in (rows, other)]  # of the ankle's acceleration
    known = ~np.isnan(length).any(0)
    assert np.corrcoef([one[known] for one in length])[0, 1] > 0.9


def test_lying_still_the_units_weigh_gravity(rows):
    for unit in UNITS:
        for bout in bouts(rows, 1):
            mean = columns(bout, unit, 1).mean(0)
            assert np.linalg.norm(mean) == pytest.approx(GRAVITY, abs=0.5)


def test_the_chest_is_upright_walking_and_level_lying(rows):
    along = {a: np.mean([abs(columns(b, "chest", 3, 1).mean()) for b in bouts(rows, a)]) for a in (1, 4)}
    assert along[1] < 0.6 * GRAVITY < along[4]


def test_both_accelerometers_agree_below_6_g_and_the_second_stops_there(rows):
    for unit in UNITS:
        wide, narrow = columns(rows, unit, 1), columns(rows, unit, 4)
        below = (np.abs(wide) < 5.5 * GRAVITY) & (np.abs(narrow) < 5.5 * GRAVITY)
        assert np.abs(wide - narrow)[below].mean() < 0.5
        assert np.abs(narrow).max() <= 6 * GRAVITY
        assert np.abs(wide).max() <= 16 * GRAVITY
    assert np.abs(columns(rows, "ankle", 1)).max() > 6 * GRAVITY


def test_the_magnetometer_turns_with_the_gyroscope(rows):
    bout = bouts(rows, 6)[0]
    part = bout[:, UNITS["ankle"] : UNITS["ankle"] + 13]
    part = part[~np.isnan(part[:, 0])]
    rate, field = part[:, 7:10], part[:, 10:13] - part[:, 10:13].mean(0)
    rate, field = (np.abs(np.fft.rfft(v - v.mean(0), axis=0)).sum(1) for v in (rate, field))
    frequency = np.fft.rfftfreq(len(part), 1 / RATE)
    band = (frequency > 0.7) & (frequency < 1.7)
    assert frequency[band][rate[band].argmax()] == pytest.approx(frequency[band][field[band].argmax()], abs=0.1)


def test_walking_has_its_cadence_in_the_ankle_and_twice_that_in_the_chest(rows):
    low, high = ACTIVITIES[4].cadence
    for bout in bouts(rows, 4):
        peaks = []
        for signal in (columns(bout, "ankle", 7), columns(bout, "chest", 3, 1)):
            power = np.square(np.abs(np.fft.rfft(signal - signal.mean(0), axis=0))).sum(1)
            frequency = np.fft.rfftfreq(len(signal), 1 / RATE)
            band = (frequency > 0.5) & (frequency < 2.5)
            peaks.append(frequency[band][power[band].argmax()])
        assert low - 0.15 < peaks[0] < high + 0.15
        assert peaks[1] == pytest.approx(2 * peaks[0], abs=0.15)


def test_text_is_read_back_to_its_last_decimal(rows):
    part = rows[4000:6000]
    written = text(part)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == len(part)
    assert b"  " not in written
    assert b"-0.000" not in written
    back = np.loadtxt(io.BytesIO(written))
    assert np.array_equal(np.isnan(back), np.isnan(part))
    np.testing.assert_allclose(back, part, atol=0.000501, rtol=0)


def test_text_writes_signs_zeros_whole_numbers_and_missing_values_as_pamap2_does():
    row = np.zeros((1, COLUMNS))
    row[0, :6] = 8.38, 24, np.nan, -0.0004, -12.3456, 156.96
    assert text(row).split()[:6] == [b"8.38", b"24", b"NaN", b"0.000", b"-12.346", b"156.960"]


def test_write_makes_nine_whole_files(tmp_path, monkeypatch):
    monkeypatch.setattr(motion_files, "record", lambda participant, seed: np.full((2, COLUMNS), participant + seed))
    motion_files.write(tmp_path, seed=1, progress=False)
    names = sorted(os.listdir(tmp_path / "Protocol"))
    assert names == [f"subject{p}.dat" for p in PARTICIPANTS]
    assert (tmp_path / "Protocol" / "subject109.dat").read_bytes().startswith(b"110.00 110 110 110.000 ")


def test_an_unknown_participant_is_refused():
    with pytest.raises(ValueError, match="from 101 to 109, got 5"):
        record(5)


def test_times_beyond_a_thousand_seconds_are_written_in_full():
    rows = np.full((4, COLUMNS), 1.0)
    rows[:, 0] = (999.98, 999.99, 1000.0, 1234.56)
    assert [line.split()[0] for line in text(rows).splitlines()] == [b"999.98", b"999.99", b"1000.00", b"1234.56"]


def test_the_last_orientation_column_flickers_about_a_hundredth_and_the_others_stand_still(rows):
    for unit in UNITS:
        turned = columns(rows, unit, 13, 4)
        assert np.array_equal(np.ptp(turned, 0) > 0, [False, False, False, True])
        levels = [columns(bout, unit, 16, 1).std() for activity in ACTIVITIES for bout in bouts(rows, activity)]
        assert 0.005 < np.median(levels) < 0.08
        assert max(levels) > 1.5 * min(levels)
