"""A new gate is one class and one line in the registry: everything else takes it as it is."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from tiny import save_tiny_teacher, save_tiny_text
from torch import Tensor

from rational_sae.check.formula import formula
from rational_sae.data.reading import Reading
from rational_sae.errors import SettingsError
from rational_sae.evaluation import evaluate
from rational_sae.formats import load
from rational_sae.gates.hard import HardGate
from rational_sae.gates.registry import TRAINED
from rational_sae.report import read_report
from rational_sae.upgrading.job import run
from rational_sae.upgrading.run.write import write
from rational_sae.upgrading.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens

    import rational_sae.saelens  # noqa: F401  # SAELens learns the architecture


class HalfGate(HardGate):
    """Codes at half their size."""

    mode = "half"

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        code, l0 = super().codes(value, latent, tokens)
        return code / 2, l0

    def formula(self) -> str:
        return super().formula().replace("c·", "½·c·")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINED, "half", HalfGate)


@pytest.mark.usefixtures("registered")
def test_a_gate_that_is_registered_upgrades_is_saved_loads_in_saelens_and_is_measured(
    tmp_path: Path, tiny_folders: dict[str, Path]
) -> None:
    text = save_tiny_text(tmp_path / "text.jsonl")
    teacher = save_tiny_teacher(tmp_path / "teacher", tiny_folders["llama"], text)
    settings = Settings(
        teacher=str(teacher), text=str(text), gate="half", type=(3, 2), steps=20, batch_tokens=128, eval_tokens=512
    )
    done = run(settings, accept_implausible=True)
    assert isinstance(done.saes["rsae"].gate, HalfGate)
    write(done, tmp_path / "out")
    assert read_report(tmp_path / "out")["settings"]["gate"] == "half"

    folder = tmp_path / "out" / "sae"
    ours, theirs = load(str(folder)), sae_lens.SAE.load_from_disk(folder)
    assert isinstance(ours.gate, HalfGate)
    assert "½" in formula(ours)[1]
    x = done.calibration_x[:64]
    with torch.no_grad():
        assert torch.allclose(ours.encode(x), theirs.encode(x), rtol=1e-5, atol=1e-6)
        assert torch.equal(ours.encode(x), done.saes["rsae"].encode(x))

    found = evaluate([str(folder), str(teacher)], Reading(text=str(text)), eval_tokens=512)
    assert set(found.rows) == {str(folder), str(teacher)}
    assert 0 < found.rows[str(folder)]["l0"] < ours.d_sae


def test_an_unknown_gate_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'hard', 'smooth' or 'topk'"):
        Settings(teacher="t", gate="half")


def test_a_quota_that_the_teacher_does_not_have_is_refused(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    text = save_tiny_text(tmp_path / "text.jsonl")
    teacher = save_tiny_teacher(tmp_path / "teacher", tiny_folders["llama"], text, family="jumprelu")
    settings = Settings(teacher=str(teacher), text=str(text), gate="topk", steps=4, batch_tokens=128, eval_tokens=512)
    with pytest.raises(SettingsError, match="quota"):
        run(settings, accept_implausible=True)
