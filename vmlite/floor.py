"""The floor under a training step: counted FLOPs and bytes, and the rates that a machine reaches."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vmlite.objectives import Batch, Views
from vmlite.pretrain import Run, alternating_step, joint_step
from vmlite.speed import interleaved


class Ceilings(NamedTuple):
    """The most that a device was seen to reach: FLOP and bytes a second."""

    flops: float
    bytes: float


def flops(run: Run) -> dict[str, int]:
    """FLOPs an example of an "encoder" and of a "viewmaker" forward pass, and of a whole step, "joint" and "alternating".

    Convolutions and matrix products alone, a multiplication and an addition being two. Nothing is computed, and the run
    stays as it is. The products of all pairs of embeddings are left out: they do not grow with examples but with pairs.
    """

    def total(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    return _counted(run, total)


def traffic(run: Run) -> dict[str, int]:
    """Bytes an example that the operations of the same passes read and write, each of them from and to memory."""

    def total(work: Callable[[], object]) -> int:
        with _Traffic() as counter:
            work()
        return counter.bytes

    return _counted(run, total)


def ceilings(device: torch.device, precision: str = "float32", calls: int = 5) -> Ceilings:
    """The best of a few large matrix products and convolutions, and of a few large copies, which read and write."""
    large = device.type == "cuda"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side, channels, examples = (8192, 256, 512) if large else (2048, 128, 32)
    a = torch.randn(side, side, device=device, dtype=dtype)
    x = torch.randn(examples, channels, 32, 32, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    source = torch.zeros(2**30 if large else 2**27, dtype=torch.uint8, device=device)
    copied = torch.empty_like(source)
    work = {
        "product": (lambda: a @ a, 2 * side**3),
        "convolution": (lambda: torch.conv2d(x, w, padding=1), 2 * x.numel() * channels * 9),
        "copy": (lambda: copied.copy_(source), 2 * source.nbytes),
    }
    with torch.no_grad():
        seconds = interleaved({name: call for name, (call, _) in work.items()}, calls)
    rates = {name: amount / min(seconds[name]) for name, (_, amount) in work.items()}
    return Ceilings(max(rates["product"], rates["convolution"]), rates["copy"])


class _Traffic(TorchDispatchMode):
    """Adds up the bytes that operations read and write; views of a tensor are free."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += sum(t.nbytes for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        return out


def _counted(run: Run, total: Callable[[Callable[[], object]], int], n: int = 2) -> dict[str, int]:
    """What `total` counts in the passes of copies of the networks that have shapes and no values, per example of n."""
    encoder, views = copy.deepcopy(run.encoder).to("meta").train(), copy.deepcopy(run.views).to("meta").train()
    x = torch.empty(n, *run.train.shape, device="meta")

    def losses(views: Views, batch: Batch) -> tuple[Tensor, Tensor]:
        loss = encoder(views(batch.x, count=2)).sum()
        return loss, -loss

    ghost = dataclasses.replace(
        run,
        encoder=encoder,
        losses=dict.fromkeys(("both", "encoder", "viewmaker"), losses),
        views=views,
        optimizers={
            "encoder_optimizer": torch.optim.SGD(encoder.parameters()),
            "viewmaker_optimizer": torch.optim.SGD(views.parameters()),
        },
    )
    batch = Batch(x, torch.arange(n))
    work = {
        "encoder": lambda: encoder(x),
        "viewmaker": lambda: views(x),
        "joint": lambda: joint_step(ghost, batch),
        "alternating": lambda: alternating_step(ghost, batch),
    }
    return {name: total(call) // n for name, call in work.items()}
