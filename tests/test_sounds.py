"""Hearing a view: the sound changes as the spectrogram does; players and pictures hold what they should."""

import base64
import io
import re
import wave

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color
from torchaudio.functional import melscale_fbanks

from vmlite.datasets.speech import LogMel
from vmlite.show.pictures import PINK
from vmlite.show.sounds import hear, mel_band, players, spectrogram_grid

RATE, T, SIZE = 8000, 8000, 32
FRONT_END = LogMel(RATE, T, SIZE, mean=-20.0, std=12.0)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def noise():
    return 0.2 * torch.randn(T)


def heard_change(wave, change, front_end=FRONT_END):
    """What the same front end finds in the sound, in dB."""
    after, before = (front_end.decibels(w[None])[0, 0] for w in (hear(wave, change, front_end), wave))
    return after - before


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize(("size", "length"), [(2, 801), (20, 5000), (32, T), (33, 7919), (32, 128)])
@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_no_change_gives_the_waveform_back(size, length, dtype):
    wave = torch.randn(length, dtype=dtype)
    heard = hear(wave, torch.zeros(size, size), LogMel(RATE, length, size))
    assert heard.dtype == dtype
    torch.testing.assert_close(heard, wave, atol=1e-4, rtol=0)


def test_windows_of_the_paper():
    wave = torch.randn(150_526)
    for size in (64, 112):
        heard = hear(wave, torch.zeros(size, size), LogMel(16_000, 150_526, size))
        torch.testing.assert_close(heard, wave, atol=1e-4, rtol=0)


def test_six_decibels_everywhere_double_the_waveform():
    wave = noise()
    torch.testing.assert_close(hear(wave, torch.full((SIZE, SIZE), 6.0206), FRONT_END), 2 * wave, atol=1e-4, rtol=0)


def test_bands_lie_at_the_filters_peaks():
    filters = melscale_fbanks(4097, 0, RATE / 2, SIZE, RATE)
    peaks = filters.argmax(0) / 4096 * RATE / 2
    torch.testing.assert_close(mel_band(peaks, FRONT_END), torch.arange(SIZE).float(), atol=0.03, rtol=0)


def test_one_band_is_changed_and_its_distant_neighbours_are_not():
    change = torch.zeros(SIZE, SIZE)
    change[20] = 20
    found = heard_change(noise(), change).mean(1)
    assert found[20] > 12
    assert found[[*range(17), *range(24, SIZE)]].abs().max() < 0.5


def test_one_moment_is_changed_and_others_are_not():
    change = torch.zeros(SIZE, SIZE)
    change[:, 12:16] = -20
    found = heard_change(noise(), change).mean(0)
    assert found[12:16].max() < -12
    assert found[[*range(9), *range(19, SIZE)]].abs().max() < 0.5


@pytest.mark.parametrize("size", [32, 64])
def test_a_smooth_change_is_found_again_in_the_sound(size):
    """Measured: correlation 0.994, slope 0.95 to 0.97, error 0.6 dB for a change of 5 dB."""
    asked = torch.nn.functional.interpolate(5 * torch.randn(1, 1, 8, 8), (size, size), mode="bicubic")[0, 0]
    found = heard_change(noise(), asked, LogMel(RATE, T, size))
    assert torch.corrcoef(torch.stack([asked.flatten(), found.flatten()]))[0, 1] > 0.98
    assert 0.9 < (asked * found).sum() / asked.square().sum() < 1.1
    assert (found - asked).square().mean().sqrt() < 0.2 * asked.std()


def test_a_change_from_pixel_to_pixel_is_found_weaker():
    asked = 5 * torch.randn(SIZE, SIZE)
    found = heard_change(noise(), asked)
    assert torch.corrcoef(torch.stack([asked.flatten(), found.flatten()]))[0, 1] > 0.7
    assert 0.3 < (asked * found).sum() / asked.square().sum() < 0.6


