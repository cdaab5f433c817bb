"""The numbers: written once, alike in the table's views, with the right verdict on a difference."""

from __future__ import annotations

import doctest
import io
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from rational_sae.metrics import METRICS, named
from rational_sae.report import (
    difference_rows,
    format_difference,
    format_interval,
    format_value,
    numbers,
    print_table,
    rows,
    table_rows,
)

KEYS = [
    "mse",
    "fvu",
    "explained_variance",
    "l0",
    "l0_eps",
    "alive_fraction",
    "ce_clean",
    "ce_sae",
    "ce_zero",
    "ce_mean",
    "delta_ce",
    "loss_recovered",
    "loss_recovered_mean",
    "ce_loss_score",
    "kl",
    "top1_agreement",
    "fvu_at_l0",
    "delta_ce_at_l0",
    "probe_k1",
    "probe_k2",
    "probe_k5",
    "probe_k20",
    "probe_dense",
]


def printed(report: dict[str, Any], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(report, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("module", [numbers, rows])
def test_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_every_key_of_a_row_has_words() -> None:
    assert sorted(named("headline", "further", "probing")) == sorted(KEYS)
    assert all(metric.words for metric in METRICS.values())


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("fvu", -0.0, "0.0000"),
        ("fvu", 0, "0.0000"),
        ("delta_ce", -3.2e-6, "-3.2e-06"),
        ("delta_ce", 1.23456789e9, "1.235e+09"),
        ("l0", 32.204, "32.20"),
        ("mse", 0.0299, "0.02990"),
        ("mse", 0.0, "0"),
        ("mse", 29792.4, "29792"),
        ("mse", 4.2e9, "4.200e+09"),
        ("kl", float("nan"), "–"),
        ("steps", 22000, "22000"),
        ("type", [9, 8], "9, 8"),
        ("resumed", True, "yes"),
        ("text", "news", "news"),
        ("path", None, "–"),
    ],
)
def test_values(key: str, value: Any, text: str) -> None:
    assert format_value(key, value) == text


def test_signs_and_intervals() -> None:
    assert format_difference("fvu", None) == "–"
    assert format_interval("fvu", [-0.1, 0.2], signed=True) == "[-0.1000, +0.2000]"
    assert format_interval("fvu", [None, 0.2]) == ""
    assert format_interval("fvu", None) == ""


@pytest.mark.parametrize(
    ("key", "interval", "outcome"),
    [
        ("fvu", [-0.2, -0.1], "better"),
        ("fvu", [0.1, 0.2], "worse"),
        ("fvu", [-0.1, 0.1], "unclear"),
        ("fvu", [0.0, 0.1], "unclear"),
        ("loss_recovered", [0.1, 0.2], "better"),
        ("loss_recovered", [-0.2, -0.1], "worse"),
        ("l0", [0.1, 0.2], "differs"),
        ("someone's own", [0.1, 0.2], "differs"),
        ("fvu", None, ""),
        ("fvu", [None, None], ""),
    ],
)
def test_outcome_of_a_difference(minimal: dict[str, Any], key: str, interval: list[float] | None, outcome: str) -> None:
    minimal["differences"] = {"rsae - teacher": {key: {"value": 0.1, "interval": interval}}}
    (row,) = difference_rows(minimal)
    assert row.cells[key].outcome == outcome


def test_rows_hold_the_reports_own_numbers(full: dict[str, Any]) -> None:
    for row in table_rows(full):
        for key, cell in row.cells.items():
            assert cell.value == full["rows"][row.name].get(key)
            assert cell.text == format_value(key, cell.value)
    assert list(table_rows(full)[0].cells)[:3] == ["l0", "fvu", "fvu_at_l0"]


@pytest.mark.parametrize("width", [20, 60, 80, 120, 200])
def test_the_terminal_shows_whole_numbers_at_any_width(full: dict[str, Any], width: int) -> None:
    full["rows"]["runs/a/very/long/path/to/some/sae"] = {"fvu": 0.1}
    shown = printed(full, width)
    for row in table_rows(full):
        for key in named("headline"):
            assert row.cells[key].text in shown
    for row in difference_rows(full):
        for key in named("headline"):
            assert row.cells[key].text in shown
            assert row.cells[key].interval in shown
    if width >= 60:
        assert max(len(line) for line in shown.splitlines()) <= width


def test_a_wide_terminal_shows_intervals_too(full: dict[str, Any]) -> None:
    interval = table_rows(full)[1].cells["fvu"].interval
    assert interval in printed(full, 200)
    assert interval not in printed(full, 80)


def test_the_terminal_takes_names_for_text(minimal: dict[str, Any]) -> None:
    minimal["rows"]["[red]x[/]"] = {"fvu": 0.5}
    assert "[red]x[/]" in printed(minimal, 80)


def test_nothing_to_show(minimal: dict[str, Any]) -> None:
    minimal["rows"] = {}
    assert printed(minimal, 80) == ""


def test_importing_is_cheap() -> None:
    heavy = "{'altair', 'vl_convert', 'jinja2', 'rich', 'pydantic', 'torch', 'numpy'}"
    code = f"import sys, rational_sae.report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
