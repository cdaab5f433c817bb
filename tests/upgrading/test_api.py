"""`rational_sae.upgrade` on a tiny model: what it takes, what its result offers, and how it is kept."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from safetensors.torch import load_file
from tiny import save_tiny_teacher, save_tiny_text

import rational_sae
from rational_sae.errors import OutputError, SettingsError
from rational_sae.support.progress import Silent
from rational_sae.upgrading import job
from rational_sae.upgrading.api import IN_MEMORY, Options
from rational_sae.upgrading.result import Upgrade
from rational_sae.upgrading.settings import Settings

SHORT: Options = {"type": (3, 2), "steps": 6, "batch_tokens": 64, "eval_tokens": 256, "controls": ("native",)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("upgrade")
    text = save_tiny_text(root / "text.jsonl")
    return save_tiny_teacher(root / "teacher", tiny_folders["llama"], text), text


@pytest.fixture(scope="module")
def done(inputs: tuple[Path, Path]) -> Upgrade:
    return rational_sae.upgrade(*inputs, **SHORT)


def test_help_shows_every_option_with_the_default_of_the_settings() -> None:
    parameters = inspect.signature(rational_sae.upgrade).parameters
    assert list(parameters)[:3] == ["teacher", "text", "out"]
    for name, field in Settings.model_fields.items():
        if name != "teacher":
            assert parameters[name].default == field.get_default(call_default_factory=True)


def test_the_types_for_checkers_are_those_of_the_fields() -> None:
    types, known = get_type_hints(Settings), get_type_hints(Options)
    assert known == {name: types[name] for name in known}
    left = Settings.model_fields.keys() - known.keys() - {"teacher", "text"}
    assert left <= {"scales", "token_scale", "band", "solve_every"}, "but options that go away"


def test_a_result_offers_the_sae_its_figures_and_what_was_compared(inputs: tuple[Path, Path], done: Upgrade) -> None:
    same = job.run(Settings(teacher=str(inputs[0]), text=str(inputs[1]), **SHORT))
    assert torch.equal(done.sae.W_enc, same.saes["rsae"].W_enc)
    assert done.rows["rsae"] == same.results.rows["rsae"]
    assert repr(done) == f"Upgrade of {inputs[0]}. {done.report()['verdict']}"
    found = done.compare("teacher")
    as_reported = done.report()["differences"]["rsae - teacher"]
    assert {name: {"value": one.value, "interval": [one.low, one.high]} for name, one in found.items()} == as_reported
    assert found.to_frame().loc["fvu_at_l0", "value"] == found.fvu_at_l0.value
    with pytest.raises(SettingsError, match="rsae was not compared with identity; there is: rsae - teacher,"):
        done.compare("identity")


def test_an_sae_in_memory_is_upgraded_like_its_file_and_stays_as_it_is(
    inputs: tuple[Path, Path], done: Upgrade
) -> None:
    teacher = rational_sae.load(str(inputs[0]))
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    again = rational_sae.upgrade(teacher, inputs[1], **SHORT)
    assert torch.equal(again.sae.W_enc, done.sae.W_enc)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert again.settings.teacher == str(inputs[0])
    teacher.metadata.source = ""
    shorter: Options = {**SHORT, "steps": 1}
    named = rational_sae.upgrade(teacher, inputs[1], **shorter)
    assert named.settings.teacher == named.report()["teacher"]["source"] == IN_MEMORY
    assert teacher.metadata.source == ""


def test_it_is_saved_as_the_command_line_does_and_not_over_what_is_there(done: Upgrade, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done.save(out)
    names = {"sae", "control-native", "report.json", "report.html", "settings.yaml", "log.jsonl"}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "report.json").read_text())["rows"]["rsae"]["l0"] == done.rows["rsae"]["l0"]
    (out / "notes.md").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not empty"):
        done.save(str(out))
    done.save(out, overwrite=True)
    assert (out / "notes.md").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "report.json").write_text("[]")
    with pytest.raises(OutputError, match=r"report\.json was not written by rsae upgrade"):
        done.save(foreign, overwrite=True)


def test_a_job_in_a_folder_is_resumed_to_the_same_bits(
    inputs: tuple[Path, Path], done: Upgrade, tmp_path: Path
) -> None:
    class Interrupts(Silent):
        steps = 0

        def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
            self.tuning = name.startswith("fine-tune")

        def advance(self, amount: int = 1, total: int | None = None) -> None:
            self.steps += self.tuning
            if self.steps == 3:
                raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        rational_sae.upgrade(*inputs, out=out, progress=Interrupts(), **SHORT)
    assert (out / "checkpoint").exists()
    with pytest.raises(OutputError, match="holds an unfinished job"):
        rational_sae.upgrade(*inputs, out=out, **SHORT)
    again = rational_sae.upgrade(*inputs, out=str(out), resume=True, **SHORT)
    assert torch.equal(again.sae.W_enc, done.sae.W_enc)
    assert torch.equal(load_file(out / "sae" / "sae_weights.safetensors")["W_enc"], done.sae.W_enc)
    assert not (out / "checkpoint").exists()
    with pytest.raises(OutputError, match=r"is finished; read .*report\.json"):
        rational_sae.upgrade(*inputs, out=out, resume=True, **SHORT)


def test_what_cannot_be_meant_is_one_line(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="step is no option; there are: text, chat"):
        rational_sae.upgrade(*inputs, step=3)  # type: ignore[call-arg]
    with pytest.raises(SettingsError, match="steps: Input should be greater than or equal to 1"):
        rational_sae.upgrade(*inputs, steps=0)
    with pytest.raises(SettingsError, match="resume is for a job in a folder; give out"):
        rational_sae.upgrade(*inputs, resume=True)
    with pytest.raises(SettingsError, match="resume goes on and overwrite starts again"):
        rational_sae.upgrade(*inputs, out=tmp_path / "out", resume=True, overwrite=True)
