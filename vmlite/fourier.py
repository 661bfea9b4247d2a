"""Convolutions with large kernels on a CPU, by Fourier transform.

A 9x9 kernel takes 81 products for each pair of channels and output; spectra take four for each frequency. The sides
are short, so the transforms are products with small matrices, which reflect the edges too.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

Transform = tuple[Tensor, list[Tensor]]  # down the columns, then across: real and imaginary part
FEWEST = 8  # channels, in and out, from which on it is used: so for sensors, and not for images and speech


def reflected_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve `x` (N, C, h, w), its edges reflected, with `weight` (O, C, k, k) of odd k; returns (N, O, h, w).

    Many channels on a CPU by Fourier transform, which rounds differently; else, and compiled or in bf16, directly.
    """
    usual = x.device.type == "cpu" and x.dtype.itemsize >= 4 and not torch.is_autocast_enabled("cpu")
    if min(weight.shape[:2]) < FEWEST or not usual or torch.compiler.is_compiling():
        return F.conv2d(F.pad(x, [weight.shape[-1] // 2] * 4, "reflect"), weight, bias)
    (h, w), n, o = x.shape[-2:], len(x), len(weight)
    of_input, of_kernel, (down, across) = _transforms(h, w, weight.shape[-1], x.dtype)
    x_re, x_im = _spectrum(x.permute(2, 3, 0, 1), of_input)
    k_re, k_im = _spectrum(weight.permute(2, 3, 1, 0), of_kernel)
    rows = down.shape[1]
    re = torch.baddbmm(x_re @ k_re, x_im, k_im, alpha=-1).view(rows // 2, -1, n * o)
    im = torch.baddbmm(x_re @ k_im, x_im, k_re).view(rows // 2, -1, n * o)
    y = down @ (across[0] @ re + across[1] @ im).view(rows, -1)
    y = y.view(h, w, n, o).permute(2, 3, 0, 1)
    return y if bias is None else y + bias[:, None, None]


def _spectrum(x: Tensor, transform: Transform) -> tuple[Tensor, Tensor]:
    """Real and imaginary part (frequencies, a, b) of the spectrum of `x` (h, w, a, b)."""
    h, w, a, b = x.shape
    down, across = transform
    y = (down @ x.reshape(h, -1)).view(-1, 2 * w, a * b)
    return (across[0] @ y).view(-1, a, b), (across[1] @ y).view(-1, a, b)


@functools.lru_cache(maxsize=64)
def _transforms(h: int, w: int, kernel: int, dtype: torch.dtype) -> tuple[Transform, Transform, Transform]:
    """The transforms of an input and of a kernel, and the one that leads back.

    What goes down the columns is real, so half of its frequencies say all. The way back counts twice those whose
    counterparts are left out.
    """
    columns, rows = _dft(h, kernel), _dft(w, kernel)
    n, half = len(columns[0]), len(columns[0]) // 2 + 1
    count = torch.full((half, 1), 2.0, dtype=torch.float64)
    count[[0] if n % 2 else [0, -1]] = 1
    outputs = columns[2][:half] * count / (n * len(rows[0]))
    down = [_in_turn(m[:half]).to(dtype) for m in (*columns[:2], outputs)]
    across = [[part.to(dtype) for part in _parts(m)] for m in rows]
    back = down[2].T.contiguous(), [part.T.contiguous() for part in across[2]]
    return (down[0], across[0]), (down[1], across[1]), back


def _dft(side: int, kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Complex matrices (n, ...) for n = side + kernel - 1: the spectrum of a reflected input, of a kernel (its complex
    conjugate, since a network's convolution is a correlation), and of the outputs, whose adjoint leads back."""
    dft = torch.fft.fft(torch.eye(side + kernel - 1, dtype=torch.float64))
    reflected = F.pad(torch.eye(side, dtype=torch.float64)[None], [kernel // 2] * 2, "reflect")[0]
    return torch.fft.fft(reflected).T, dft[:, :kernel].conj().resolve_conj(), dft[:, :side]


def _in_turn(m: Tensor) -> Tensor:
    """A complex matrix (a, b) as a real one (2a, b), real and imaginary part of each row in turn."""
    return torch.view_as_real(m).transpose(1, 2).flatten(0, 1).contiguous()


def _parts(m: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the product with a complex matrix (a, b), as real matrices (a, 2b)."""
    return torch.cat([m.real, -m.imag], 1), torch.cat([m.imag, m.real], 1)
