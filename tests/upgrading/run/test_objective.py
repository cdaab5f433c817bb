"""A job whose last steps minimise the KL of predictions, too: its figures, its resumption, its refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dying import DiedError, run
from pydantic import ValidationError
from tiny import tiny_job

from rational_sae.formats import load
from rational_sae.report import read_report, render
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run.summary import report_of
from rational_sae.upgrading.settings import Settings

ROWS = {"rsae", "control_native", "identity", "teacher_adapted"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Settings:
    plain = tiny_job(tmp_path_factory.mktemp("objective"), tiny_folders["llama"])
    return Settings(**{**plain.model_dump(exclude={"controls"}), "objective": "mse+kl", "kl_share": 0.5})


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


def test_every_row_is_trained_on_it_and_what_was_read_is_counted(whole: Path) -> None:
    report = read_report(whole)
    assert set(report["curves"]["validation"]) == ROWS
    for name in ROWS:
        train, validation = report["curves"]["train"][name], report["curves"]["validation"][name]
        assert [value is None for value in train["kl"]] == [True] * 6 + [False] * 6
        assert all(value > 0 for value in train["kl"][6:] + validation["kl"])
        scores = [fvu * kl for fvu, kl in zip(validation["fvu"], validation["kl"], strict=True)]
        assert validation["kept_step"] == validation["step"][scores.index(min(scores))]
    data = report["data"]
    assert 0 < data["kl_tokens"] < 6 * 64
    assert data["train_tokens_used"] == 6 * 64 + data["kl_tokens"]
    assert data["train_tokens_distinct"] <= 600
    assert len(data["sha256"]["train sequences of KL steps"]) == 64
    assert "KL of predictions" in render(report)
    assert "teacher_adapted" in report["rows"]
    assert load(str(whole / "teacher-adapted")).gate.family == "topk"
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines if "kl" in line} == set(range(7, 13))


@pytest.mark.parametrize("dies_at", [6, 9])
def test_it_goes_on_to_the_same_bits_from_either_kind_of_step(
    settings: Settings, whole: Path, tmp_path: Path, dies_at: int
) -> None:
    with pytest.raises(DiedError):
        run(settings, tmp_path / "out", dies_at=dies_at)
    report = run(settings, tmp_path / "out", resume=True)
    assert files(tmp_path / "out") == files(whole)
    first = read_report(whole)
    for key in ("rows", "curves", "data"):
        assert report[key] == first[key]


def longer(settings: Settings, **changes: Any) -> Settings:
    return Settings(**{**settings.model_dump(), "steps": 60, "train_tokens": 4000, "probes": (), **changes})


def test_predictions_come_closer_than_by_the_error_alone(settings: Settings) -> None:
    both, plain = (
        upgrade(longer(settings, objective=kind, lr=2e-3, controls=("native",))) for kind in ("mse+kl", "mse")
    )
    for row in ("rsae", "control_native"):
        assert both.rows[row]["kl"] < plain.rows[row]["kl"]
    assert "kl" not in report_of(plain)["curves"]["train"]["rsae"]
    assert "kl_tokens" not in report_of(plain)["data"]


def test_more_looks_are_trained_on_it_too(settings: Settings) -> None:
    done = upgrade(longer(settings, steps=8, looks=2, controls=("identity",)))
    assert done.sae.looks is not None
    assert not any(one.skipped for one in done.candidates.values())
    assert all(kl is not None for kl in done.candidates["rsae"].curve.kl[-4:])


def test_what_cannot_be_is_refused(settings: Settings) -> None:
    with pytest.raises(ValidationError, match="2 steps or more"):
        longer(settings, steps=1)
    for share in (0.0, 1.0):
        with pytest.raises(ValidationError):
            longer(settings, kl_share=share)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        longer(settings, adapter_rank=0)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(settings: Settings, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings.to_store()))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "rational_sae", "upgrade"]
    job = ["--settings", str(tmp_path / "settings.yaml"), "--out", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, *launcher, *job], check=True, env=environment, capture_output=True)
    alone, together = read_report(whole), read_report(tmp_path / "two")
    assert together["data"]["kl_tokens"] == alone["data"]["kl_tokens"]
    assert together["data"]["sha256"] == alone["data"]["sha256"]
    for name in ROWS:
        one, two = (report["curves"]["train"][name] for report in (alone, together))
        assert two["kl"][6:] == pytest.approx(one["kl"][6:], rel=1e-2)
        assert two["mse"] == pytest.approx(one["mse"], rel=1e-3)
        assert together["rows"][name]["kl"] == pytest.approx(alone["rows"][name]["kl"], rel=1e-2)
