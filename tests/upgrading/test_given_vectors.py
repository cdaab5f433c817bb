"""A whole upgrade on vectors alone: the same result as with a language model, but for what needs one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from upgrading.test_on_tensors import D_IN, D_SAE, directions, teacher, vectors

import rational_sae
from rational_sae.cli import app
from rational_sae.data.vectors import Given, GivenVectors
from rational_sae.errors import ImplausibleSAEError, SettingsError
from rational_sae.gates.relu import ReLUGate
from rational_sae.report.schema import check_report
from rational_sae.sae.model import SAE
from rational_sae.upgrading.api import TENSORS, Options
from rational_sae.upgrading.result import Upgrade
from rational_sae.upgrading.settings import Settings

SHORT: Options = {"type": (3, 2), "steps": 12, "batch_tokens": 256, "controls": ("native",)}
MODELS_OWN = {"delta_ce", "kl", "ce_clean", "ce_zero", "loss_recovered", "top1_agreement", "ce_loss_score"}


@pytest.fixture(scope="module")
def done() -> Upgrade:
    return rational_sae.upgrade(teacher("jumprelu"), x=vectors(), **SHORT)


def test_figures_are_those_of_the_held_out_vectors(done: Upgrade) -> None:
    old = teacher("jumprelu")
    split = GivenVectors.of(Given(vectors()), old, done.settings.eval_tokens, done.settings.seed)
    test = split.sample("test", 10**6)
    assert len(test) == 512 == done.report()["data"]["test_tokens"]
    for name, sae in done.saes.items():
        fvu, l0 = rational_sae.measure(sae, test)
        assert done.rows[name]["fvu"] == pytest.approx(fvu, rel=1e-5)
        assert done.rows[name]["l0"] == pytest.approx(l0)
    at_l0 = rational_sae.measure(done.sae, test, l0=done.rows["teacher"]["l0"])
    assert done.rows["rsae"]["fvu_at_l0"] == pytest.approx(at_l0.fvu, rel=1e-3)
    found = done.compare("control_native").fvu_at_l0
    assert found.value == pytest.approx(done.rows["rsae"]["fvu_at_l0"] - done.rows["control_native"]["fvu_at_l0"])
    assert found.low < found.value < found.high
    assert done.compare("teacher").fvu_at_l0.high < 0
    assert done.rows["init"]["fvu"] == pytest.approx(done.rows["teacher"]["fvu"], rel=0.05)


def test_what_needs_a_model_is_absent_and_the_report_says_so(done: Upgrade, tmp_path: Path) -> None:
    assert all(not MODELS_OWN & row.keys() for row in done.rows.values())
    report = done.report()
    check_report(report)
    assert report["data"]["vectors"] == TENSORS
    assert report["verdict"].endswith("ΔCE was not measured.")
    assert "text" not in report["data"]
    assert "features" not in report
    done.save(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in ("There was no language model", "test vectors of", "FVU at equal L0 decides alone"):
        assert words in page
    for words in ("over documents", "test tokens of", "test documents"):
        assert words not in page.partition("<script")[0]
    assert "over groups" in (tmp_path / "out" / "sae" / "README.md").read_text(encoding="utf-8")
    assert torch.equal(rational_sae.load(tmp_path / "out" / "sae").W_enc, done.sae.W_enc)


def test_a_job_goes_on_to_the_same_bits(done: Upgrade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rational_sae.upgrading.run import folder

    class Stopped(KeyboardInterrupt):
        pass

    stepped = folder.JobFolder.stepped

    def stop(self: Any, number: int) -> None:
        stepped(self, number)
        if number == 7:
            raise Stopped

    monkeypatch.setattr(folder.JobFolder, "stepped", stop)
    with pytest.raises(Stopped):
        rational_sae.upgrade(teacher("jumprelu"), x=vectors(), out=tmp_path / "job", **SHORT)
    monkeypatch.undo()
    again = rational_sae.upgrade(teacher("jumprelu"), x=vectors(), out=tmp_path / "job", resume=True, **SHORT)
    assert torch.equal(again.sae.W_enc, done.sae.W_enc)
    assert again.rows == done.rows
    assert again.report()["data"]["sha256"] == done.report()["data"]["sha256"]


def test_a_transcoder_gives_back_y() -> None:
    turn = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(5)))[0][:, :16]
    x = vectors()
    known = directions()
    rough = known @ turn + 0.05 * torch.randn(D_SAE, 16, generator=torch.Generator().manual_seed(6))
    old = SAE(
        known.T, torch.full((D_SAE,), -1.0), rough, torch.zeros(16), ReLUGate(),
        apply_b_dec_to_input=False, transcodes=True,
    )  # fmt: skip
    found = rational_sae.upgrade(old, x=x, y=x @ turn, **SHORT)
    assert found.sae.transcodes
    assert found.sae.W_dec.shape == (D_SAE, 16)
    assert found.compare("teacher").fvu_at_l0.high < 0
    rows = torch.cat([x, x @ turn], 1)
    assert rational_sae.measure(found.sae, rows).fvu == pytest.approx(found.rows["rsae"]["fvu"], rel=0.2)


def test_a_crosscoder_is_an_sae_of_layers_side_by_side() -> None:
    """W_enc: [layers, d, d_sae], W_dec: [d_sae, layers, d]: one code from the sum over layers, each given back."""
    rng = torch.Generator().manual_seed(0)
    W_enc, W_dec = torch.randn(3, 4, 10, generator=rng), torch.randn(10, 3, 4, generator=rng)
    b_enc, b_dec, x = (
        torch.randn(10, generator=rng),
        torch.randn(3, 4, generator=rng),
        torch.randn(7, 3, 4, generator=rng),
    )
    z = (torch.einsum("nld,ldj->nj", x, W_enc) + b_enc).relu()
    x_hat = torch.einsum("nj,jld->nld", z, W_dec) + b_dec
    sae = SAE(W_enc.flatten(0, 1), b_enc, W_dec.flatten(1), b_dec.flatten(), ReLUGate(), apply_b_dec_to_input=False)
    assert torch.allclose(sae.encode(x.flatten(1)), z, atol=1e-5)
    assert torch.allclose(sae(x.flatten(1)).view(7, 3, 4), x_hat, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"text": "other.txt"}, "text is other.txt, and vectors are given"),
        ({"context": 64}, "context is of a language model"),
        ({"probes": ("language",)}, "probes is of a language model"),
        ({"objective": "mse+kl"}, "objective is of a language model"),
        ({"vectors": "x.npy"}, "vectors names a file, and x was given"),
        ({"batch_tokens": 1 << 20}, "lower batch_tokens"),
        ({"x": None, "groups": torch.arange(9)}, "groups was given without x"),
        ({"x": None, "y": torch.ones(9, 9)}, "y was given without x"),
        ({"y": torch.ones(4096, 1)}, "cannot read"),
    ],
)
def test_what_does_not_go_with_vectors_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        rational_sae.upgrade(teacher("relu"), **{"x": vectors(), **SHORT, **options})


def test_vectors_of_another_layer_are_refused() -> None:
    with pytest.raises(ImplausibleSAEError, match="does not explain"):
        rational_sae.upgrade(teacher("jumprelu"), x=50 + torch.rand(1024, D_IN), **SHORT)


def test_the_command_reads_them_from_a_file(tmp_path: Path, done: Upgrade) -> None:
    rational_sae.save(teacher("jumprelu"), tmp_path / "teacher")
    np.save(tmp_path / "x.npy", vectors().numpy())
    given = ["upgrade", str(tmp_path / "teacher"), "--vectors", str(tmp_path / "x.npy"), "--out", str(tmp_path / "out")]
    given += ["--type", "3,2", "--steps", "12", "--batch-tokens", "256", "--control", "native"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "ΔCE was not measured" in " ".join(result.output.split())
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["rows"]["rsae"]["fvu"] == pytest.approx(done.rows["rsae"]["fvu"], rel=1e-3)
    again = CliRunner().invoke(app, [*given, "--resume"])
    assert again.exit_code == 0
    assert "finished before" in again.output
    refused = CliRunner().invoke(app, [*given, "--text", "news", "--overwrite"])
    assert refused.exit_code == 2
    assert "give one of the two" in " ".join(refused.output.split())


def test_stored_settings_can_be_given_again() -> None:
    first = Settings(teacher="t", vectors="x.npy")
    assert Settings.model_validate(first.to_store()) == first
