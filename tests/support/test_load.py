"""Fewer threads beside other work, if they are quicker and the user has not chosen."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from rational_sae.support import load


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of two cores, and torch with two threads, as nobody asked for."""
    before = torch.get_num_threads()
    for name in load.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(load, "_cores", lambda: 2)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def neighbour() -> Iterator[None]:
    """A process that takes what it gets."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield
    other.kill()
    other.wait()


def test_examples() -> None:
    assert doctest.testmod(load).failed == 0


@pytest.mark.usefixtures("threads")
def test_an_idle_machine_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_load", lambda: 0.4)
    monkeypatch.setattr(load, "seconds", lambda _numbers: pytest.fail("measured"))
    assert load.settle() == ""
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("taken", "left"), [({1: 0.004, 2: 0.031}, 1), ({1: 0.004, 2: 0.0045}, 2)])
def test_fewer_threads_are_taken_where_they_are_quicker(
    taken: dict[int, float], left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_load", lambda: 2.7)
    monkeypatch.setattr(load, "seconds", lambda _numbers: taken)
    said = load.settle()
    assert torch.get_num_threads() == left
    if left == 2:
        assert said == ""
    else:
        assert said.startswith(
            "the machine is busy (load 2.7 on 2 cores): torch takes 1 of 2 threads (a product 4.0 ms"
        )
        assert said.endswith("OMP_NUM_THREADS=2 takes them all")


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", load.CHOSEN)
def test_what_a_user_chose_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    monkeypatch.setattr(load, "_load", lambda: 2.7)
    assert load.settle().endswith("torch has 2 threads: OMP_NUM_THREADS=1 may be quicker")
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("threads", "neighbour")
def test_beside_a_real_neighbour_the_choice_is_said_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_load", lambda: 2.0)
    taken = load.seconds({1, 2})
    assert torch.get_num_threads() == 2
    assert all(0 < value < 60 for value in taken.values())
    said = load.settle()
    assert torch.get_num_threads() == (1 if said else 2)
