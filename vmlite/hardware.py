"""What a machine allows: memory kept between steps, bfloat16, compiled networks, and advice where memory runs out."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4  # of mallopt, in glibc's malloc.h


def keep_memory(on: bool = True) -> bool:
    """Have this process keep the memory that tensors on the CPU give back, for the next ones. Says whether it could.

    glibc returns every large block to the operating system, which must then clear each page of the next one: a training
    step makes and drops gigabytes of activations, and page faults took a quarter of its time. `on=False` brings the
    usual behaviour back, with the thresholds that glibc arrives at by itself after some large blocks. Works on Linux
    with glibc; elsewhere nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    kept = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**26}
    usual = {_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26, _M_TOP_PAD: 2**17}
    return all(mallopt(option, value) for option, value in (kept if on else usual).items())


def total_memory(device: torch.device) -> int:
    """Bytes of memory that the device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError where the GPU cannot compute in `precision`; warn where the CPU can, but slowly."""
    if precision != "bf16":
        return
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"{torch.cuda.get_device_name(device)} has no bfloat16; use precision 'float32'.")
    if device.type == "cpu" and not torch.cpu.get_capabilities().get("avx512_bf16", False):
        warnings.warn("this CPU has no bfloat16 instructions: precision 'float32' may be faster.", stacklevel=3)


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> bool:
    """Compile the networks' forward and backward passes (torch.compile), in place. Says whether it could.

    Where the machine has no compiler a warning says so, and the networks run as they are.
    """
    options: dict[str, Any] = {"fallback_random": True}  # the noise that it draws without compiling

    def increment(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    try:
        torch.compile(increment, options=options)(torch.zeros(2, device=device))
    except Exception as error:  # torch wraps whatever its compilers raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(f"compile is not available here ({reason}); going on without it.", stacklevel=3)
        return False
    for network in networks:
        network.compile(options=options)
    return True


@contextmanager
def memory_advice(batch_size: int, precision: str) -> Iterator[None]:
    """Within the block running out of memory becomes a MemoryError that names what to try."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        other = "" if precision == "bf16" else " or precision 'bf16'"
        raise MemoryError(
            f"out of memory at batch_size {batch_size} in {precision}; try batch_size {max(1, batch_size // 2)}{other}."
        ) from error
