"""Jobs that are broken on purpose (benchmarks/faults.py): nothing is lost, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "benchmarks" / "faults.py"


def rows(*options: str) -> list[dict[str, Any]]:
    # In a process of its own: it forks, which does not go together with the threads that other tests have started.
    command = [sys.executable, str(BENCH), "--json", "-", *options]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_nothing(times: int) -> None:
    (row,) = rows("--only", "kill", "--times", str(times))
    assert row["times"] == times
    assert row["lost"] == 0


@pytest.mark.slow
def test_no_fault_of_the_table_loses_anything() -> None:
    found = rows("--seed", "1")
    assert len(found) == 14
    assert {row["fault"]: row["lost"] for row in found if row["lost"]} == {}


def test_the_page_has_the_table_of_the_command() -> None:
    from faults import FAULTS, MARKS

    page = (BENCH.parents[1] / "docs" / "reliability.md").read_text()
    lines = page.partition(MARKS[0])[2].partition(MARKS[1])[0].strip().splitlines()[2:]
    assert len(lines) == len(FAULTS)
    assert all(line.split("|")[3].strip() == "0" for line in lines)
