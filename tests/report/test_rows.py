"""The table of rows: whole, without contradictions, and the one place that views read."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rational_sae.report import print_table, render
from rational_sae.report.rows import ACTIVATIONS, OTHERS, ROWS, TEACHER, Row, against, strokes
from rational_sae.report.strokes import Stroke
from rational_sae.support.outputs import names


def test_each_row_has_words_and_a_look_of_its_own() -> None:
    assert all(row.words for row in ROWS.values())
    looks = [row.stroke for row in ROWS.values()]
    assert len(set(looks)) == len(looks)


def test_what_a_row_is_compared_with_are_rows() -> None:
    assert against()[0].name == TEACHER
    assert all(name in ROWS for row in ROWS.values() for name in row.compared_with)
    assert against(ACTIVATIONS) == against("runs/mine") == []


def test_the_folders_of_a_result_are_those_of_the_trained_rows() -> None:
    """`support` lies before this table, so it cannot read it."""
    trained = {row.name.replace("_", "-") for row in against() if row.as_base and row.name != TEACHER}
    assert set(names.ROWS) == {"sae"} | trained


def test_unknown_rows_take_strokes_in_turn() -> None:
    found = strokes(["a", TEACHER, "b"])
    assert found == {"a": OTHERS[0], TEACHER: ROWS[TEACHER].stroke, "b": OTHERS[1]}


def test_a_new_row_is_one_entry(full: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "control_toy", Row("control_toy", "The teacher with a toy gate.", Stroke("#123456")))
    full["rows"]["control_toy"] = full["rows"]["identity"]
    page = render(full)
    for shown in ("control toy", "The teacher with a toy gate.", "#123456"):
        assert shown in page
    console = Console(file=io.StringIO(), width=400)
    print_table(full, console)
    assert isinstance(console.file, io.StringIO)
    assert "control toy" in console.file.getvalue()
