"""Generated voices: sources, resonators and rooms are where they were asked to be. Formants are in kHz."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmlite.datasets.synthetic import voices
from vmlite.datasets.synthetic.voices import (
    BANDWIDTHS,
    HOP,
    PHONES,
    SAMPLE_RATE,
    SAMPLES,
    SPEAKERS,
    VOICES,
    WORDS,
    formant_gain,
    generate,
    glottal_pulses,
    spectra,
    waveform,
)

FRAMES = SAMPLES // HOP + 1
HEARD, UNHEARD = SPEAKERS[:8], SPEAKERS[8:]


def clips(n: int, seed: int, rooms: str = "own", speaker: int | None = None, word: int | None = None):
    """`n` recordings in [-1, 1], their words and their speakers, at random where not named."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(len(WORDS), (n,), generator=generator) if word is None else torch.full((n,), word)
    speakers = torch.randint(len(SPEAKERS), (n,), generator=generator) if speaker is None else torch.full((n,), speaker)
    return generate(words, speakers, seed, rooms).float() / 32768, words, speakers


def sustained(formants: list[float], pitch: float) -> torch.Tensor:
    """A vowel of one second (8000,)."""
    frequency = torch.linspace(0, SAMPLE_RATE / 2000, voices.N_FFT // 2 + 1)[:, None]
    gain = formant_gain(torch.tensor(formants).expand(1, FRAMES, 4), frequency)
    return waveform(spectra(glottal_pulses(torch.full((1, SAMPLES), pitch))) * gain)[0]


def period(wave: torch.Tensor, low: int, high: int) -> int:
    """The lag from `low` to `high` samples at which the autocorrelation is largest."""
    spectrum = torch.fft.rfft(wave, 2 * len(wave)).abs().square()
    return low + int(torch.fft.irfft(spectrum)[low : high + 1].argmax())


def background(waves: torch.Tensor) -> torch.Tensor:
    """Spectra (N, 32) in dB, without their mean, of the first 50 ms, in which nobody speaks yet."""
    power = torch.fft.rfft(waves[:, :400] * torch.hann_window(400)).abs().square()
    decibels = 10 * power[:, 1:193].unflatten(1, (32, 6)).mean(2).log10()
    return decibels - decibels.mean(1, keepdim=True)


def test_clips_are_one_second_of_int16_and_never_clipped():
    words = torch.arange(len(WORDS)).repeat(len(SPEAKERS))
    speakers = torch.arange(len(SPEAKERS)).repeat_interleave(len(WORDS))
    waves = generate(words, speakers, 0)
    assert (waves.shape, waves.dtype) == ((120, SAMPLE_RATE), torch.int16)
    peak = waves.int().abs().amax(1)
    assert peak.max() < 32767
    assert peak.min() > 0.1 * 32768
    assert waves.float().mean(1).abs().max() < 0.02 * 32768


def test_any_number_of_clips_can_be_made():
    for n in (0, 1, voices.CHUNK + 1):
        assert generate(torch.zeros(n).long(), torch.zeros(n).long(), 0).shape == (n, SAMPLES)


def test_seed_decides_the_clips():
    words, speakers = torch.arange(10), torch.arange(10)
    first = generate(words, speakers, 3, "shuffled")
    assert torch.equal(first, generate(words, speakers, 3, "shuffled"))
    assert not torch.equal(first, generate(words, speakers, 4, "shuffled"))


def test_global_randomness_plays_no_part():
    words = torch.arange(3)
    state = torch.get_rng_state()
    first = generate(words, words, 0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(generate(words, words, 0), first)


def test_two_clips_of_a_word_by_one_speaker_differ():
    waves, _, _ = clips(2, seed=0, speaker=0, word=0)
    assert (waves[0] - waves[1]).abs().max() > 0.05


@given(st.floats(80, 280))
def test_pulses_repeat_at_the_pitch(pitch):
    wave = glottal_pulses(torch.full((1, SAMPLES), pitch))[0]
    spectrum = (wave * torch.hann_window(SAMPLES)).to(torch.float64)
    level = torch.fft.rfft(spectrum).abs()
    harmonics = torch.arange(1, int(3900 / pitch)) * pitch
    near = level[(harmonics.round()[:, None] + torch.arange(-2, 3)).long()].amax(1)
    between = level[((harmonics + pitch / 2).round()).long()]
    assert (near > 100 * between).all()
    assert near.max() < 2 * near.min()  # equally strong, but for what the window loses between two bins


@pytest.mark.parametrize("pitch", [92.0, 150.0, 258.0])
def test_a_sustained_vowel_has_the_pitch_that_was_asked_for(pitch):
    wave = sustained(list(PHONES["e"][:4]), pitch)
    assert SAMPLE_RATE / period(wave, 25, 120) == pytest.approx(pitch, rel=0.025)


@given(st.tuples(st.floats(0.25, 0.7), st.floats(1.1, 1.7), st.floats(2.2, 2.7), st.floats(3.2, 3.7)))
def test_resonators_peak_at_the_formants(formants):
    """Within half a bandwidth: on the slopes of the others a peak moves a little."""
    frequency = torch.linspace(0, 4, 2001)[:, None]
    gain = formant_gain(torch.tensor(formants).expand(1, 1, 4), frequency)[0, :, 0].abs()
    assert gain[0] == pytest.approx(1)
    peaks = frequency[1:-1, 0][(gain[1:-1] > gain[:-2]) & (gain[1:-1] > gain[2:])]
    assert len(peaks) == 4
    assert ((peaks - torch.tensor(formants)).abs() < torch.tensor(BANDWIDTHS) / 2).all()


def test_a_resonator_has_its_bandwidth():
    """Half the power is left half a bandwidth from a narrow peak; the other resonators hardly change over that distance."""
    frequency = torch.tensor([1.0, 1.0 + BANDWIDTHS[1] / 2])[:, None]
    formants = torch.tensor([30.0, 1.0, 30.0, 30.0]).expand(1, 1, 4)
    at, beside = formant_gain(formants, frequency)[0, :, 0].abs().square()
    assert at == pytest.approx((1 / BANDWIDTHS[1]) ** 2, rel=0.01)
    assert beside / at == pytest.approx(0.5, abs=0.04)


def test_a_vowel_is_loudest_at_its_formants():
    """Low pitch, so that harmonics lie close enough to show the peaks."""
    formants = list(PHONES["e"][:4])
    level = torch.fft.rfft(sustained(formants, 40.0) * torch.hann_window(SAMPLES)).abs()  # one bin is 1 Hz
    smooth = torch.nn.functional.max_pool1d(level[None], 41, 1, padding=20)[0]
    for centre in formants[:3]:
        around = smooth[int(1000 * centre) - 300 : int(1000 * centre) + 300]
        plateau = (around == around.max()).nonzero().float().mean() - 300
        assert abs(plateau) < 45


def test_a_longer_tract_lowers_the_formants():
    """The same word, seed and pitch; only the tract differs: its average spectrum is stretched by the ratio."""
    words = torch.full((60,), WORDS.index("may"))
    centroid = []
    for tract in (0.9, 1.15):
        voice = torch.tensor(voices.Voice(100.0, tract, 1.0, 0.0, -3.0, 0.5)).expand(60, 6)
        dry = voices.speak(words, voice, torch.Generator().manual_seed(0))
        level = torch.fft.rfft(dry).abs()[:, 700:2900].mean(0)
        smooth = torch.nn.functional.avg_pool1d(level[None], 151, 1, padding=75)[0]
        centroid.append(700 + int(smooth[500:1900].argmax()) + 500)  # the second formant of e and i
    assert centroid[0] / centroid[1] == pytest.approx(1.15 / 0.9, rel=0.12)


def test_nothing_is_said_before_the_onset_and_after_the_end():
    voice = torch.tensor([VOICES[name][0] for name in SPEAKERS])
    dry = voices.speak(torch.arange(12) % 10, voice, torch.Generator().manual_seed(0))
    loudest = dry.abs().amax(1)
    assert (dry[:, :200].abs().amax(1) < 1e-3 * loudest).all()
    assert (dry[:, -200:].abs().amax(1) < 1e-3 * loudest).all()


def test_frames_leave_no_clicks():
    """Filtering with a gain of one everywhere gives the source back."""
    source = glottal_pulses(torch.full((2, SAMPLES), 110.0))
    torch.testing.assert_close(waveform(spectra(source)), source, rtol=0, atol=1e-3)


def test_fricatives_are_noise_of_high_frequency_and_nasals_are_low():
    def high_share(word: str) -> torch.Tensor:
        """Power above 2.5 kHz to that below, at the best moment of each clip."""
        voice = torch.tensor(VOICES["v09"][0]).expand(20, 6)
        words = torch.full((20,), WORDS.index(word))
        power = spectra(voices.speak(words, voice, torch.Generator().manual_seed(1))).abs().square()
        loud = power.sum(1) > 0.01 * power.sum(1).amax(1, keepdim=True)
        share = power[:, 80:].sum(1) / power[:, :80].sum(1).clamp_min(1e-9)
        return (share * loud).amax(1)

    assert (high_share("say") > 1).all()
    assert (high_share("may") < 0.1).all()


def test_a_plosive_has_a_silence_before_its_burst():
    voice = torch.tensor(VOICES["v09"][0]).expand(20, 6)
    words = torch.full((20,), WORDS.index("eat"))
    dry = voices.speak(words, voice, torch.Generator().manual_seed(2))
    level = dry.unfold(1, 80, 40).square().mean(2).sqrt()  # 10 ms every 5 ms
    quiet = level < 0.02 * level.amax(1, keepdim=True)
    for row in quiet:
        spoken = (~row).nonzero()[:, 0]
        inside = row[spoken[0] : spoken[-1]]
        assert inside.sum() >= 3


def test_words_of_a_pair_share_their_sounds_but_not_their_order():
    for first, second in (("say", "ace"), ("may", "aim"), ("no", "own"), ("tea", "eat"), ("you", "we")):
        sounds = [voices._SPELLINGS[word] for word in (first, second)]
        assert sorted(sounds[0]) == sorted(sounds[1])
        assert sounds[0] != sounds[1]
    assert len(set(voices._SPELLINGS.values())) == len(WORDS) == 10


def test_a_speaker_is_always_recorded_before_the_same_background():
    """The nearest mean background names the speaker of a new clip; two seeds share the rooms."""
    waves, _, speakers = clips(480, seed=0)
    means = torch.stack([background(waves[speakers == s]).mean(0) for s in range(12)])
    waves, _, speakers = clips(240, seed=1)
    nearest = torch.cdist(background(waves), means).argmin(1)
    assert (nearest == speakers).float().mean() > 0.8


def test_shuffled_backgrounds_do_not_name_the_speaker():
    """As above; by chance 1 of 12 is right."""
    waves, _, speakers = clips(480, seed=0)
    means = torch.stack([background(waves[speakers == s]).mean(0) for s in range(12)])
    waves, _, speakers = clips(480, seed=1, rooms="shuffled")
    nearest = torch.cdist(background(waves), means).argmin(1)
    assert (nearest == speakers).float().mean() < 1 / 12 + 0.05
    assert len(nearest.unique()) == 12


def test_the_last_four_speakers_lie_inside_the_range_of_the_others():
    for habit in range(6):
        heard = [VOICES[name][0][habit] for name in HEARD]
        assert all(min(heard) < VOICES[name][0][habit] < max(heard) for name in UNHEARD)


@pytest.mark.parametrize(
    ("words", "speakers", "rooms", "message"),
    [
        ([0], [0], "none", "rooms must be one of own, shuffled, got 'none'"),
        ([10], [0], "own", "words must lie from 0 to 9"),
        ([0], [-1], "own", "speakers must lie from 0 to 11"),
        ([0, 1], [0], "own", "words and speakers must be"),
    ],
)
def test_what_cannot_be_spoken_is_refused(words, speakers, rooms, message):
    with pytest.raises(ValueError, match=message):
        generate(torch.tensor(words), torch.tensor(speakers), 0, rooms)
