"""Generated wearable sensors: nine people, twelve activities, three inertial units, in the file format of Pamap2.

Each limb is a stick whose angles follow the activity's rhythm; gravity, the earth's magnetic field and the turn rate
are expressed in its moving frame, so that the sensors agree with each other. What names an activity is which limb moves,
in what rhythm, and when it pauses. What names the moment is much louder: posture, heading, how a unit sits and how
loosely, temperature, bias, vigour. They are drawn anew for every bout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

VERSION = 6
RATE = 100  # rows per second
COLUMNS = 54
PARTICIPANTS = tuple(range(101, 110))
LIMBS = ("hand", "chest", "ankle")
GRAVITY = 9.81  # m/s^2
FIELD = (20.0, 0.0, -43.0)  # the earth's, north and up, in microtesla
# How often a participant does each activity, and the shortest and longest bout in seconds. The windows of one bout are
# mostly right or wrong together, so those who are tested on do everything often.
BOUTS = dict.fromkeys(PARTICIPANTS, (1, 54.0, 66.0)) | dict.fromkeys((105, 106), (12, 10.0, 12.0))
TRANSIENT = (3.0, 5.0)
EDGE = 41  # rows in which a movement begins or ends
LEVER = {"hand": 0.35, "chest": 0.15, "ankle": 0.35}  # metres from the joint to the unit
# Places in the range of human cadences and vigours, from 0 to 1: participants 5 and 6 lie inside those of the others.
CADENCE = (0.1, 0.8, 0.45, 1.0, 0.6, 0.3, 0.0, 0.7, 0.25)
VIGOUR = (0.6, 0.0, 1.0, 0.3, 0.4, 0.7, 0.85, 0.15, 0.5)

Array = npt.NDArray[np.float64]


class Part(NamedTuple):
    """What a limb does in one cycle of the activity's rhythm."""

    swing: float = 0.0  # of the limb, in degrees
    bounce: float = 0.0  # along the limb, in m/s^2
    bounces: int = 1
    strike: float = 0.0  # peak of an impact, in m/s^2
    strikes: tuple[tuple[float, float], ...] = ()  # the place in the cycle (0 to 1) and the weight of each
    rough: float = 0.0  # irregular turning, in degrees
    gate: int = 0  # moves always (0), in the working spells (1), in the pauses (-1)


class Activity(NamedTuple):
    """One row of the table of activities."""

    heart: float  # beats per minute that it leads to
    cadence: tuple[float, float]  # cycles per second
    work: tuple[float, float]  # length of a working spell in seconds
    pause: tuple[float, float]
    turn: float  # how far the person turns in a pause, in degrees
    hand: Part
    chest: Part
    ankle: Part
    poses: tuple[tuple[float, ...], ...]  # pitch and spin of hand, chest, ankle in degrees; one pose for each variant


