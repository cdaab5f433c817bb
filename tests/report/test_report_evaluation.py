"""`rsae evaluate --out`: one dictionary behind the JSON, the page and the terminal, and a page that is rebuilt."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny import TINY_WIDTH, TINY_WORDS
from typer.testing import CliRunner

from rational_sae import cli
from rational_sae.formats.save import save
from rational_sae.gates.relu import ReLUGate
from rational_sae.metrics import named
from rational_sae.report import decisions, difference_rows, read_report, table_rows
from rational_sae.sae.model import SAE

HOOK = "model.layers.1"


def mirror(scale: float) -> SAE:
    """x̂ = scale · x, from two latents a dimension."""
    eye = torch.eye(TINY_WIDTH)
    return SAE(
        torch.cat([eye, -eye], 1),
        torch.zeros(2 * TINY_WIDTH),
        scale * torch.cat([eye, -eye]),
        torch.zeros(TINY_WIDTH),
        ReLUGate(),
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> list[str]:
    """Arguments that evaluate a poor SAE and a better one on the tiny model."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name, scale in (("poor", 0.8), ("better", 0.95)):
        save(mirror(scale), folder / name)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(TINY_WORDS), (400, 40), generator=generator).tolist()
    text = folder / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": " ".join(TINY_WORDS[i] for i in row)}) for row in rows))
    options = {"--text": text, "--model": tiny_folders["llama"], "--hook": HOOK, "--context": 32, "--eval-tokens": 1024}
    return [
        "evaluate",
        str(folder / "poor"),
        str(folder / "better"),
        *(str(part) for option in options.items() for part in option),
    ]


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What the command writes to stdout, and to people, there without line ends."""
    heard = io.StringIO()
    for name in ("console", "out"):
        monkeypatch.setattr(cli.terminal, name, Console(file=heard, width=200))
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, " ".join(heard.getvalue().split())


def test_json_page_and_terminal_show_the_same_numbers(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    stdout, terminal = run([*inputs, "--out", str(out), "--json", "-", "--full"], monkeypatch)
    report = read_report(out)
    assert json.loads(stdout) == report
    page = html.unescape((out / "report.html").read_text(encoding="utf-8"))
    for row in [*table_rows(report), *difference_rows(report)]:
        for key, cell in row.cells.items():
            assert cell.text in page
            assert cell.interval in page
            if key in named("headline"):
                assert cell.text in terminal
    (decision,) = decisions(report)
    assert decision.answer.startswith(("Yes", "With reservations"))
    for fact in decision.primary:
        for text in (fact.change, fact.difference, fact.interval):
            assert text in page
            assert text in terminal
    assert decision.answer in page
    assert decision.answer in terminal


def test_the_page_of_an_evaluation_is_rebuilt_from_its_json(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([*inputs, "--out", str(tmp_path)], monkeypatch)
    first = (tmp_path / "report.html").read_bytes()
    (tmp_path / "report.html").unlink()
    run(["report", str(tmp_path)], monkeypatch)
    assert (tmp_path / "report.html").read_bytes() == first


def test_an_occupied_out_is_refused_before_any_work(inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    done: Any = CliRunner().invoke(cli.app, [*inputs, "--out", str(tmp_path)])
    assert "not empty" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_sweeps_page_explains_its_rows_and_says_which_controls_are_one(swept: dict[str, Any]) -> None:
    from rational_sae.report import render_sweep

    for cell in swept["cells"].values():
        cell["rows"]["control_jumprelu"] = dict(cell["rows"]["control_native"])
    swept["cells"]["relu-60"]["rows"]["control_jumprelu"]["fvu"] = 0.5
    page = render_sweep(swept)
    assert "In a cell, topk-64, relu-30 control native and control jumprelu have the same figures" in page
    assert "<dt>control jumprelu</dt>" in page
    assert "<dt>FVU at L0 <code>fvu_at_l0</code></dt>" in page


def test_a_sweeps_page_is_rebuilt_from_its_json(
    swept: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rational_sae.report import write_sweep

    write_sweep(swept, tmp_path)
    first = (tmp_path / "sweep.html").read_bytes()
    (tmp_path / "sweep.html").unlink()
    run(["report", str(tmp_path)], monkeypatch)
    assert (tmp_path / "sweep.html").read_bytes() == first
