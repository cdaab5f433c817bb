"""Whether other work takes the processor: torch's threads wait for each other, so that two beside a busy neighbour can
be many times slower than one."""

from __future__ import annotations

import os

BUSY = 0.5
"""Share of the cores that others may take without a word (by eye)."""


def advice(threads: int, load: float | None = None, cores: int | None = None) -> str:
    """A line where torch has more threads than there are idle cores, else "".

    load: processes that want to run, on average over the last minute; cores: those that this process may use. Both are
    the machine's by default; "" where the system does not tell.

    >>> advice(2, load=2.7, cores=2)
    'the machine is busy (load 2.7 on 2 cores) and torch has 2 threads: OMP_NUM_THREADS=1 may be quicker'
    >>> advice(2, load=0.2, cores=2), advice(1, load=9.0, cores=2)
    ('', '')
    """
    if load is None:
        try:
            load = os.getloadavg()[0]
        except (AttributeError, OSError):  # no such thing on Windows
            return ""
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    idle = max(1, int(cores - load))
    if load < BUSY * cores or threads <= idle:
        return ""
    return (
        f"the machine is busy (load {load:.1f} on {cores} cores) and torch has {threads} threads: "
        f"OMP_NUM_THREADS={idle} may be quicker"
    )
