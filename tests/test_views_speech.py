"""Expert views of speech: each example has its own parameters, within the declared ranges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vmlite import views_speech
from vmlite.views_speech import SpectralMasks, WaveformExpert, add_noise, amplify, change_speed, reverberate

RATE = 8000


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tones(n, hertz=400.0, seconds=0.5):
    return torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * RATE)) / RATE).expand(n, -1).contiguous()


def decibels(ratio):
    return 20 * ratio.log10()


def rms(x):
    return x.square().mean(-1).sqrt()


@pytest.mark.parametrize(
    ("views", "x"),
    [
        (WaveformExpert(RATE, p=1), tones(8)),
        (WaveformExpert(RATE, p=1), tones(8).double()),
        (WaveformExpert(16_000, p=1), tones(8)[:, :777]),
        (SpectralMasks((20, 31)), torch.randn(1, 2, 20, 31).expand(8, -1, -1, -1)),
        (SpectralMasks((16, 16), noise=0.25), torch.randn(1, 1, 16, 16).double().expand(8, -1, -1, -1)),
    ],
)
def test_views_keep_the_shape_and_differ_between_examples_and_calls(views, x):
    before = x.clone()
    view = views.eval()(x)
    assert view.shape == x.shape
    assert view.dtype == x.dtype
    assert view.isfinite().all()
    assert torch.equal(x, before)
    distances = torch.cdist(view.flatten(1), view.flatten(1)) + 100 * torch.eye(len(x))
    assert distances.min() > 1e-3
    assert not torch.equal(view, views(x))


@pytest.mark.parametrize("views", [WaveformExpert(RATE), SpectralMasks((16, 16), noise=0.25)])
def test_views_follow_torchs_seed(views):
    x = tones(4) if views.domain == "raw" else torch.randn(4, 1, 16, 16)
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(views(x))
    assert torch.equal(*made)


def test_views_say_where_they_act():
    assert WaveformExpert.domain == "raw"
    assert SpectralMasks.domain == "input"


def test_everything_is_made_on_the_device_of_the_batch():
    """The device "meta" computes nothing, but refuses tensors of others."""
    x, value = torch.zeros(4, 800, device="meta"), torch.ones(4, device="meta")
    for change in change_speed, add_noise, amplify, lambda x, decay: reverberate(x, decay, RATE):
        assert change(x, value).shape == x.shape
    assert SpectralMasks((8, 8), noise=0.1)(torch.zeros(4, 1, 8, 8, device="meta")).device.type == "meta"
    with pytest.raises(RuntimeError, match="device"):
        add_noise(x, torch.ones(4))


def test_gradients_flow():
    for views, x in (WaveformExpert(RATE, p=1), tones(4)), (SpectralMasks((16, 16), 0.1), torch.randn(4, 1, 16, 16)):
        x.requires_grad_()
        views(x).square().sum().backward()
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0


def test_silence_stays_silent_with_finite_gradients():
    x = torch.zeros(16, 1000, requires_grad=True)
    view = WaveformExpert(RATE, p=1)(x)
    assert not view.any()
    view.sum().backward()
    assert x.grad.isfinite().all()


def test_each_change_happens_with_probability_p():
    x = tones(1000, seconds=0.01)
    assert torch.equal(WaveformExpert(RATE, p=0)(x), x)
    views = WaveformExpert(RATE, p=0.3)
    untouched = (views(x) == x).all(1).float().mean()
    assert untouched == pytest.approx(0.7**4, abs=0.05)
    changed = (views._some(x, amplify, (5, 6)) != x).any(1).float().mean()
    assert changed == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("name", ["SPEED", "DECAY", "SNR", "GAIN"])
def test_parameters_fill_the_declared_range(name):
    low, high = getattr(views_speech, name)
    seen = []
    WaveformExpert(RATE, p=1)._some(torch.zeros(2000, 4), lambda x, value: seen.append(value) or x, (low, high))
    assert seen[0].shape == (2000,)
    assert low <= seen[0].min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < seen[0].max() <= high
    assert seen[0].mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_noise_has_the_asked_ratio_and_is_white():
    snr = torch.tensor([0.0, 5.0, 17.0, 30.0])
    x = tones(4)
    noise = add_noise(x, snr) - x
    torch.testing.assert_close(decibels(rms(x) / rms(noise)), snr, atol=0.3, rtol=0)
    power = torch.fft.rfft(noise).abs().square()
    lower, upper = power[:, 1:1000].mean(1), power[:, 1000:-1].mean(1)
    torch.testing.assert_close(lower / upper, torch.ones(4), atol=0.25, rtol=0)


def test_gain_is_in_decibels():
    x, gain = tones(3), torch.tensor([-10.0, 0.0, 6.0])
    torch.testing.assert_close(decibels(rms(amplify(x, gain)) / rms(x)), gain)


@given(st.lists(st.floats(0.8, 1.3), min_size=1, max_size=5), st.integers(2, 200))
@settings(deadline=None)
def test_speed_reads_a_ramp_where_it_should(factors, length):
    """Linear interpolation is exact on a ramp; after its end there is silence."""
    factor = torch.tensor(factors, dtype=torch.double)
    ramp = torch.linspace(1, 2, length, dtype=torch.double)
    place = factor[:, None] * torch.arange(length) / (length - 1)
    played = change_speed(ramp.expand(len(factor), -1), factor)
    inside, outside = place < 1 - 1e-9, place > 1 + 1 / (length - 1)
    torch.testing.assert_close(played[inside], (1 + place)[inside])
    assert not played[outside].any()


def test_speed_moves_the_pitch_of_long_recordings_too():
    time = torch.arange(150_526) / 16_000
    factor = torch.tensor([views_speech.SPEED[0], 1.0, views_speech.SPEED[1]])
    played = change_speed(torch.sin(2 * math.pi * 500 * time).expand(3, -1), factor)
    spectrum = torch.fft.rfft(played[:, :120_000] * torch.hann_window(120_000)).abs()
    peak = spectrum.argmax(1) * 16_000 / 120_000
    torch.testing.assert_close(peak, 500 * factor, atol=0.2, rtol=0)
    assert (spectrum[1].amax() / spectrum[1, 5000:].amax()) > 300  # the rounding of places makes no audible noise


def test_reverberation_falls_by_sixty_decibels_in_the_asked_time():
    clicks = torch.zeros(400, 4000)
    clicks[:, 100] = 1
    for seconds in (0.1, 0.3):
        wet = reverberate(clicks, torch.full((400,), seconds), RATE)
        assert wet[:, :100].abs().max() < 1e-5
        level = decibels(wet.square().mean(0).sqrt())
        early, late = (level[start : start + 80].mean() for start in (110, 110 + int(seconds / 2 * RATE)))
        assert early - late == pytest.approx(30, abs=1.5)
        tail = wet[:, 101:].square().sum(1) / wet[:, 100].square()
        assert tail.mean() == pytest.approx(seconds / 0.3, rel=0.15)


def test_reverberation_is_the_convolution_with_its_response_and_keeps_the_level():
    x = torch.randn(3, 2000, dtype=torch.double)
    click = torch.zeros_like(x)
    click[:, 0] = 1
    decay = torch.tensor([0.05, 0.2, 0.4], dtype=torch.double)
    made = []
    for dry in (click, x):
        torch.manual_seed(1)
        made.append(reverberate(dry, decay, RATE))
    response, wet = made
    expected = torch.stack([torch.dot(x[1, : t + 1], response[1, : t + 1].flip(0)) for t in (0, 1, 700, 1999)])
    torch.testing.assert_close(wet[1, [0, 1, 700, 1999]], expected)
    assert (decibels(rms(wet) / rms(x)).abs() < 2).all()


def masked(size, n=3000, channels=2, **arguments):
    """Where masks are, (n, channels, H, W)."""
    return SpectralMasks(size, **arguments)(torch.ones(n, channels, *size)) == 0


@pytest.mark.parametrize(("size", "factor", "widest"), [((64, 64), 40 / 64, (40, 40)), ((32, 20), 20 / 32, (20, 12))])
def test_masks_are_one_band_for_each_axis_no_wider_than_allowed(size, factor, widest):
    cut = masked(size, factor=factor)
    assert torch.equal(cut[:, 0], cut[:, 1])
    for axis, limit in ((2, widest[0]), (1, widest[1])):
        band = cut[:, 0].all(axis)  # along the other axis
        band = band[~band.all(1)]
        widths = band.sum(1)
        assert widths.unique().tolist() == list(range(limit + 1))
        edges = torch.nn.functional.pad(band.int(), (1, 1)).diff(dim=1).abs().sum(1)
        assert edges.max() == 2
        assert band.float().mean(0).min() > 0.015  # every place is reached, those at the ends too
        assert band.float().mean(0).flip(0) == pytest.approx(band.float().mean(0), abs=0.075)
    assert cut[:, 0].any(1).sum(1).unique().numel() > widest[1] // 2


def test_a_narrow_share_masks_nothing():
    assert not masked((16, 16), factor=0).any()


def test_noise_comes_on_top_of_the_masks_with_the_asked_deviation():
    x = torch.full((200, 1, 32, 32), 5.0)
    view = SpectralMasks((32, 32), noise=0.25)(x)
    cut = view < 2.5
    assert 0.2 < cut.float().mean() < 0.8
    assert view[cut].std() == pytest.approx(0.25, rel=0.02)
    assert (view[~cut] - 5).std() == pytest.approx(0.25, rel=0.02)
    plain = SpectralMasks((32, 32))(x)
    assert set(plain.unique().tolist()) == {0.0, 5.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WaveformExpert(0), "positive number of Hz, got 0"),
        (lambda: WaveformExpert(RATE, p=1.5), "probability.*got 1.5"),
        (lambda: SpectralMasks((8, 8), noise=-0.1), "0 or more, got -0.1"),
        (lambda: SpectralMasks((8, 8), factor=40), "from 0 to 1, got 40"),
        (lambda: WaveformExpert(RATE)(torch.zeros(2, 1, 80)), r"\(N, T\), got \(2, 1, 80\)"),
        (lambda: SpectralMasks((8, 9))(torch.zeros(2, 1, 8, 8)), r"\(N, C, 8, 9\), got \(2, 1, 8, 8\)"),
        (lambda: SpectralMasks((8, 9))(torch.zeros(2, 8, 9)), r"\(N, C, 8, 9\), got \(2, 8, 9\)"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
