"""Progress: bars where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import io
import re
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rational_sae.support.bars import Bars, Lines, Notebook, shown, watched


def test_a_terminal_gets_bars_and_a_log_gets_lines() -> None:
    assert isinstance(shown(Console(file=io.StringIO(), force_terminal=True)), Bars)
    assert isinstance(shown(Console(file=io.StringIO())), Lines)


def test_lines_say_what_begins_how_far_it_is_and_when_it_ends() -> None:
    file = io.StringIO()
    with Lines(Console(file=file), every=0.0) as lines:
        lines.stage("harvest [/red]", 4)
        lines.advance()
        lines.advance(3)
        lines.stage("measure")
        lines.advance(2)
    told = [line[9:] for line in file.getvalue().splitlines()]
    assert told[0] == "harvest [/red]"
    assert told[1].startswith("harvest [/red]: 1 of 4 (25%), about ")
    assert told[2].startswith("harvest [/red]: 4 of 4 (100%), about 0 s left")
    assert told[3].startswith("harvest [/red]: done in ")
    assert told[4:6] == ["measure", "measure: 2"]
    assert told[6].startswith("measure: done in ")


def test_what_was_done_before_counts_for_how_far_it_is_but_not_for_how_quick_it_is() -> None:
    file = io.StringIO()
    with Lines(Console(file=file), every=0.0) as lines:
        lines.stage("fine-tune", 1000, 900)
        time.sleep(0.3)  # one step in .3 s: 99 more take half a minute
        lines.advance()
    found = re.search(r"901 of 1000 \(90%\), about (\d+) s left", file.getvalue())
    assert found
    assert int(found[1]) >= 29


def test_lines_are_few() -> None:
    file = io.StringIO()
    with Lines(Console(file=file)) as lines:
        lines.stage("fine-tune", 10_000)
        for _ in range(10_000):
            lines.advance()
    assert len(file.getvalue().splitlines()) == 2


def test_bars_take_any_name_as_it_is() -> None:
    file = io.StringIO()
    with Bars(Console(file=file, force_terminal=True, width=100)) as bars:
        bars.stage("harvest [/red]", 4, 2)
        bars.advance(1)
    assert "harvest [/red]" in file.getvalue()
    assert "3/" in file.getvalue()


def test_a_log_of_a_script_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with watched() as progress:
        progress.stage("harvest", 4)
        progress.advance(4)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_gets_one_bar_a_stage_that_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []

    def display(first: str, *, display_id: bool) -> Any:
        assert display_id
        drawn.append([first])
        return SimpleNamespace(update=drawn[-1].append)

    stand_in = ModuleType("IPython.display")
    stand_in.__dict__.update(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython.display", stand_in)
    with Notebook(every=0.0) as bars:
        bars.stage("harvest <b>", 4)
        bars.advance(3)
        bars.stage("measure")
    assert drawn == [
        [
            '<progress max="4" value="0"></progress> harvest &lt;b&gt;: 0 of 4, 0 s',
            '<progress max="4" value="3"></progress> harvest &lt;b&gt;: 3 of 4, 0 s',
            '<progress max="3" value="3"></progress> harvest &lt;b&gt;: 3 of 3, 0 s',
        ],
        ["<progress></progress> measure: 0 s", '<progress max="1" value="1"></progress> measure: 1 of 1, 0 s'],
    ]
