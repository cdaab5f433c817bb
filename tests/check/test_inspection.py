"""`rsae inspect` as a function: facts of an SAE, and its figures on the activations of a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from random_sae import gate_of_mode
from tiny import TINY_WIDTH, save_tiny_text

from rational_sae.check.formula import formula
from rational_sae.check.inspection import inspect_sae
from rational_sae.check.words import sentences
from rational_sae.data.reading import Reading
from rational_sae.errors import SourceError
from rational_sae.formats.save import save
from rational_sae.gates.topk import TopKGate
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An untrained TopK of the tiny models' width."""
    rows = torch.linalg.qr(torch.randn(TINY_WIDTH, TINY_WIDTH, generator=torch.Generator().manual_seed(0))).Q
    save(SAE(rows.T, torch.zeros(TINY_WIDTH), rows, torch.zeros(TINY_WIDTH), TopKGate(3)), tmp_path / "sae")
    return tmp_path / "sae"


def test_facts_without_a_model(folder: Path) -> None:
    found = inspect_sae(str(folder))
    assert json.loads(json.dumps(found)) == found
    assert (found["family"], found["k"], found["d_in"]) == ("topk", 3, TINY_WIDTH)
    assert found["formula"][0] == "h = W_encᵀ(x − b_dec) + b_enc"
    assert found["scaling"]["decoder_row_norm"]["median"] == pytest.approx(1, abs=1e-5)
    assert "verified" not in found


def test_figures_with_a_model(folder: Path, tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    text = save_tiny_text(tmp_path / "text.jsonl")
    reading = Reading(text=str(text), model=str(tiny_folders["llama"]), hook="model.layers.1", context=64)
    verified = inspect_sae(str(folder), reading)["verified"]
    assert json.loads(json.dumps(verified)) == verified
    assert verified["l0"] <= 3
    assert 0 < verified["fvu"] < 2
    assert verified["tokens"] > 100
    with pytest.raises(SourceError, match="names no model"):
        inspect_sae(str(folder), Reading(text=str(text)))


def test_formulas_of_every_gate_and_normalisation() -> None:
    shape = PartialFractions(0.0, 1.0, alpha=[0.1], beta=[0.1], x=[0.0], eta=[0.0])  # type: ignore[arg-type]
    weights = (torch.ones(2, 3), torch.zeros(3), torch.ones(3, 2), torch.zeros(2))
    for mode, words in (("hard", "where h_j > τ_j"), ("smooth", "nowhere cut"), ("topk", "2 largest")):
        gate = gate_of_mode(mode, shape, torch.ones(3), torch.zeros(3), k=2)  # type: ignore[arg-type]
        lines = formula(SAE(*weights, gate, apply_b_dec_to_input=False, normalisation="layer_norm"))
        assert lines[0] == "h = W_encᵀn(x) + b_enc"
        assert words in lines[1]
        assert "type (3, 2)" in lines[1]
        assert lines[2] == "x̂ = n⁻¹(W_decᵀz + b_dec)"
        assert "1e-05" in lines[3]


def test_facts_are_told_in_words(folder: Path, tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    lines = sentences(inspect_sae(str(folder)))
    assert lines[0] == f"TopK SAE, {TINY_WIDTH} → {TINY_WIDTH} latents"
    assert "k = 3 latents of each token." in lines
    assert not any("{" in line or "None" in line for line in lines)
    text = save_tiny_text(tmp_path / "text.jsonl")
    reading = Reading(text=str(text), model=str(tiny_folders["llama"]), hook="model.layers.1", context=64)
    facts = inspect_sae(str(folder), reading)
    found = facts["verified"] | {"fvu": 0.1734, "l0": 3.0, "tokens": 2048, "likely": None, "warnings": []}
    assert sentences(facts | {"verified": found})[0] == "The formula holds: FVU 0.173, L0 3.0 on 2,048 tokens."
    wrong = found | {"likely": {"formula": "x"}, "warnings": ["the stored formula gives FVU 0.9; likely is x"]}
    assert sentences(facts | {"verified": wrong})[0].startswith("The stored formula looks wrong: FVU 0.173")
    nothing = found | {"warnings": ["FVU 1.2 at L0 3.0"]}
    assert sentences(facts | {"verified": nothing})[0].startswith("The SAE does not explain these activations")
