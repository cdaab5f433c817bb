"""`rational_sae.evaluate` on a tiny model: SAEs from files and from memory, and what their result offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from tiny import save_tiny_teacher, save_tiny_text

import rational_sae
from rational_sae.data.reading import Reading
from rational_sae.errors import OutputError, SettingsError
from rational_sae.evaluation.api import ReadingOptions
from rational_sae.evaluation.run import evaluate as of_settings
from rational_sae.report import read_report
from rational_sae.report.schema import check_report


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("evaluate")
    text = save_tiny_text(root / "text.jsonl")
    saes = {
        family: save_tiny_teacher(root / family, tiny_folders["llama"], text, family=family)
        for family in ("topk", "relu")
    }
    return {"text": text, **saes}


def test_the_types_for_checkers_are_those_of_the_fields() -> None:
    types = get_type_hints(Reading)
    assert get_type_hints(ReadingOptions) == {name: types[name] for name in Reading.model_fields if name != "text"}


def test_saes_of_files_and_of_memory_give_the_same_figures_and_stay_as_they_are(inputs: dict[str, Path]) -> None:
    asked: dict[str, Any] = {"text": inputs["text"], "eval_tokens": 200}
    mine = rational_sae.load(str(inputs["relu"])).to(torch.float64)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    found = rational_sae.evaluate({"teacher": inputs["topk"], "mine": mine}, **asked)
    assert list(found.rows) == ["teacher", "mine"]
    assert repr(found) == "Evaluation of teacher, mine"
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
    paths = [str(inputs[name]) for name in ("topk", "relu")]
    files = rational_sae.evaluate(paths, **asked)
    old = of_settings(paths, Reading(text=str(inputs["text"])), eval_tokens=200)
    assert found.rows["mine"] == files.rows[paths[1]] == old.rows[paths[1]]
    assert files.results.report() == old.report()
    assert found.warnings == []
    one = found.compare("mine").fvu
    assert [one.low, one.high] == old.differences[f"{paths[1]} - {paths[0]}"]["fvu"]["interval"]
    assert one == found.compare("mine", "teacher")["fvu"]
    with pytest.raises(SettingsError, match="teacher was not compared with mine; there is: mine - teacher"):
        found.compare("teacher", "mine")


def test_one_path_is_one_sae_and_none_is_refused(inputs: dict[str, Path]) -> None:
    assert list(rational_sae.evaluate(inputs["topk"], inputs["text"], eval_tokens=64).rows) == [str(inputs["topk"])]
    with pytest.raises(SettingsError, match="no SAE was given"):
        rational_sae.evaluate([])
    with pytest.raises(SettingsError, match="hooks is no option; there are: text, chat, chat_tokens"):
        rational_sae.evaluate(inputs["topk"], hooks="model.layers.1")  # type: ignore[call-arg]


def test_it_is_saved_as_the_command_line_does_and_not_over_what_is_there(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    found = rational_sae.evaluate({"a": inputs["topk"]}, inputs["text"], eval_tokens=64)
    out = tmp_path / "out"
    found.save(out)
    assert {path.name for path in out.iterdir()} == {"report.json", "report.html"}
    report = read_report(out)
    assert report["rows"] == check_report(found.report())["rows"]
    assert report["settings"]["saes"] == ["a"]
    (out / "notes.md").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not empty"):
        found.save(out)
    found.save(out, overwrite=True)
    assert (out / "notes.md").read_text() == "mine"
