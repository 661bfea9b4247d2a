"""One run on several processes, started by torchrun: who computes what, and how they agree.

Every process holds the whole data set and the same networks. Of each batch, whose order does not depend on the number
of processes, it computes one equal piece. Embeddings are gathered with their gradients, so that the loss compares all
examples of the batch, and DistributedDataParallel averages the parameters' gradients. Batch norm takes its statistics
from a process's own piece, and the running ones that are kept are the first process's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vmlite.environment import find_device

PATIENCE = timedelta(minutes=5)  # a process that waits longer for the others fails, and torchrun starts all again


def processes() -> int:
    """How many processes compute this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def join(device: str) -> torch.device:
    """Join the processes that torchrun started, if it did, and return the device that this one is to use.

    Raises ValueError for more processes on this machine than it has GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        return find_device(device)
    on_gpu = torch.cuda.is_available() and device != "cpu"
    if on_gpu:
        check_processes(int(os.environ["LOCAL_WORLD_SIZE"]), device)
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    who: dict[str, Any] = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
    meeting = who | {"store": lent} if (lent := _lent_store()) else {}
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE, **meeting)
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else find_device(device)


def _lent_store() -> dist.Store | None:
    """The store in which torchrun has its workers meet, with a part of its own for each attempt.

    Without it workers that are started again take the addresses of those before them for each other's.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=PATIENCE)
    return dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)


def leave() -> None:
    """Part from the other processes at the end of a run: this one ends here, once all have come so far.

    At once, without taking the interpreter down. That would wait for gloo's threads while it holds Python's lock, for
    which one of them may wait in turn: now and then a finished run never ended (pytorch/pytorch#56297).
    """
    if dist.is_initialized():
        dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def check_processes(n: int, device: str, batch_size: int | None = None) -> None:
    """Raise ValueError unless this machine has a device for each of `n` processes, and the batch divides into them.

    Does not touch a GPU. On a CPU each process needs a core.
    """
    on_gpu = torch.cuda.is_available() and device != "cpu"
    there = torch.cuda.device_count() if on_gpu else cores()
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"processes must be a whole number from 1, got {n!r}.")
    if n > there:
        raise ValueError(f"processes is {n}, but there are {there} {'GPUs' if on_gpu else 'CPU cores'}; ask for fewer.")
    check_batch(n, batch_size)


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_batch(n: int, batch_size: int | None) -> None:
    """Raise ValueError unless a batch divides into `n` equal pieces of at least two examples."""
    if batch_size is not None and n > 1 and (batch_size % n or batch_size < 2 * n):
        raise ValueError(
            f"batch_size {batch_size} does not divide into {n} pieces of two or more; try {max(2, batch_size // n) * n}."
        )


def piece(index: Tensor) -> Tensor:
    """This process's part of a batch."""
    return index.chunk(processes())[rank()]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(processes())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # All processes compute the same loss, so each needs its own piece of the gradient alone. The mean over
        # processes that follows would divide it by their number.
        return piece(gradient) * processes()


def gather(x: Tensor) -> Tensor:
    """All processes' tensors (N / processes, ...) in order, as one (N, ...); gradients flow back to each.

    For losses that every process computes from the same gathered tensors.
    """
    return x if processes() == 1 else _Gather.apply(x)


def mean(x: Tensor) -> Tensor:
    """The mean over processes, without gradient."""
    if processes() > 1:
        dist.all_reduce(x)
        x = x / processes()
    return x


class Forward(nn.Module):
    """A function that computes losses, as a module that owns the parameters which those losses train."""

    def __init__(self, function: Callable[..., Any], trained: list[nn.Module]) -> None:
        super().__init__()
        self.function, self.trained = function, nn.ModuleList(trained)

    def forward(self, *inputs: Any) -> Any:
        """What the function returns."""
        return self.function(*inputs)


def synchronised(function: Callable[..., Any], trained: list[nn.Module]) -> Callable[..., Any]:
    """`function`, which computes losses from modules of which it trains `trained`, with gradients averaged over processes."""
    if processes() == 1 or not any(p.requires_grad for module in trained for p in module.parameters()):
        return function
    return DistributedDataParallel(Forward(function, trained), broadcast_buffers=False)