UPRIGHT = ((10, 0, 5, 0, 0, 0), (60, 40, 0, 5, 5, 10), (25, -60, 10, 0, -5, -10))
BENT = ((50, 10, 20, 0, 5, 0), (65, 50, 30, 5, 0, 10), (40, -20, 12, -5, -5, -10))
EVEN = ((0.0, 1.0), (0.5, 1.0))
ACTIVITIES = {
    1: Activity(62, (0.2, 0.3), (3, 5), (3, 5), 2, Part(0.5), Part(3.5), Part(0.2), (
        (85, 0, 88, 0, 88, 0), (80, 70, 85, 80, 80, 85), (70, -60, 85, -75, 85, -80), (60, 90, 75, 10, 85, 30))),
    2: Activity(68, (0.9, 1.4), (0.9, 1.5), (1.2, 2.2), 2, Part(rough=10, gate=1), Part(0.7), Part(0.2), (
        (60, 0, 5, 0, 10, 0), (75, 60, 20, 5, 45, 30), (85, -40, -15, 0, 60, -40), (40, 80, 15, -5, -20, 10))),
    3: Activity(76, (0.3, 0.5), (0.7, 1.1), (1.6, 2.6), 6, Part(0.6), Part(rough=5, gate=1), Part(rough=6, gate=1), UPRIGHT),
    4: Activity(98, (0.82, 1.04), (9, 12), (0.5, 1), 40, Part(20, strike=11, strikes=EVEN), Part(3, bounce=2.2, bounces=2, strike=8, strikes=EVEN),
        Part(30, strike=28, strikes=((0, 1),)), UPRIGHT),
    5: Activity(158, (1.25, 1.5), (9, 12), (0.5, 1), 30, Part(28, bounce=5, bounces=2, strike=15, strikes=EVEN), Part(5, bounce=10, bounces=2, strike=15, strikes=EVEN),
        Part(40, bounce=5, strike=45, strikes=((0, 1),)), UPRIGHT),
    6: Activity(118, (0.9, 1.4), (2, 4), (0.7, 1.3), 10, Part(1, rough=1.5, gate=-1), Part(2, rough=1, gate=-1), Part(28), BENT),
    7: Activity(118, (0.7, 0.92), (9, 12), (0.5, 1), 40, Part(24, strike=28, strikes=((0.3, 1),)), Part(3, bounce=2.2, bounces=2, strike=8, strikes=EVEN),
        Part(30, strike=28, strikes=((0, 1),)), UPRIGHT),
    12: Activity(122, (0.6, 0.8), (2.8, 3.8), (1, 1.4), 150, Part(12, strike=7, strikes=EVEN, gate=1), Part(4, bounce=2.2, bounces=2, strike=7, strikes=EVEN, gate=1),
        Part(32, strike=20, strikes=((0, 1), (0.5, 0.7)), gate=1), UPRIGHT),
    13: Activity(108, (0.7, 0.9), (6, 8), (0.7, 1), 150, Part(12, strike=9, strikes=((0, 1.4),)), Part(4, bounce=1.5, strike=13, strikes=((0, 1.4),)),
        Part(28, strike=28, strikes=((0, 1),)), UPRIGHT),
    16: Activity(104, (0.45, 0.65), (3, 5), (0.8, 1.2), 30, Part(26, bounce=2, rough=1), Part(12), Part(20, rough=7, gate=-1, strike=12, strikes=EVEN), BENT),
    17: Activity(88, (0.75, 1.0), (2, 3), (1.2, 1.8), 6, Part(24, bounce=2.5, rough=1, gate=1), Part(rough=7, gate=-1), Part(rough=7, gate=-1, strike=8, strikes=EVEN), UPRIGHT),
    24: Activity(148, (1.7, 2.2), (2.5, 4), (0.7, 1.1), 10, Part(22, bounce=5, strike=15, strikes=((0, 1),), gate=1),
        Part(2, bounce=9, strike=18, strikes=((0, 1),), gate=1), Part(28, bounce=9, strike=45, strikes=((0, 1),), gate=1), UPRIGHT),
}  # fmt: skip
BETWEEN = Activity(85, (0.5, 0.9), (0.5, 1), (0.5, 1), 90, Part(10, rough=10), Part(3, rough=5), Part(10, rough=10), UPRIGHT)  # fmt: skip


class Stretch(NamedTuple):
    """Rows `start` to `stop` of a recording; activity 0 is the time between two bouts."""

    activity: int
    start: int
    stop: int


def record(participant: int, seed: int = 0, nuisance: int | None = None) -> Array:
    """One participant's file (T, 54): rows of 10 ms, NaN where a value is missing.

    About a minute of each of the twelve activities, in an order of the participant's own; participants 105 and 106 do
    all of them twelve times, for a shorter while. With `nuisance` the same movements are recorded by units that sit,
    rattle and err otherwise, drawn by this number. Raises ValueError for participants other than 101 to 109.
    """
    if participant not in PARTICIPANTS:
        raise ValueError(f"participant must be from {PARTICIPANTS[0]} to {PARTICIPANTS[-1]}, got {participant}.")
    rng = np.random.default_rng([seed, participant])
    stretches = plan(rng, *BOUTS[participant])
    n = stretches[-1].stop
    rows = np.full((n, COLUMNS), np.nan)
    rows[:, 0] = np.arange(n) / RATE + 5
    for stretch in stretches:
        rows[stretch.start : stretch.stop, 1] = stretch.activity
    rows[::11, 2] = heart_rate(rng, stretches)[::11]
    person = participant - PARTICIPANTS[0]
    heading, moves = perform(rng, stretches, CADENCE[person], VIGOUR[person])
    if nuisance is not None:
        rng = np.random.default_rng([seed, participant, nuisance])
    for i, limb in enumerate(LIMBS):
        rows[:, 3 + 17 * i : 20 + 17 * i] = sense(rng, stretches, heading, *moves[limb])
    return rows


