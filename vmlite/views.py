"""Views other than the viewmaker's: noise of the same budget, and experts' views, batched on the device.

Views are modules: a float batch in, a batch of the same shape and device out, with fresh randomness at each call.
`domain` says where they act: "raw" before the front end, "input" after it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vmlite.viewmaker import Viewmaker, check_budget, perturb

EXPERTS = {
    "images": ("expert", "expert:crop-flip"),
    "speech": ("expert:time", "expert:spectral", "expert:spectral-noise"),
    "sensors": ("expert:spectral", "expert:spectral-noise"),
}
VIEWS = (
    "viewmaker", "viewmaker:untrained", "viewmaker:deterministic", "noise",
    *dict.fromkeys(name for names in EXPERTS.values() for name in names),
)  # fmt: skip


class Chain(nn.Sequential):
    """Views from left to right, each of what the one before has made. `build_views` makes one from a recipe."""

    def forward(self, x: Tensor, count: int = 1) -> Tensor:
        """Views (count N, ...) of the examples `x` (N, ...): one of each, then another one of each, and so on."""
        first, *rest = self
        if isinstance(first, Viewmaker):
            y = first(x, count=count)
        else:
            y = first(x) if count == 1 else torch.cat([first(x) for _ in range(count)])
        for view in rest:
            y = view(y)
        return y


class L1Noise(nn.Module):
    """Gaussian noise projected onto the budget of a viewmaker: the ablation of section 4.1.1.

    Takes and returns (N, ...); `eps`, `norm` and `clamp` as for `Viewmaker`.
    """

    domain = "input"

    def __init__(self, eps: float = 0.05, norm: float = 1.0, clamp: tuple[float, float] | None = None) -> None:
        super().__init__()
        check_budget(eps, norm)
        self.eps, self.norm, self.clamp = eps, norm, clamp

    def draw_noise(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fresh standard normal noise of the shape of `x`."""
        return torch.randn(x.shape, device=x.device, dtype=x.dtype, generator=generator)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """`x` plus projected noise, fresh unless given."""
        return perturb(x, self.draw_noise(x) if noise is None else noise, self.eps, self.norm, self.clamp)


class ImageExpert(nn.Module):
    """The expert views of SimCLR (Chen et al. 2020) for images in [0, 1], each example with its own parameters.

    Random resized crop (scale 0.2 to 1), horizontal flip, colour jitter (0.4, 0.4, 0.4, 0.1; p 0.8), grayscale (p 0.2),
    Gaussian blur (sigma 0.1 to 2; p 0.5). Colour operations need three channels and are left out otherwise.

    Args:
        size: (H, W) of the images.
        kind: "all", or "crop-flip" for the first two alone (section 4.2).
    """

    domain = "input"

    def __init__(self, size: tuple[int, int], channels: int = 3, kind: str = "all") -> None:
        super().__init__()
        import kornia.augmentation as K  # takes seconds to import, and only this class needs it

        if kind not in ("all", "crop-flip"):
            raise ValueError(f"the kind of expert views must be 'all' or 'crop-flip', got {kind!r}.")
        ops: list[Any] = [K.RandomResizedCrop(size, scale=(0.2, 1.0)), K.RandomHorizontalFlip()]
        if kind == "all":
            if channels == 3:
                ops += [K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), K.RandomGrayscale(p=0.2)]
            kernel = max(3, min(size) // 10 | 1)
            ops += [K.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=0.5)]
        self.ops = K.AugmentationSequential(*ops, data_keys=["input"])

    def forward(self, x: Tensor) -> Tensor:
        """A view of each image (N, C, H, W) in [0, 1]."""
        return self.ops(x).clamp(0, 1)


@torch.no_grad()
def measure(views: nn.Module, x: Tensor, norm: float = 1.0) -> dict[str, float]:
    """What views do to a batch of inputs (N, ...), in the mode (train or eval) they are in.

    Returns "budget", the norm of the perturbation that is left after the clamp (in units of eps); "clamped", the share of
    values at an end of the range [0, 1] that were not there before; "difference", the norm of the difference between
    two views of one example, 0 for deterministic views.
    """
    first, second = views(x), views(x)
    budget, clamped = spent(x, first, norm)
    return {
        "budget": float(budget.mean()),
        "clamped": float(clamped.mean()),
        "difference": float(_size(first - second, norm).mean()),
    }


def spent(x: Tensor, view: Tensor, norm: float = 1.0) -> tuple[Tensor, Tensor]:
    """Of each view of `x` (N, ...) the realised budget (N,), and the share (N,) of its values that the clamp has cut.

    Cut are values at an end of the range [0, 1] that were not there before.
    """
    at_end = ((view <= 0) & (x > 0)) | ((view >= 1) & (x < 1))
    return _size(view - x, norm), at_end.flatten(1).float().mean(1)


def _size(p: Tensor, norm: float) -> Tensor:
    """What `vmlite.viewmaker.project` sets to eps, of each example (N,)."""
    flat = p.flatten(1)
    return torch.linalg.vector_norm(flat, norm, dim=1) / flat.shape[1] ** (1 / norm)
