"""A whole (tiny) upgrade: the report's sections on single latents and probes, under a gate that can be compared at
the teacher's L0 and one that cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_WORDS

from rational_sae.formats.save import save
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.report.decision import verdict_of
from rational_sae.report.schema import ENCODE, check_report
from rational_sae.sae.model import SAE, Metadata
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run.summary import report_of
from rational_sae.upgrading.settings import Settings

D, D_SAE = 32, 128


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def settings(tiny_folders: dict[str, Path], tmp_path: Path) -> Settings:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(len(TINY_WORDS), (500, 30), generator=generator).tolist()
    text, task = tmp_path / "text.jsonl", tmp_path / "task.jsonl"
    text.write_text(lines([{"text": " ".join(TINY_WORDS[i] for i in row)} for row in words]))
    half = torch.randint(30, (240, 8), generator=generator).tolist()
    # Words of the tiny vocabulary differ in digits alone, which do not make texts distinct: an unknown word does.
    names = [chr(97 + n % 26) + chr(97 + n // 26) for n in range(len(half))]
    labelled = [
        {"text": " ".join([TINY_WORDS[i + 30 * (n % 2)] for i in row] + [names[n]]), "label": n % 2}
        for n, row in enumerate(half)
    ]
    task.write_text(lines(labelled))
    W = torch.randn(D, D_SAE, generator=generator) / D**0.5
    metadata = Metadata(hook_name="model.layers.1", context_size=20, model_name=str(tiny_folders["llama"]))
    gate = ThresholdGate(torch.full((D_SAE,), 0.5))
    save(SAE(W, torch.zeros(D_SAE), W.T / 2, torch.zeros(D), gate, metadata=metadata), tmp_path / "teacher")
    return Settings(
        teacher=str(tmp_path / "teacher"),
        text=str(text),
        type=(3, 2),
        controls=("identity",),
        steps=5,
        batch_tokens=128,
        eval_tokens=300,
        probes=(str(task),),
        probe_train=160,
    )


def test_the_report_tells_of_single_latents_and_of_probes(settings: Settings) -> None:
    report = check_report(report_of(upgrade(settings, accept_implausible=True)))
    found = report["features"]
    assert found["rows"] == ["teacher", "rsae"]
    assert 0.9 < found["summary"]["median_cos_decoder"] < 1, "five steps move latents, but not far"
    for latent in found["latents"]:
        assert set(latent["examples"]) == set(latent["density"]) == {"teacher", "rsae"}
        assert latent["change"] == pytest.approx(1 - latent["cos_decoder"], abs=1e-5)
        assert bool(latent["density"]["rsae"]) == bool(latent["examples"]["rsae"])
    (task,) = report["probing"]["tasks"].values()
    assert set(task["rows"]) == {"activations", "teacher", "rsae", "identity"}
    for name in ("teacher", "rsae", "identity"):
        assert report["rows"][name]["probe_k5"] == pytest.approx(task["rows"][name]["probe_k5"]["value"])
    assert "probe_k1" in report["differences"]["rsae - identity"]
    assert "probe_k1" not in report["rows"]["init"]
    assert report["verdict"] == verdict_of(report)
    assert (
        " than the teacher" in report["verdict"]
        or " from the teacher" in report["verdict"]
        or "Too" in report["verdict"]
    )
    assert set(report["timing"]) >= {ENCODE + "teacher", ENCODE + "rsae"}


def test_the_report_says_that_a_single_file_was_read_in_blocks(settings: Settings, tmp_path: Path) -> None:
    rows = [json.loads(line)["text"] for line in Path(settings.text).read_text().splitlines()]
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(rows))
    report = report_of(upgrade(settings.model_copy(update={"text": str(book), "probes": ()}), accept_implausible=True))
    (warning,) = [one for one in report["warnings"] if "blocks of neighbouring paragraphs" in one]
    assert warning.startswith(f"{book} is one file")


def test_a_smooth_gate_is_compared_at_the_teachers_l0_by_as_many_of_its_codes(settings: Settings) -> None:
    smooth = settings.model_copy(update={"gate": "smooth", "controls": (), "probes": ()})
    done = upgrade(smooth, accept_implausible=True)
    report = report_of(done)
    row = report["rows"]["rsae"]
    assert row["l0"] == done.saes["rsae"].d_sae, "nothing of the finished gate is cut"
    at_l0, teacher = done.sums.at_l0["rsae"], done.sums.rows["teacher"]
    assert float(at_l0.columns["l0"].sum()) == pytest.approx(float(teacher.columns["l0"].sum()), rel=1e-3)
    assert row["fvu_at_l0"] > row["fvu"]
    assert any("as many codes" in warning for warning in report["warnings"])
    assert "probing" not in report


def test_a_job_whose_rates_are_too_high_says_which_rows_are_untrained(settings: Settings) -> None:
    wild = settings.model_copy(update={"lr": 5.0, "probes": (), "controls": ("native",), "pilot": False})
    done = upgrade(wild, accept_implausible=True)
    assert done.untrained == {name for name, one in done.candidates.items() if one.kept_step == 0} >= {"control_native"}
    assert "comparison with the untrained teacher" in report_of(done)["verdict"]