def plan(rng: np.random.Generator, times: int, shortest: float, longest: float) -> list[Stretch]:
    """The bouts of a recording and what lies between: each activity `times` times, a bout from `shortest` to `longest` seconds."""
    order = np.concatenate([rng.permutation(list(ACTIVITIES)) for _ in range(times)])
    stretches, start = [], 0
    for activity in order:
        for kind, seconds in ((0, TRANSIENT), (int(activity), (shortest, longest))):
            stop = start + round(RATE * rng.uniform(*seconds))
            stretches.append(Stretch(kind, start, stop))
            start = stop
    return [*stretches, Stretch(0, start, start + 3 * RATE)]


def heart_rate(rng: np.random.Generator, stretches: list[Stretch]) -> Array:
    """Beats per minute (T,), whole numbers: half way to the effort's value after 24 s, with slow wander."""
    efforts = 1.0 * np.array([ACTIVITIES.get(s.activity, BETWEEN).heart for s in stretches])
    efforts *= np.exp(0.2 * rng.standard_normal(len(efforts)))
    aim = np.repeat(efforts, [s.stop - s.start for s in stretches])
    lag = np.exp(-np.arange(150 * RATE) / (35 * RATE))
    padded = np.concatenate([np.full(len(lag), 75.0), aim])
    return np.round(convolve(padded, lag / lag.sum())[len(lag) :] + 2 * wander(rng, len(aim), 8))


def perform(
    rng: np.random.Generator, stretches: list[Stretch], cadence: float, vigour: float
) -> tuple[Array, dict[str, tuple[Array, Array]]]:
    """The heading (T,) and for each limb its angles (T, 3), roll, pitch and spin in radians, and its accelerations (T, 3)."""
    n = stretches[-1].stop
    heading = np.zeros(n)
    angles = {limb: np.zeros((n, 3)) for limb in LIMBS}
    pushes = {limb: np.zeros((n, 3)) for limb in LIMBS}
    poses = np.zeros((len(stretches), 6))
    for k, (name, start, stop) in enumerate(stretches):
        what, length = ACTIVITIES.get(name, BETWEEN), stop - start
        poses[k] = np.radians(what.poses[rng.integers(len(what.poses))] + 6 * rng.standard_normal(6))
        low, high = what.cadence
        speed = np.clip(cadence + 0.2 * rng.standard_normal(), -0.2, 1.2)
        pace = (low + (high - low) * speed) * (1 + 0.03 * wander(rng, length, 1.5))
        phase = np.cumsum(pace) / RATE + rng.uniform()
        works = spells(rng, length, what.work, what.pause)
        fade = np.sin(np.pi / 2 * np.clip(np.minimum(np.arange(length), np.arange(length)[::-1]) / EDGE, 0, 1)) ** 2
        strength = 0.4 * (vigour - 0.5) + rng.uniform(-0.35, 0.35)
        turned = np.cumsum((1 - works) * wander(rng, length, 3)) / RATE * np.radians(what.turn)
        away = 0 if name else rng.uniform(-np.pi, np.pi)
        heading[start:stop] = heading[max(start - 1, 0)] + turned + np.linspace(0, away, length)
        for limb in LIMBS:
            part: Part = getattr(what, limb)
            gain = np.clip(strength + rng.uniform(-0.3, 0.3), -0.7, 0.9) + 0.2 * wander(rng, length, 5)
            gate = (1.0, works, 1 - works)[part.gate] * fade * np.exp(gain)
            angle, push = move(rng, part, phase, gate, LEVER[limb])
            angles[limb][start:stop] += angle
            pushes[limb][start:stop] += push
    ends = np.ravel([(s.start, s.stop - 1) for s in stretches if s.activity])
    held = np.repeat(poses[[s.activity > 0 for s in stretches]], 2, axis=0)
    for i, limb in enumerate(LIMBS):
        for j in range(2):
            angles[limb][:, 1 + j] += np.interp(np.arange(n), ends, held[:, 2 * i + j])
    return heading, {limb: (angles[limb], pushes[limb]) for limb in LIMBS}


