"""The table of rows: whole, without contradictions, and the one place that views read."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rational_sae.report import print_answer, print_table, render, render_sweep, sweep_sheets
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


def test_a_row_that_kept_its_start_is_called_untrained_in_every_view(full: dict[str, Any]) -> None:
    said = "control native (untrained)"
    console = Console(file=io.StringIO(), width=400)
    print_table(full, console)
    assert isinstance(console.file, io.StringIO)
    assert "untrained" not in render(full) + console.file.getvalue()
    full["curves"]["validation"]["control_native"]["kept_step"] = 0
    print_table(full, console)
    page, terminal = render(full), console.file.getvalue()
    for shown in (f"<dt>{said}</dt>", f">{said}</th>", f">rsae − {said}</th>", f"</svg>{said}</li>"):
        assert shown in page
    print_answer(full, console)
    terminal = console.file.getvalue()
    assert "Beyond the same fine-tuning of the teacher (untrained)" in page
    assert f"{said}: no step of its fine-tuning was better than its start." in page
    for shown in (page, terminal):
        assert (
            "No step of its fine-tuning was better than its start: this is a comparison with the untrained teacher"
            in shown
        )
    assert "identity (untrained)" not in page + terminal


def test_a_sweeps_cell_says_which_of_its_rows_kept_their_start(swept: dict[str, Any]) -> None:
    swept["cells"]["a cell"]["untrained"] = ["identity"]
    swept["ratios"]["headline"]["teacher"]["fvu_at_l0"]["untrained"] = 2
    sheets = sweep_sheets(swept)
    assert sheets[0].lines[0][0].text == "FVU at L0 against teacher (untrained in 2 of 4)"
    table = next(sheet for sheet in sheets if sheet.title == "FVU at L0")
    marked = [
        (line[0].text, heading)
        for line in table.lines
        for heading, field in zip(table.headings, line, strict=True)
        if "untrained" in field.text
    ]
    assert marked == [("a cell (development)", "identity")]
    assert "(untrained)" in render_sweep(swept)
