"""A busy machine is said to be one, and an idle one is not."""

from __future__ import annotations

import doctest

from rational_sae.support import load


def test_examples() -> None:
    assert doctest.testmod(load).failed == 0


def test_as_many_threads_as_idle_cores_are_advised_and_one_at_least() -> None:
    assert "OMP_NUM_THREADS=3 " in load.advice(8, load=4.6, cores=8)
    assert "OMP_NUM_THREADS=1 " in load.advice(2, load=40.0, cores=2)
    assert load.advice(8, load=3.9, cores=8) == ""
