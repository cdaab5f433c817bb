"""Peak memory of one call, beyond what was held before it: exact on CUDA, by the process's resident set on Linux."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(job: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a job needs at its peak beyond what is held now; None where the system does not say."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        job()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or not RESET.exists():
        return None
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later would hide a part of the peak
    try:
        RESET.write_text("5")  # sets the high-water mark to what is resident now (man 5 proc)
    except OSError:
        return None
    before = _kilobytes("VmRSS")
    job()
    return max(0, _kilobytes("VmHWM") - before) * 1024


def _kilobytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
