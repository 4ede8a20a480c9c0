"""Memory: what is freed is kept for the next step on processors, and how much was held at most.

Without `keep_freed_memory` a training step or an attack spends much of its time on page faults: the system
takes freed memory back and clears it before giving it out anew. Called by the correlation loss, `attacks.pgd`
and `training.fit` when they work on a processor.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None


@cache  # what it asks for lasts as long as the process
def keep_freed_memory(device: torch.device) -> None:
    """Ask glibc to keep freed memory for the next step, instead of returning it to the system each time.

    It holds for the whole process, other libraries included, until it ends: a heap that has once grown is
    used again but never given back. For another device than the CPU, and elsewhere than on Linux with glibc,
    nothing happens.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap is not given back


def forget_peak(device: torch.device) -> None:
    """From here on `peak` tells what is held at most: on a GPU, and on Linux. Elsewhere nothing happens."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is freed goes back to the system first
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        pass


def peak(device: torch.device) -> int:
    """Bytes that this process, or torch on a GPU, has held at most; 0 where the system does not tell.

    Since `forget_peak`, or where that can do nothing, since the process started.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        pass
    if resource is None:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, elsewhere KiB
