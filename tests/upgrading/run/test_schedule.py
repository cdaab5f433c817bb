"""When checkpoints are written: by steps, by the clock, and never for more than a share of the time."""

from __future__ import annotations

import pytest

from rational_sae.upgrading.run.schedule import MOST_OF_TIME, Interval, Schedule


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as a list of one."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_checkpoint_is_due_after_so_many_steps_from_the_one_before(clock: list[float]) -> None:
    schedule = Schedule(Interval(steps=4, seconds=60.0))
    schedule.begin(None)
    assert [step for step in range(1, 6) if schedule.is_due(step)] == [4, 5]
    schedule.wrote(5, 0.1)
    assert schedule.saved == 5
    assert [step for step in range(6, 11) if schedule.is_due(step)] == [9, 10]
    schedule.begin(9)
    assert [step for step in range(10, 14) if schedule.is_due(step)] == [13]


def test_a_checkpoint_is_due_by_the_clock_but_not_where_it_takes_long(clock: list[float]) -> None:
    schedule = Schedule(Interval(steps=1000, seconds=60.0))
    schedule.begin(None)
    clock[0] += 59.0
    assert not schedule.is_due(1)
    clock[0] += 1.0
    assert schedule.is_due(1)
    schedule.wrote(1, seconds=10.0)
    clock[0] += 60.0
    assert not schedule.is_due(2)
    clock[0] += 10.0 / MOST_OF_TIME - 60.0
    assert schedule.is_due(2)