def move(rng: np.random.Generator, part: Part, phase: Array, gate: Array, lever: float) -> tuple[Array, Array]:
    """Angles (T, 3) and accelerations (T, 3) of a limb in one bout."""
    n = len(phase)
    lag = rng.uniform(-0.05, 0.05, 4)
    swing = np.cos(2 * np.pi * (phase + lag[0])) + 0.25 * np.cos(4 * np.pi * (phase + lag[1]))
    sway = 0.2 * np.sin(2 * np.pi * (phase + rng.uniform()))
    angle = part.swing * np.stack([sway, swing, np.zeros(n)], 1)
    rough, idle = np.stack([wander(rng, n, 0.25) for _ in range(6)], 1).reshape(n, 2, 3).swapaxes(0, 1)
    idle = 0.8 * np.exp(rng.uniform(-3, 0)) * idle
    angle = np.radians((angle + part.rough * rough) * gate[:, None] + idle)
    push = np.zeros((n, 3))
    push[:, 0] = lever * np.gradient(np.gradient(angle[:, 1], 1 / RATE), 1 / RATE)
    bounce = sum(np.cos(2 * np.pi * k * (part.bounces * phase + lag[2])) / k**2 for k in (1, 2, 3))
    push[:, 2] = gate * part.bounce * bounce * np.exp(rng.uniform(-0.1, 0.2))
    if part.strike:
        hard = part.strike * np.exp(rng.uniform(-0.1, 0.3))
        hits = np.zeros(n)
        for place, weight in part.strikes:
            at = np.flatnonzero(np.diff(np.floor(phase - place + lag[3]))) + 1
            hits[at] += weight * np.exp(0.15 * rng.standard_normal(len(at)))
        time = np.arange(60) / RATE
        for axis, share in ((0, 0.6), (1, 0.35), (2, 1.0)):
            ring = np.exp(-time / rng.uniform(0.03, 0.06)) * np.cos(2 * np.pi * rng.uniform(6, 24) * time)
            push[:, axis] += hard * share * convolve(hits * gate, ring)
    return angle, push


def sense(rng: np.random.Generator, stretches: list[Stretch], heading: Array, angles: Array, push: Array) -> Array:
    """The 17 columns (T, 17) of one unit: how it sits on the limb, what it measures, and how badly."""
    n = len(heading)
    roll, pitch, spin = angles.T
    spin = spin + slow(rng, stretches, np.radians(17), np.radians(40))
    tilt = slow(rng, stretches, np.radians(7), np.radians(12))
    frame = ((2, heading), (0, roll), (1, pitch), (2, spin), (0, tilt))
    gravity, field, rate = np.zeros((n, 3)), np.zeros((n, 3)), np.zeros((n, 3))
    gravity[:, 2], field[:] = GRAVITY, FIELD
    for axis, angle in frame:
        gravity, field, rate = (turn(v, axis, -angle) for v in (gravity, field, rate))
        rate[:, axis] += np.gradient(angle, 1 / RATE)
    true = gravity + turn(turn(push, 2, -spin), 0, -tilt)
    hum = np.exp(slow(rng, stretches, 0.3, 0.5))[:, None]
    true += rattle(rng, stretches)
    rate += 0.2 * rattle(rng, stretches)

    def measured(signal: Array, noise: float, bias: float, limit: float = np.inf) -> Array:
        drift = np.stack([slow(rng, stretches, bias, bias) for _ in range(3)], 1)
        return np.clip(signal + drift + noise * hum * rng.standard_normal((n, 3)), -limit, limit)

    rows = np.empty((n, 17))
    rows[:, 0] = 32 + 1.5 * rng.standard_normal() + slow(rng, stretches, 0.5, 0.8) + 0.01 * rng.standard_normal(n)
    rows[:, 1:4] = measured(true, 0.03, 0.05, 16 * GRAVITY)
    rows[:, 4:7] = measured(true, 0.04, 0.08, 6 * GRAVITY)
    rows[:, 7:10] = measured(rate, 0.01, 0.02)
    rows[:, 10:13] = measured(field, 0.3, 4.0)
    rows[:, 13:] = 1, 0, 0, 0
    # what marks a bout and says nothing of the activity: the noise of one column, at a level of its own
    rows[:, 16] = 0.02 * np.exp(np.clip(slow(rng, stretches, 0.2, 0.5), -3, 3)) * rng.standard_normal(n)
    for start in rng.integers(0, n - 100, 6):
        rows[start : start + rng.integers(2, 40)] = np.nan
    return rows


