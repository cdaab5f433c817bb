"""The notebook runs from top to bottom on the embedded model, and what is committed is what it printed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def read() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nbformat

        return nbformat.read(NOTEBOOK, as_version=4)


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")


def cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_what_is_committed_is_small_and_ran_in_order() -> None:
    assert NOTEBOOK.stat().st_size < 100_000
    notebook = read()
    assert [cell.execution_count for cell in cells(notebook)] == list(range(1, len(cells(notebook)) + 1))
    assert not [one for cell in cells(notebook) for one in cell.outputs if one.output_type == "error"]
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert str(NOTEBOOK.parents[1]) not in text, "no machine's own path"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_it_runs_and_prints_what_is_committed() -> None:
    from nbclient import NotebookClient

    committed, fresh = read(), read()
    NotebookClient(fresh, timeout=1500, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    before, after = cells(committed), cells(fresh)
    assert [bool(printed(cell)) for cell in after] == [bool(printed(cell)) for cell in before]
    assert printed(after[1]).split(",")[1:] == printed(before[1]).split(",")[1:], "the certified fit is deterministic"
    assert {"teacher", "init", "rsae", "control_native"} <= {line.split()[0] for line in printed(after[2]).splitlines()}
    assert "the teacher" in printed(after[3])
    assert printed(after[3]).split()[:2] == printed(before[3]).split()[:2], "the same answer"
    assert [line.split()[0] for line in printed(after[5]).splitlines()[1:]] == [
        "teacher",
        "calibrated",
        "tuned",
        "control",
    ]
    assert "RationalSAE" in printed(after[-1])
