"""Generated voices: glottal pulses and noise through moving formant resonators (Fant's source-filter model).

Ten words in the voices of twelve speakers. The words come in pairs with the same sounds in another order, so that the
average spectrum of a clip names the pair and not the word. The formants of the vowels are close to those of Peterson
and Barney (1952), the cascade of resonators is Klatt's (1980).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 8000
SAMPLES = 8000  # of a clip
N_FFT, HOP = 256, 64  # of the short-time spectra that the resonators act on
CHUNK = 50  # clips made at once
CONTROL = 8  # samples from one value of an amplitude contour to the next
TAIL = 2000  # longest echo, in samples
BANDWIDTHS = (0.07, 0.09, 0.13, 0.2)  # of the formants, in kHz
ROOM_MODES = ("own", "shuffled")


class Phone(NamedTuple):
    """Targets of one sound: formants in kHz, amplitudes of the sources, the band of its noise in kHz, its length in s."""

    f1: float
    f2: float
    f3: float
    f4: float
    voice: float
    breath: float
    hiss: float
    centre: float
    width: float
    seconds: float


PHONES = {
    "i": Phone(0.28, 2.25, 2.95, 3.6, 1.0, 0, 0, 3.0, 1.0, 0.14),
    "e": Phone(0.52, 1.85, 2.55, 3.5, 1.0, 0, 0, 3.0, 1.0, 0.11),
    "o": Phone(0.56, 0.88, 2.45, 3.4, 1.0, 0, 0, 3.0, 1.0, 0.11),
    "u": Phone(0.31, 0.82, 2.25, 3.3, 1.0, 0, 0, 3.0, 1.0, 0.14),
    "m": Phone(0.25, 0.95, 2.20, 3.3, 0.4, 0, 0, 3.0, 1.0, 0.10),
    "n": Phone(0.25, 1.60, 2.60, 3.4, 0.4, 0, 0, 3.0, 1.0, 0.10),
    "s": Phone(0.35, 1.70, 2.60, 3.5, 0, 0, 0.5, 3.4, 0.9, 0.14),
    ".": Phone(0.30, 1.90, 2.70, 3.5, 0, 0, 0, 2.8, 1.6, 0.07),  # closure
    "t": Phone(0.30, 1.90, 2.70, 3.5, 0, 0, 0.8, 2.8, 1.6, 0.015),  # burst
    "h": Phone(0.32, 2.10, 2.85, 3.6, 0, 0.5, 0.1, 2.8, 1.6, 0.04),  # aspiration after a burst
}

_SPELLINGS = {
    "say": "sei", "ace": "eis", "may": "mei", "aim": "eim", "no": "nou",
    "own": "oun", "tea": ".thi", "eat": "i.th", "you": "iu", "we": "ui",
}  # fmt: skip
WORDS = tuple(_SPELLINGS)


class Voice(NamedTuple):
    """Habits of a speaker. `tract` is the length of the vocal tract: all formants are divided by it."""

    pitch: float  # Hz
    tract: float
    rate: float
    breath: float
    tilt: float  # of the glottal spectrum, dB per octave
    level: float  # peak of a clip


class Room(NamedTuple):
    """What a speaker is recorded before: coloured noise with a hump, mains hum, and an echo."""

    slope: float  # of the noise, dB per octave
    hump: float  # kHz
    hum: float  # Hz
    hum_share: float  # of the background's power
    echo: float  # seconds until it has fallen by 60 dB


# The last four, who are not in the training set of the data set "voices", lie inside the range of the others.
VOICES = {
    "v01": (Voice(92, 1.16, 0.90, 0.04, -7.5, 0.50), Room(-6, 0.4, 50, 0.3, 0.10)),
    "v02": (Voice(258, 0.84, 1.12, 0.10, -5.0, 0.35), Room(0, 2.8, 120, 0.0, 0.30)),
    "v03": (Voice(110, 1.02, 1.15, 0.08, -6.0, 0.60), Room(-3, 1.6, 100, 0.6, 0.05)),
    "v04": (Voice(225, 0.94, 0.88, 0.03, -6.5, 0.25), Room(3, 0.9, 60, 0.1, 0.22)),
    "v05": (Voice(132, 1.18, 1.05, 0.12, -4.5, 0.30), Room(-4, 3.4, 60, 0.5, 0.26)),
    "v06": (Voice(195, 0.86, 0.95, 0.02, -7.5, 0.55), Room(-1, 0.6, 150, 0.2, 0.14)),
    "v07": (Voice(150, 0.92, 1.10, 0.06, -8.0, 0.40), Room(2, 2.1, 50, 0.4, 0.08)),
    "v08": (Voice(172, 1.10, 1.00, 0.07, -5.5, 0.45), Room(-2, 1.2, 180, 0.7, 0.18)),
    "v09": (Voice(120, 1.08, 1.00, 0.05, -6.5, 0.38), Room(-3, 0.8, 60, 0.2, 0.20)),
    "v10": (Voice(210, 0.90, 1.05, 0.08, -5.5, 0.48), Room(1, 1.9, 100, 0.1, 0.12)),
    "v11": (Voice(145, 1.00, 0.95, 0.04, -7.0, 0.32), Room(-5, 2.5, 120, 0.4, 0.16)),
    "v12": (Voice(180, 0.97, 1.08, 0.09, -6.0, 0.52), Room(0, 1.4, 50, 0.5, 0.24)),
}
SPEAKERS = tuple(VOICES)


def glottal_pulses(pitch: Tensor) -> Tensor:
    """A train of pulses (N, T) with the pitch (N, T) in Hz: all harmonics below half the sample rate, equally strong.

    The sum of their cosines in closed form (Dirichlet kernel).
    """
    phase = (pitch.double() / SAMPLE_RATE).cumsum(-1).frac().to(pitch.dtype)
    harmonics = (SAMPLE_RATE / 2 / pitch.amax(-1, keepdim=True)).floor()
    near = torch.minimum(phase, 1 - phase) < 1e-4
    ratio = ((2 * harmonics + 1) * math.pi * phase).sin() / (math.pi * phase).sin().where(~near, 1)
    return (ratio.where(~near, 2 * harmonics + 1) - 1) / 2


def formant_gain(formants: Tensor, frequency: Tensor) -> Tensor:
    """Complex gain (N, F, T) of a cascade of resonators at `formants` (N, T, 4), at `frequency` (F, 1), both in kHz.

    Each resonator has gain 1 at 0 Hz and its bandwidth from `BANDWIDTHS`.
    """
    denominator = torch.ones((), dtype=torch.complex64)
    for centre, width in zip(formants[:, None].unbind(-1), BANDWIDTHS, strict=True):
        ratio = frequency / centre
        denominator = denominator * torch.complex(1 - ratio * frequency / centre, ratio * width / centre)
    return denominator.reciprocal()


def spectra(wave: Tensor) -> Tensor:
    """Short-time spectra (N, N_FFT / 2 + 1, T / HOP + 1) of waveforms (N, T)."""
    return torch.stft(wave, N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True)


def waveform(spectra: Tensor) -> Tensor:
    """The inverse of `spectra`."""
    return torch.istft(spectra, N_FFT, HOP, window=torch.hann_window(N_FFT), length=HOP * (spectra.shape[-1] - 1))


def generate(words: Tensor, speakers: Tensor, seed: int, rooms: str = "own") -> Tensor:
    """One-second recordings (N, 8000) at 8 kHz as int16.

    Onset, rate, lengths of the sounds, pitch contour, formants, loudness and signal-to-noise ratio (14 to 32 dB) vary
    from clip to clip.

    Args:
        words, speakers: (N,) indices into `WORDS` and `SPEAKERS`.
        seed: decides everything but the speakers and their rooms.
        rooms: "own" puts each speaker before their own background; "shuffled" draws it anew for each clip, so that it
            says nothing about the speaker.

    Raises ValueError for other values of `rooms`, for indices out of range, and for two lengths.
    """
    if rooms not in ROOM_MODES:
        raise ValueError(f"rooms must be one of {', '.join(ROOM_MODES)}, got {rooms!r}.")
    if words.ndim != 1 or words.shape != speakers.shape:
        raise ValueError(
            f"words and speakers must be (N,) alike, got {tuple(words.shape)} and {tuple(speakers.shape)}."
        )
    for name, index, count in (("words", words, len(WORDS)), ("speakers", speakers, len(SPEAKERS))):
        if len(index) and (index.min() < 0 or index.max() >= count):
            raise ValueError(f"{name} must lie from 0 to {count - 1}, got {index.min()} to {index.max()}.")
    generator = torch.Generator().manual_seed(seed)
    made = torch.empty(len(words), SAMPLES, dtype=torch.int16)
    places = speakers if rooms == "own" else torch.randint(len(SPEAKERS), speakers.shape, generator=generator)
    habits = torch.tensor([voice for voice, _ in VOICES.values()])
    for start in range(0, len(words), CHUNK):
        part = slice(start, start + CHUNK)
        own = habits[speakers[part]]
        made[part] = (record(speak(words[part], own, generator), own, places[part], generator) * 32767).short()
    return made


def speak(words: Tensor, habits: Tensor, generator: torch.Generator) -> Tensor:
    """The words (N,) without a room (N, 8000); `habits` (N, 6) are the fields of each clip's `Voice`."""
    n = len(words)
    base, tract, rate, airy, slope, _ = habits.T[..., None]
    table = _word_table()[words]
    targets, seconds = table[..., :-1], table[..., -1]
    rate = rate * torch.exp(0.15 * torch.randn(n, 1, generator=generator))
    seconds = seconds / rate * torch.exp(0.2 * torch.randn(seconds.shape, generator=generator))
    seconds = seconds * (0.75 / seconds.sum(1, keepdim=True)).clamp(max=1)
    onset = 0.05 + (0.87 - seconds.sum(1)) * torch.rand(n, generator=generator)
    edges = onset[:, None] + F.pad(seconds.cumsum(1), (1, 0))

    amplitudes = shares(edges, SAMPLES // CONTROL + 1, CONTROL, 0.003) @ targets[..., 4:7]
    voiced, breath, hiss = F.interpolate(amplitudes.mT, SAMPLES, mode="linear", align_corners=True).unbind(1)
    edges[:, 0], edges[:, -1] = -torch.inf, torch.inf  # the tract is in its first position before the word begins
    held = shares(edges, SAMPLES // HOP + 1, HOP, 0.018)
    wobble = torch.exp(0.04 * torch.randn(n, targets.shape[1], 4, generator=generator))
    formants = held @ (targets[..., :4] * wobble) / tract[:, None]
    centre, width = (held @ targets[..., 7:])[:, None].unbind(-1)

    time = torch.arange(SAMPLES) / SAMPLE_RATE
    drift = F.interpolate(torch.randn(n, 1, 9, generator=generator), SAMPLES, mode="linear", align_corners=True)[:, 0]
    fall = 0.1 + 0.3 * torch.randn(n, 1, generator=generator)  # in log pitch per second
    offset = 0.08 * torch.randn(n, 1, generator=generator)
    pitch = base * torch.exp(offset + 0.025 * drift - fall * (time - onset[:, None]).clamp(0, 0.6))
    noise = torch.randn(n, SAMPLES, generator=generator)

    frequency = torch.linspace(0, SAMPLE_RATE / 2000, N_FFT // 2 + 1)[:, None]
    tilt = 10 ** (slope[:, None] * (frequency / 0.1).clamp_min(1).log2() / 20)
    throat = spectra(glottal_pulses(pitch) * voiced) * tilt
    throat += spectra(noise * (breath + voiced * airy)) * (0.15 * frequency)
    band = width * frequency / torch.complex(centre**2 - frequency**2, width * frequency)
    return waveform(throat * formant_gain(formants, frequency) + spectra(noise * hiss) * band)


def shares(edges: Tensor, steps: int, hop: int, smooth: float) -> Tensor:
    """How far each sound is on (N, steps, P), every `hop` samples, with `edges` (N, P + 1) smoothed, in seconds."""
    time = torch.arange(steps) * hop / SAMPLE_RATE
    passed = ((time[:, None] - edges[:, None]) / smooth).sigmoid()
    return passed[..., :-1] - passed[..., 1:]


def record(dry: Tensor, habits: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
    """Speech (N, 8000) as recorded in the rooms of the speakers `places` (N,), its peak set by the level in `habits`."""
    n, length = len(dry), SAMPLES + TAIL
    echoes, colours, hums, shares_of_hum = _rooms()
    wet = torch.fft.irfft(torch.fft.rfft(dry, length) * echoes[places], length)[:, :SAMPLES]
    noise = torch.randn(n, length // 2 + 1, dtype=torch.complex64, generator=generator) * colours[places]
    hiss = torch.fft.irfft(noise, length, norm="ortho")[:, :SAMPLES]
    turns = hums[places] * torch.arange(SAMPLES) / SAMPLE_RATE + torch.rand(n, 1, generator=generator)
    hum = sum(1.1 / k * (2 * math.pi * k * turns).sin() for k in (1, 2, 3))
    share = shares_of_hum[places]
    background = (1 - share).sqrt() * hiss + share.sqrt() * hum
    decibels = 14 + 18 * torch.rand(n, 1, generator=generator)
    mixed = wet + background * wet.square().mean(1, keepdim=True).sqrt() * 10 ** (-decibels / 20)
    level = habits[:, -1:] * 10 ** ((2 * torch.randn(n, 1, generator=generator)).clamp(-4, 4) / 20)
    return mixed / mixed.abs().amax(1, keepdim=True) * level


@functools.cache
def _rooms() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each room the spectrum of its echo (12, F) and of its noise (12, F), its hum and the hum's share (12, 1)."""
    slope, hump, hum, share, echo = torch.tensor([room for _, room in VOICES.values()]).T[..., None]
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(TAIL) / SAMPLE_RATE
    impulse = 0.1 * torch.randn(len(VOICES), TAIL, generator=generator) * torch.exp(-6.9 * time / echo)
    impulse[:, 0] = 1
    frequency = torch.linspace(0, SAMPLE_RATE / 2000, (SAMPLES + TAIL) // 2 + 1)
    colour = 10 ** (slope * (frequency.clamp_min(0.1) / 0.1).log2() / 20)
    colour = colour * (1 + 2 * torch.exp(-(((frequency - hump) / 0.3) ** 2)))
    colour = colour / colour.square().mean(1, keepdim=True).sqrt()
    return torch.fft.rfft(impulse, SAMPLES + TAIL), colour, hum, share


def _word_table() -> Tensor:
    """The targets (10, P, 10) of each word's sounds; a shorter word's last sound is repeated, without length."""
    longest = max(map(len, _SPELLINGS.values()))
    rows = [
        [PHONES[s] for s in spelling] + [PHONES[spelling[-1]]._replace(seconds=0.0)] * (longest - len(spelling))
        for spelling in _SPELLINGS.values()
    ]
    return torch.tensor(rows)
