"""How many threads torch takes beside other work: they wait for each other at every product, so that two beside a busy
neighbour can be many times slower than one."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping

BUSY = 0.5
"""Share of the cores that others may take before anything is measured (by eye)."""
WORTH = 1.3
"""How many times as quick fewer threads must be (by eye): what one product takes on a busy machine varies."""
CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a user has chosen."""
SIZE, REPEATS = 384, 7
"""Of the products that are timed: each takes a few milliseconds on one thread."""


def settle() -> str:
    """Give torch fewer threads if the machine is busy and a product then is quicker; a line that says so, else "".

    What a user chose by a variable of CHOSEN stays, and may be advised against.
    """
    import torch

    threads, cores, load = torch.get_num_threads(), _cores(), _load()
    fewer = idle(load, cores)
    if load < BUSY * cores or threads <= fewer:
        return ""
    where = f"the machine is busy (load {load:.1f} on {cores} cores)"
    if any(name in os.environ for name in CHOSEN):
        return f"{where} and torch has {threads} threads: OMP_NUM_THREADS={fewer} may be quicker"
    taken = seconds({threads, fewer, 1})
    best = decide(threads, taken)
    if best == threads:
        return ""
    torch.set_num_threads(best)
    return (
        f"{where}: torch takes {best} of {threads} threads (a product {1e3 * taken[best]:.1f} ms instead of "
        f"{1e3 * taken[threads]:.1f}); OMP_NUM_THREADS={threads} takes them all"
    )


def idle(load: float, cores: int) -> int:
    """Cores that nobody uses, but one at least.

    >>> idle(4.6, 8), idle(40.0, 2)
    (3, 1)
    """
    return max(1, int(cores - load))


def decide(threads: int, taken: Mapping[int, float]) -> int:
    """How many threads to take. threads: those there are. taken: threads → seconds of a product.

    >>> decide(2, {1: 4e-3, 2: 31e-3}), decide(2, {1: 4e-3, 2: 5e-3}), decide(8, {1: 16e-3, 3: 7e-3, 8: 40e-3})
    (1, 2, 3)
    """
    best = min(taken, key=lambda one: (taken[one], one))
    return best if taken[threads] > WORTH * taken[best] else threads


def seconds(numbers: set[int]) -> dict[int, float]:
    """Number of threads → median seconds of a product, in turns, so that all meet the same neighbours.

    torch's own number is as before afterwards.
    """
    import torch

    before, found = torch.get_num_threads(), {number: [] for number in sorted(numbers)}
    x = torch.ones(SIZE, SIZE)
    try:
        for _ in range(REPEATS):
            for number, times in found.items():
                torch.set_num_threads(number)
                torch.mm(x, x)  # threads start here
                start = time.perf_counter()
                torch.mm(x, x)
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return {number: statistics.median(times) for number, times in found.items()}


def _load() -> float:
    """Processes that want to run, on average over the last minute; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # no such thing on Windows
        return 0.0


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
