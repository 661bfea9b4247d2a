"""Expert views of speech: changes of the waveform, and masks on the spectrogram, batched on the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

SNR = (5.0, 30.0)  # dB
SPEED = (2 ** (-3 / 12), 2 ** (3 / 12))  # three semitones down and up
DECAY = (0.05, 0.4)  # s, until a room's response has fallen by 60 dB
GAIN = (-10.0, 10.0)  # dB


class WaveformExpert(nn.Module):
    """Time-domain views of waveforms (N, T), each example with its own parameters.

    The paper names pitch shift, reverberation, additive noise and changes in loudness (section 5, after Kharitonov et
    al. 2020); they are applied in this order, each to a random share of the examples, with parameters drawn uniformly
    from `SPEED`, `DECAY`, `SNR` and `GAIN`. Pitch is shifted by playing faster or slower, so the tempo changes with it.

    Args:
        sample_rate: in Hz.
        p: the probability of each change.
    """

    domain = "raw"

    def __init__(self, sample_rate: int, p: float = 0.5) -> None:
        super().__init__()
        if sample_rate <= 0:
            raise ValueError(f"sample_rate must be a positive number of Hz, got {sample_rate!r}.")
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability and must lie from 0 to 1, got {p!r}.")
        self.sample_rate, self.p = sample_rate, p

    def forward(self, x: Tensor) -> Tensor:
        """A view of each waveform. Raises ValueError for other shapes."""
        if x.ndim != 2:
            raise ValueError(f"waveforms must be (N, T), got {tuple(x.shape)}.")
        x = self._some(x, change_speed, SPEED)
        x = self._some(x, self._reverberate, DECAY)
        x = self._some(x, add_noise, SNR)
        return self._some(x, amplify, GAIN)

    def _some(self, x: Tensor, change: Callable[[Tensor, Tensor], Tensor], limits: tuple[float, float]) -> Tensor:
        """With probability p each example is changed, with a parameter uniform within `limits`."""
        rows = (torch.rand(len(x), device=x.device) < self.p).nonzero()[:, 0]
        if not len(rows):
            return x
        low, high = limits
        return x.index_copy(0, rows, change(x[rows], low + (high - low) * torch.rand_like(x[rows, 0])))

    def _reverberate(self, x: Tensor, decay: Tensor) -> Tensor:
        return reverberate(x, decay, self.sample_rate)


def change_speed(x: Tensor, factor: Tensor) -> Tensor:
    """Waveforms (N, T) played `factor` (N,) times as fast, linearly interpolated; cut, or followed by silence."""
    length = x.shape[1]
    place = factor[:, None] * torch.linspace(0, 2, length, device=x.device, dtype=x.dtype) - 1  # -1 first, 1 last
    grid = torch.stack([place, torch.zeros_like(place)], -1)
    return nn.functional.grid_sample(x[:, None, None], grid[:, None], align_corners=True)[:, 0, 0]


def reverberate(x: Tensor, decay: Tensor, sample_rate: int) -> Tensor:
    """Waveforms (N, T) in rooms of their own: convolved with decaying noise, of about the same loudness.

    A response is the direct sound followed by white noise, which falls by 60 dB in `decay` (N,) seconds and ends with
    the longest of `DECAY`. Where the decay is 0.3 s, the noise has the energy of the direct sound.
    """
    time = torch.arange(1, round(DECAY[1] * sample_rate), device=x.device, dtype=x.dtype) / sample_rate
    fall = 3 * math.log(10) / decay[:, None]
    noise = torch.randn(len(x), len(time), device=x.device, dtype=x.dtype)
    tail = math.sqrt(6 * math.log(10) / 0.3 / sample_rate) * noise * torch.exp(-fall * time)
    response = nn.functional.normalize(nn.functional.pad(tail, (1, 0), value=1.0))
    length = 1024 * math.ceil((x.shape[1] + len(time)) / 1024)  # without large prime factors, which are slow
    spectrum = torch.fft.rfft(x, length) * torch.fft.rfft(response, length)
    return torch.fft.irfft(spectrum, length)[:, : x.shape[1]]


def add_noise(x: Tensor, snr: Tensor) -> Tensor:
    """Waveforms (N, T) with white noise at signal-to-noise ratios `snr` (N,) in dB; silence stays silent."""
    level = torch.linalg.vector_norm(x, dim=1) / math.sqrt(x.shape[1])
    return x + torch.randn_like(x) * (level * 10 ** (-snr / 20))[:, None]


def amplify(x: Tensor, gain: Tensor) -> Tensor:
    """Waveforms (N, T) made louder by `gain` (N,) dB. They are not clipped."""
    return x * 10 ** (gain / 20)[:, None]


class SpectralMasks(nn.Module):
    """Frequency and time masks on spectrograms (N, C, H, W), after SpecAugment (Park et al. 2019), then noise.

    One band of rows and one of columns are set to 0, the mean of normalised spectrograms. Widths and places are drawn
    uniformly for each example; its channels share them.

    Args:
        size: (H, W) of the spectrograms.
        noise: standard deviation of the Gaussian noise, 0.25 in the paper's "with noise".
        factor: the widest mask as a share of its side. The released code has 40 of 64, for sensors 20 of 32.
    """

    domain = "input"

    def __init__(self, size: tuple[int, int], noise: float = 0.0, factor: float = 40 / 64) -> None:
        super().__init__()
        if noise < 0:
            raise ValueError(f"noise is a standard deviation and must be 0 or more, got {noise!r}.")
        if not 0 <= factor <= 1:
            raise ValueError(f"factor is a share of the side and must lie from 0 to 1, got {factor!r}.")
        self.size, self.noise, self.factor = tuple(size), noise, factor

    def forward(self, x: Tensor) -> Tensor:
        """A view of each spectrogram. Raises ValueError for another size."""
        if x.ndim != 4 or x.shape[2:] != self.size:
            raise ValueError(f"spectrograms must be (N, C, {self.size[0]}, {self.size[1]}), got {tuple(x.shape)}.")
        rows, columns = (self._bands(len(x), side, x.device) for side in self.size)
        x = x.masked_fill(rows[:, None, :, None] | columns[:, None, None, :], 0)
        return x + self.noise * torch.randn_like(x) if self.noise else x

    def _bands(self, n: int, side: int, device: torch.device) -> Tensor:
        """Where a random band of each example lies, (n, side). torchaudio's masks all but spare the last place."""
        width = torch.randint(round(self.factor * side) + 1, (n, 1), device=device)
        start = (torch.rand(n, 1, device=device) * (side - width + 1)).long()
        place = torch.arange(side, device=device)
        return (start <= place) & (place < start + width)