def test_silence_stays_silent():
    wave = noise()
    wave[T // 2 :] = 0
    change = torch.full((SIZE, SIZE), 40.0)
    heard = hear(wave, change, FRONT_END)
    assert heard[T // 2 + FRONT_END.mel.n_fft :].abs().max() < 1e-4
    assert not hear(torch.zeros(T), change, FRONT_END).any()


@pytest.mark.parametrize(
    ("wave", "change", "message"),
    [
        (torch.zeros(1, T), torch.zeros(SIZE, SIZE), r"\(T,\).* got \(1, 8000\)"),
        (torch.zeros(T // 2), torch.zeros(SIZE, SIZE), r"7750 to 8000 samples, got \(4000,\)"),
        (torch.zeros(T + 1), torch.zeros(SIZE, SIZE), "7750 to 8000 samples"),
        (torch.zeros(T), torch.zeros(1, SIZE, SIZE), r"must be \(32, 32\).* got \(1, 32, 32\)"),
    ],
)
def test_wrong_shapes(wave, change, message):
    with pytest.raises(ValueError, match=message):
        hear(wave, change, FRONT_END)


def sounds_in(page):
    for data in re.findall(r"base64,([^\"]+)", page):
        with wave.open(io.BytesIO(base64.b64decode(data))) as file:
            assert file.getframerate() == RATE
            assert file.getsampwidth() == 2
            yield np.frombuffer(file.readframes(T), "<i2")


def test_players_keep_the_relative_loudness_and_stay_small():
    loud = noise()
    page = players({"original": loud, "half <as> loud": loud / 2}, RATE).data
    original, view = sounds_in(page)
    assert len(original) == T
    assert abs(original).max() == 32767
    np.testing.assert_allclose(view, original / 2, atol=1)
    assert "half &lt;as&gt; loud" in page
    assert len(page) < 45_000


def test_players_of_silence():
    assert not any(sound.any() for sound in sounds_in(players({"silence": torch.zeros(T)}, RATE).data))


def grid(n=2, v=3, **arguments):
    x = torch.randn(n, 1, SIZE, SIZE)
    views = x + 0.5 * torch.randn(v, n, 1, SIZE, SIZE)
    return x, views, spectrogram_grid(x, views, FRONT_END, **arguments)


def test_spectrograms_are_in_decibels_beside_their_perturbations():
    x, views, figure = grid(names=["a", "b", "c"], title="Title")
    assert len(figure.axes) == 2 * 2 * 4 + 2
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes[:16] if axis.images]
    assert len(shown) == 2 * (1 + 2 * 3)
    assert all(np.isfinite(image).all() for image in shown)
    np.testing.assert_allclose(shown[0], x[0, 0] * 12 - 20, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(shown[2], views[1, 0, 0] * 12 - 20, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(shown[5], (views[1, 0, 0] - x[0, 0]) * 12, rtol=1e-4, atol=1e-3)
    assert [axis.get_title() for axis in figure.axes[:4]] == ["original", "a", "b", "c"]
    assert same_color(figure.axes[0].spines["left"].get_edgecolor(), PINK)


def test_all_perturbations_share_one_symmetric_scale():
    x, views, figure = grid()
    largest = 12 * float((views - x).abs().max())
    heats = [axis.images[0] for axis in figure.axes[4:8] + figure.axes[12:16] if axis.images]
    assert len(heats) == 6
    for heat in heats:
        assert heat.get_clim() == pytest.approx((-largest, largest))
    _, _, figure = grid(limit=3)
    assert figure.axes[5].images[0].get_clim() == (-3, 3)


def test_axes_are_in_hertz_and_seconds():
    _, _, figure = grid(1, 1)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["250", "500", "1000", "2000"]
    np.testing.assert_allclose(axis.get_yticks(), mel_band(torch.tensor([250, 500, 1000, 2000]), FRONT_END), rtol=1e-5)
    left, right, bottom, top = axis.images[0].get_extent()
    assert (left, right) == pytest.approx((-1 / 64, 63 / 64))
    assert (bottom, top) == (-0.5, SIZE - 0.5)
    assert axis.images[0].origin == "lower"


def test_no_perturbation_can_be_drawn():
    x = torch.randn(1, 1, SIZE, SIZE)
    assert spectrogram_grid(x, x[None], FRONT_END).axes


def test_wrong_shapes_of_spectrograms():
    x = torch.zeros(1, 1, SIZE, SIZE)
    for views in (x, x[None, :, :, :-1]):
        with pytest.raises(ValueError, match=r"views \(V, N, 1, \.\.\.\)"):
            spectrogram_grid(x, views, FRONT_END)
