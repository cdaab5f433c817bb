"""A job's folder while it runs: what it holds, what it refuses, and what `rsae` and `rsae status` make of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dying import DiedError, run
from safetensors.torch import load_file
from tiny import tiny_job

from rational_sae.errors import OutputError, TextError, TrainingError
from rational_sae.formats import load
from rational_sae.report import read_report
from rational_sae.support.progress import Silent
from rational_sae.upgrading import job
from rational_sae.upgrading.run.folder import JobFolder
from rational_sae.upgrading.run.owner import held
from rational_sae.upgrading.run.status import how_to_resume, status
from rational_sae.upgrading.settings import Settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Settings:
    return tiny_job(tmp_path_factory.mktemp("job"), tiny_folders["llama"])


@pytest.fixture(scope="module")
def whole(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(settings, out)
    return out


def files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith("report")
    }


def test_a_job_says_what_it_does_while_it_runs_and_goes_on_to_the_same_bits(
    settings: Settings, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DiedError):
        run(settings, out, dies_at=6)
    assert {path.name for path in out.iterdir()} == {"settings.yaml", "log.jsonl", "checkpoint"}
    log = (out / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [step for step in range(1, 7) for _ in range(2)]
    (one,) = status(out)
    assert (one.state, one.step, one.steps, one.saved_step) == ("stopped", 6, 12, 4)
    assert set(one.latest) == {"rsae", "control_native"}
    assert "stopped at step 6 of 12, step 4 is saved" in one.line()
    assert how_to_resume(out, ["rsae", "…"]) == "interrupted at step 4 of 12, which is saved; go on with: rsae '…'"
    with (out / "log.jsonl").open("a") as file:
        file.write('{"row": "rsae", "step": 7, "ms')  # a line that was cut
    report = run(settings, out, resume=True)
    assert files(out) == files(whole)
    first = read_report(whole)
    assert {key: value for key, value in report.items() if key != "timing"} == {
        key: value for key, value in first.items() if key != "timing"
    }
    (one,) = status(out)
    assert (one.state, one.step) == ("finished", 12)


def test_training_tokens_of_several_windows_are_harvested_in_between_and_only_once(settings: Settings) -> None:
    stages: list[tuple[str, int | None, int]] = []

    class Heard(Silent):
        def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
            stages.append((name, total, done))

    several = settings.model_copy(update={"train_tokens": 12 * 64 - 3}).resolved(load(settings.teacher))
    shared = job.harvest(several, load(several.teacher))
    shared.batches.buffer_bytes = 5 * 64 * 4 * shared.reader.host.d_model
    done = job.run(several, shared=shared, progress=Heard())
    tuning = "fine-tune rsae, control_native"
    windows = [("harvest", 12 * 64 - 3, 0), (tuning, 12, 0), ("harvest", None, 0), (tuning, 12, 5)]
    windows += [("harvest", None, 0), (tuning, 12, 10)]
    assert [stage for stage in stages if stage[0] in ("harvest", tuning)] == windows
    assert {"harvest", tuning} <= set(done.timing)
    assert done.distinct_tokens == 12 * 64 - 3


def test_an_unfinished_job_is_not_overwritten_by_accident(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DiedError):
        run(settings, out, dies_at=5)
    with pytest.raises(OutputError, match="unfinished job; give --resume to go on, or --overwrite"):
        JobFolder(out)
    with pytest.raises(OutputError, match=r"was made with lr 0\.0006, now it is 0\.001"):
        run(settings.model_copy(update={"lr": 1e-3}), out, resume=True)
    with held(out):
        (one,) = status(out)
        assert one.state == "running"
        with pytest.raises(OutputError, match="written by another process"):
            run(settings, out, resume=True)
    run(settings, out, overwrite=True)
    assert "checkpoint" not in {path.name for path in out.iterdir()}


def test_an_input_that_changed_is_refused_by_name(settings: Settings, tmp_path: Path) -> None:
    out, text = tmp_path / "out", tmp_path / "text.jsonl"
    content = Path(settings.text).read_text()
    text.write_text(content)
    mine = settings.model_copy(update={"text": str(text)})
    with pytest.raises(DiedError):
        run(mine, out, dies_at=5)
    text.write_text(content.replace("w1 ", "w2 "))
    with pytest.raises(OutputError, match=r"the calibration activations .* changed since step 4"):
        run(mine, out, resume=True)
    assert (out / "checkpoint").exists()


def test_what_is_refused_at_the_start_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TextError):
        run(settings.model_copy(update={"batch_tokens": 10**6, "train_tokens": None}), out)
    assert not out.exists()


@pytest.mark.parametrize("changes", [{"eval_tokens": 10**6}, {"batch_tokens": 10**6, "train_tokens": None}])
def test_an_earlier_result_stays_until_the_new_inputs_are_known_to_be_good(
    settings: Settings, whole: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / "sae" / "notes.md").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(TextError):
        run(settings.model_copy(update=changes), out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_an_unsafe_sae_is_no_success(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rows = tmp_path / "out", job.finished_rows

    def with_a_wild_scale(*arguments: Any) -> Any:
        found = rows(*arguments)
        with torch.no_grad():
            found["rsae"].gate.log_scale[0] += 20.0
        return found

    monkeypatch.setattr(job, "finished_rows", with_a_wild_scale)
    with pytest.raises(TrainingError, match="a scale left the safe range"):
        run(settings, out)
    assert {path.name for path in out.iterdir()} == {"settings.yaml", "log.jsonl", "checkpoint"}
    assert list(tmp_path.iterdir()) == [out]
    monkeypatch.undo()
    run(settings, out, resume=True)
    assert (out / "report.json").exists()


def test_sigterm_saves_and_resume_alone_knows_the_job(settings: Settings, tmp_path: Path) -> None:
    out, path = tmp_path / "Ergebnisse (2026)" / "run 1", tmp_path / "settings.yaml"
    long = settings.model_copy(update={"steps": 4000})
    path.write_text(yaml.safe_dump(long.to_store()))
    command = [sys.executable, "-m", "rational_sae", "upgrade", "--out", str(out)]
    started = subprocess.Popen([*command, "--settings", str(path)], stderr=subprocess.PIPE, text=True)
    for _ in range(3000):
        if started.poll() is not None or ((out / "log.jsonl").exists() and (out / "log.jsonl").stat().st_size > 500):
            break
        time.sleep(0.1)
    os.kill(started.pid, signal.SIGTERM)
    _, told = started.communicate(timeout=120)
    assert started.returncode == 130, told
    assert f"of 4000, which is saved; go on with: rsae upgrade --out '{out}' --resume" in told
    assert "harvest: done in" in told  # stderr is no terminal: plain lines
    saved = status(out)[0].saved_step
    assert saved
    assert saved == status(out)[0].step
    again = subprocess.run([*command, "--resume", "--steps", "12"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "was made with steps 4000, now it is 12" in again.stderr


def test_decoders_are_fitted_again_for_every_row_and_nothing_else_changes(settings: Settings, tmp_path: Path) -> None:
    more = settings.model_copy(update={"train_tokens": 4000})  # 600 are too few to fit a decoder on
    again = more.model_copy(update={"refit_decoder": True})
    before, after = run(more, tmp_path / "plain"), run(again, tmp_path / "out")
    assert "refit decoders" in after["timing"]
    for folder in ("sae", "control-native"):
        plain, refitted = (
            load_file(out / folder / "sae_weights.safetensors") for out in (tmp_path / "plain", tmp_path / "out")
        )
        assert {name for name in plain if not torch.equal(plain[name], refitted[name])} <= {"W_dec"}
        assert not torch.equal(plain["W_dec"], refitted["W_dec"])
    for row in ("rsae", "control_native"):
        assert after["rows"][row]["l0"] == before["rows"][row]["l0"]
        assert after["rows"][row]["fvu"] < before["rows"][row]["fvu"]
    with pytest.raises(DiedError):
        run(again, tmp_path / "died", dies_at=6)
    run(again, tmp_path / "died", resume=True)
    assert files(tmp_path / "died") == files(tmp_path / "out")
