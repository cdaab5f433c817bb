"""The rows of `rsae headroom` on tiny teachers: how far each has come towards the floor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import save_tiny_teacher, save_tiny_text
from typer.testing import CliRunner

from rational_sae.cli import app
from rational_sae.data.reading import Reading
from rational_sae.errors import SourceError
from rational_sae.evaluation import Results, Way, measure, results
from rational_sae.evaluation.pursuit import PursuedSAE, as_many_as
from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.gates.topk import TopKGate
from rational_sae.report.way_chart import way_points
from rational_sae.upgrading.headroom import headroom

TOKENS = 256


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Path:
    """A folder with a text, a JumpReLU teacher whose dictionary is overcomplete, and the same with a better decoder."""
    root = tmp_path_factory.mktemp("headroom")
    text = save_tiny_text(root / "text.jsonl")
    teacher = load(str(save_tiny_teacher(root / "teacher", tiny_folders["llama"], text, family="jumprelu")))
    save(teacher, root / "better")
    with torch.no_grad():
        teacher.W_dec *= 0.9
    save(teacher, root / "teacher")
    return root


def reading(inputs: Path) -> Reading:
    return Reading(text=str(inputs / "text.jsonl"))


@pytest.fixture(scope="module")
def found(inputs: Path) -> Results:
    return headroom(str(inputs / "teacher"), reading(inputs), others=[str(inputs / "better")], eval_tokens=TOKENS)


def test_each_row_has_its_share_of_the_way(found: Results, inputs: Path) -> None:
    better = str(inputs / "better")
    rows, teacher, floor = found.rows, found.rows["teacher"], found.rows["floor"]
    assert set(rows) == {"teacher", "teacher_rescaled", "shape", "init_looks", better, "floor", f"floor of {better}"}
    assert floor["fvu"] < teacher["fvu"]
    assert floor["l0"] <= teacher["l0"]
    whole = teacher["fvu"] - floor["fvu"]
    for name in ("teacher_rescaled", "shape", "init_looks", better):
        assert rows[name]["way"] == pytest.approx((teacher["fvu"] - rows[name]["fvu_at_l0"]) / whole, abs=1e-9)
        low, high = found.intervals[name]["way"]
        assert low <= rows[name]["way"] <= high
    assert 0 < rows[better]["way"] < 1
    assert rows[better]["way_own"] == pytest.approx(rows[better]["way"], rel=1e-3), "the same directions"
    assert all("way" not in rows[name] for name in ("teacher", "floor"))
    assert rows["init_looks"]["l0"] == pytest.approx(teacher["l0"], rel=0.1)
    assert "init_looks - teacher" in found.differences
    assert "floor - teacher" not in found.differences, "a floor replaces nobody"


def test_the_chart_shows_both_floors(found: Results, inputs: Path) -> None:
    points = way_points(found.report())
    assert [(point["line"], point["floor"]) for point in points] == [
        ("teacher rescaled", "Way to the floor"),
        ("shape", "Way to the floor"),
        ("init looks", "Way to the floor"),
        (str(inputs / "better"), "Way to the floor"),
        (str(inputs / "better"), "Way to its own floor"),
    ]
    assert all(point["low"] <= point["value"] <= point["high"] for point in points)


def test_the_command_says_and_draws_it(inputs: Path, tmp_path: Path) -> None:
    text, out = ["--text", str(inputs / "text.jsonl"), "--eval-tokens", str(TOKENS)], tmp_path / "way.svg"
    arguments = ["headroom", str(inputs / "teacher"), str(inputs / "better"), *text]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "x.json"), "--plot", str(out)])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "of it for codes by pursuit" in said, "the time is told before"
    assert "of the way to the floor of the teacher's dictionary" in said
    assert "of the way to the floor of its own dictionary" in said
    assert "<svg" in out.read_text()
    assert json.loads((tmp_path / "x.json").read_text())["rows"]["shape"]["way"] is not None
    refused = CliRunner().invoke(app, [*arguments, "--no-floor", "--plot", str(out)])
    assert refused.exit_code == 2
    assert "without the floor" in " ".join(refused.output.split())


def test_without_the_floor_nothing_is_searched(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rational_sae.upgrading.headroom.PursuedSAE", None)
    found = headroom(str(inputs / "teacher"), reading(inputs), floor=False, eval_tokens=TOKENS)
    assert set(found.rows) == {"teacher", "teacher_rescaled", "shape", "init_looks"}
    assert all("way" not in row for row in found.rows.values())


def test_an_sae_of_another_hook_is_refused(inputs: Path, tmp_path: Path) -> None:
    other = load(str(inputs / "better"))
    other.metadata.hook_name = "model.layers.0"
    save(other, tmp_path / "other")
    with pytest.raises(SourceError, match=r"was trained at model\.layers\.0"):
        headroom(str(inputs / "teacher"), reading(inputs), others=[str(tmp_path / "other")], eval_tokens=TOKENS)


@pytest.mark.parametrize("name", ["teacher", "shape", "floor"])
def test_a_path_that_is_the_name_of_a_row_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match=rf"write \./{name}"):
        headroom("nowhere", others=[name])


def test_there_is_no_way_to_a_floor_that_is_no_lower(inputs: Path) -> None:
    teacher = load(str(inputs / "better"))
    reader = reading(inputs).open(teacher)
    empty = teacher.with_gate(TopKGate(1))
    with torch.no_grad():
        empty.W_dec.zero_()
    saes = {"teacher": teacher, "other": teacher, "floor": PursuedSAE(empty, as_many_as(teacher))}
    sums = measure(reader, saes, TOKENS, torch.zeros(teacher.d_in))
    found = results(sums, [], ways=[Way("other", "floor", "way")])
    assert "way" not in found.rows["other"]