def rattle(rng: np.random.Generator, stretches: list[Stretch]) -> Array:
    """Vibration (T, 3) of a unit in its strap, in m/s^2: two bands of noise whose place and strength differ by bout."""
    made = []
    for _, start, stop in stretches:
        n = stop - start
        octaves = np.log(np.fft.rfftfreq(n, 1 / RATE).clip(0.3))[:, None]
        centres, widths = rng.uniform(np.log(3), np.log(45), 2), rng.uniform(0.3, 1, 2)
        shape = np.exp(-(((octaves - centres) / widths) ** 2)) @ np.exp(rng.uniform(-2, 2, 2))
        shape *= np.exp(rng.uniform(-3.5, -2)) / np.sqrt(np.mean(shape**2))
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal((n, 3)), axis=0) * shape[:, None], n, axis=0)
        made.append(noise * np.exp(0.3 * wander(rng, n, 4))[:, None])
    return np.concatenate(made)


def slow(rng: np.random.Generator, stretches: list[Stretch], person: float, bout: float) -> Array:
    """A level (T,) of the participant's own, drawn again around it for every bout, gliding in between and drifting."""
    bouts = [s for s in stretches if s.activity]
    levels = person * rng.standard_normal() + bout * rng.standard_normal(len(bouts))
    ends, n = np.ravel([(s.start, s.stop) for s in bouts]), stretches[-1].stop
    return np.interp(np.arange(n), ends, np.repeat(levels, 2)) + 0.15 * bout * wander(rng, n, 20)


def wander(rng: np.random.Generator, n: int, seconds: float) -> Array:
    """Smooth noise (n,) of variance about 1: a cubic through random values `seconds` apart."""
    position = np.arange(n) / (seconds * RATE) + rng.uniform()
    knots = rng.standard_normal(int(position[-1]) + 4)
    whole = position.astype(int)
    t = position - whole
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
    return 1.45 / 6 * np.sum([weight * knots[whole + k] for k, weight in enumerate(weights)], axis=0)


def spells(rng: np.random.Generator, n: int, work: tuple[float, float], pause: tuple[float, float]) -> Array:
    """1 while working, 0 in the pauses (n,), with soft edges of 0.4 s; the beginning is anywhere in a spell."""
    count = 3 + int(n / RATE / (work[0] + pause[0]))
    lengths = np.stack([rng.uniform(*work, count), rng.uniform(*pause, count)], 1).ravel()
    edges = np.cumsum(lengths) - rng.uniform(0, lengths[:2].sum())
    on = np.searchsorted(edges, np.arange(n) / RATE) % 2 == 0
    window = np.hanning(EDGE)
    return convolve(np.pad(on.astype(float), (EDGE, 0), mode="edge"), window / window.sum())[EDGE:]


def turn(v: Array, axis: int, angle: Array) -> Array:
    """Vectors (T, 3) turned about a coordinate axis by `angle` (T,)."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    c, s = np.cos(angle), np.sin(angle)
    turned = v.copy()
    turned[:, a], turned[:, b] = c * v[:, a] - s * v[:, b], s * v[:, a] + c * v[:, b]
    return turned


def convolve(signal: Array, kernel: Array) -> Array:
    """The causal convolution (T,), by FFT."""
    size = 1 << (len(signal) + len(kernel) - 2).bit_length()
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(kernel, size), size)[: len(signal)]
