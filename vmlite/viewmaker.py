"""The viewmaker network and Algorithm 1 (Tamkin, Wu, Goodman, ICLR 2021, section 3).

A viewmaker V maps an input X and noise to a perturbation P of the same shape. P is projected onto a
sphere whose radius is the distortion budget eps, added to X, and for images clamped to [0, 1]:

    P <- V(X, noise);   P <- eps * P / mean(|P|);   X <- X + P;   X <- clamp(X, 0, 1)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmlite.fourier import reflected_conv2d

NORMS = (1.0, 2.0, math.inf)


def check_budget(eps: float, norm: float) -> None:
    """Raise ValueError unless eps is a positive finite number and norm is 1, 2 or inf."""
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not (0 < eps < math.inf):
        raise ValueError(f"eps must be a positive number (0.05 is the paper's), got {eps!r}.")
    if norm not in NORMS:
        raise ValueError(f"norm must be one of 1, 2, inf, got {norm!r}.")


def project(p: Tensor, eps: float, norm: float = 1.0) -> Tensor:
    """Scale each example of `p` (N, ...) so that mean(|p|**norm)**(1/norm) == eps; for inf, max(|p|) == eps.

    An all-zero example stays zero. Computed in at least float32. (Algorithm 1, line 2, for three norms.)
    """
    check_budget(eps, norm)
    flat = p.flatten(1).to(torch.promote_types(p.dtype, torch.float32))
    # Scaling first by the largest entry keeps squares of tiny values from underflowing. The result does not
    # depend on this factor, so neither does the gradient, and it can be detached.
    largest = flat.detach().abs().amax(1, keepdim=True)
    flat = flat / largest.where(largest > 0, 1.0)
    size = torch.linalg.vector_norm(flat, norm, dim=1, keepdim=True) / flat.shape[1] ** (1 / norm)
    return (flat * (eps / size.where(size > 0, 1.0))).view_as(p)


def perturb(x: Tensor, p: Tensor, eps: float, norm: float = 1.0, clamp: tuple[float, float] | None = None) -> Tensor:
    """Add the projected perturbation to `x`; clamp to the given range (images only). Algorithm 1, lines 2 to 4."""
    view = x + project(p, eps, norm)
    return view if clamp is None else view.clamp(*clamp)


class Viewmaker(nn.Module):
    """Generates views of a batch (N, C, H, W): a view has the same shape and lies within budget `eps` of its input.

    The network is the style-transfer generator of Johnson et al. (2016): three convolutions down, residual
    blocks, two upsamplings. A channel of uniform noise joins the input and each residual block, so every
    call gives other views. Sides of any length from 5 up.

    Args:
        channels: C.
        eps, norm: distortion budget, and the norm that measures it (1, 2 or inf).
        clamp: range to clamp views to, (0, 1) for images, None otherwise.
        width: channels after the first convolution; the paper's network has 32.
        blocks: residual blocks, 0 to 5.
        noise_scale: multiplies the noise; 0 makes the viewmaker deterministic.
        activation: "relu" or "leaky_relu".
        frequency_domain: the network sees and perturbs the input's discrete cosine transform.
        downsample_to: the network works at this (H, W); its perturbation is enlarged bilinearly.
    """

    domain = "input"

    def __init__(
        self,
        channels: int = 3,
        eps: float = 0.05,
        norm: float = 1.0,
        clamp: tuple[float, float] | None = None,
        width: int = 32,
        blocks: int = 3,
        noise_scale: float = 1.0,
        activation: str = "relu",
        frequency_domain: bool = False,
        downsample_to: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        check_budget(eps, norm)
        if not 0 <= blocks <= 5:
            raise ValueError(f"blocks must be 0 to 5, got {blocks}.")
        if activation not in ("relu", "leaky_relu"):
            raise ValueError(f"activation must be 'relu' or 'leaky_relu', got {activation!r}.")
        act: nn.Module = nn.ReLU() if activation == "relu" else nn.LeakyReLU()
        self.channels, self.eps, self.norm, self.clamp = channels, eps, norm, clamp
        self.noise_scale, self.frequency_domain, self.downsample_to = noise_scale, frequency_domain, downsample_to
        wide = 4 * width + blocks
        self.down = nn.Sequential(
            *_conv(channels + 1, width, 9), act,
            *_conv(width, 2 * width, 3, stride=2), act,
            *_conv(2 * width, 4 * width, 3, stride=2), act,
        )  # fmt: skip
        self.blocks = nn.ModuleList(ResidualBlock(4 * width + 1 + i, act) for i in range(blocks))
        self.up1 = nn.Sequential(*_conv(wide, 2 * width, 3), act)
        self.up2 = nn.Sequential(*_conv(2 * width, width, 3), act)
        self.out = nn.Conv2d(width, channels, 9, padding=4, padding_mode="reflect")

    def draw_noise(self, x: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Fresh U[0, 1) noise for `x`: one map (N, 1, h, w) for the input and one for each residual block."""
        full = self.downsample_to or (x.shape[-2], x.shape[-1])
        quarter = _half(_half(full))
        shapes = [full] + [quarter] * len(self.blocks)
        return [
            self.noise_scale * torch.empty(len(x), 1, *shape, device=x.device).uniform_(generator=generator)
            for shape in shapes
        ]

    def generate(self, x: Tensor, noise: Sequence[Tensor] | None = None, count: int = 1) -> Tensor:
        """Perturbations (count N, C, H, W) of `x` before projection. (Algorithm 1, line 1.)"""
        self._check(x)
        if noise is None:
            noise = [torch.cat(maps) for maps in zip(*(self.draw_noise(x) for _ in range(count)), strict=True)]
        if len(noise[0]) != count * len(x):
            raise ValueError(
                f"{count} views of {len(x)} examples need noise for {count * len(x)}, got {len(noise[0])}."
            )
        y = x if self.downsample_to is None else F.interpolate(x, self.downsample_to, mode="bilinear")
        y = dct2(y) if self.frequency_domain else y
        full, half = y.shape[-2:], _half(y.shape[-2:])
        y = self._first(y, noise[0])
        for layer in list(self.down)[1:]:
            y = layer(y)
        for block, n in zip(self.blocks, noise[1:], strict=True):
            y = block(torch.cat([y, n], 1))
        y = self.up1(F.interpolate(y, half))
        y = self.up2(F.interpolate(y, full))
        p = torch.tanh(reflected_conv2d(y, self.out.weight, self.out.bias))
        p = dct2(p, inverse=True) if self.frequency_domain else p
        return p if self.downsample_to is None else F.interpolate(p, x.shape[-2:], mode="bilinear")

    def forward(self, x: Tensor, noise: Sequence[Tensor] | None = None, count: int = 1) -> Tensor:
        """Views (count N, C, H, W) of the examples `x` (N, C, H, W): one of each, then another one of each, and so on.

        With fresh noise, unless `noise` is given: maps as of `draw_noise`, for count N examples.
        """
        p = self.generate(x, noise, count)
        return perturb(x if count == 1 else torch.cat([x] * count), p, self.eps, self.norm, self.clamp)

    def _first(self, x: Tensor, noise: Tensor) -> Tensor:
        """The first convolution, of (N, C, h, w) and (count N, 1, h, w) joined.

        It is linear. So what an example adds to it is computed once for all its views.
        """
        conv = self.down[0]
        assert isinstance(conv, nn.Conv2d)
        of_x, of_noise = conv.weight.split([self.channels, 1], 1)
        y = reflected_conv2d(x, of_x)
        z = reflected_conv2d(noise.to(x.dtype), of_noise, conv.bias)
        return (z.unflatten(0, (-1, len(x))) + y).flatten(0, 1)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels or min(x.shape[-2:]) < 5:
            raise ValueError(
                f"this viewmaker takes (N, {self.channels}, H, W) with sides of at least 5, got {tuple(x.shape)}."
            )


class ResidualBlock(nn.Module):
    """conv-norm-ReLU-conv-norm plus its input; no ReLU after the sum."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*_conv(channels, channels, 3), act, *_conv(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        return x + self.net(x)


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, padding_mode="reflect")
    return conv, nn.InstanceNorm2d(c_out, affine=True)


def _half(shape: Sequence[int]) -> tuple[int, int]:
    """Sides after a padded convolution of stride 2."""
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2


def dct2(x: Tensor, inverse: bool = False) -> Tensor:
    """Orthonormal two-dimensional discrete cosine transform (type II) of the last two axes, or its inverse."""
    rows, columns = (_dct_matrix(side, x) for side in x.shape[-2:])
    return rows.T @ x @ columns if inverse else rows @ x @ columns.T


def _dct_matrix(n: int, like: Tensor) -> Tensor:
    k, i = torch.meshgrid(*[torch.arange(n, device=like.device, dtype=like.dtype)] * 2, indexing="ij")
    scale = torch.full((n, 1), math.sqrt(2 / n), device=like.device, dtype=like.dtype)
    scale[0] = math.sqrt(1 / n)
    return scale * torch.cos(math.pi / n * (i + 0.5) * k)
