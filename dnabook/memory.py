"""Memory that is freed and asked for again at every step, on processors.

glibc keeps smaller blocks for the next step by itself. Blocks above 32 MB, such as the activations of a large
batch, it returns to the system, which clears them before it gives them out anew: on 2,000 digits a step of
two CNNs then takes about a tenth longer with the correlation loss (`ways` of the benchmark) and was seen to
take almost twice as long without. Called by the correlation loss, `attacks.pgd` and `training.fit` when they
work on a processor.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

import torch


@cache  # what it asks for lasts as long as the process
def keep_freed_memory(device: torch.device) -> None:
    """Ask glibc to keep freed memory for the next step, instead of returning it to the system each time.

    It holds for the whole process, other libraries included, until it ends: a heap that has once grown is
    used again but never given back. For another device than the CPU, elsewhere than on Linux with glibc, and
    where the environment variable DNABOOK_MALLOC is "system", nothing happens.
    """
    asked_not_to = os.environ.get("DNABOOK_MALLOC") == "system"
    if asked_not_to or device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap is not given back
