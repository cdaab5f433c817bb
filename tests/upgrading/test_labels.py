"""Which latents are flagged: those that turned away from the teacher, by either of their two directions."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE, Metadata
from rational_sae.upgrading.labels import STALE_COSINE, label_flags, turned

D_IN, D_SAE = 2, 6


def teacher() -> SAE:
    directions = torch.tensor([[1.0, 0.0]] * D_SAE)
    known = Metadata(extra={"neuronpedia_id": "gpt2-small/8-res-jb"})
    return SAE(directions.T, torch.zeros(D_SAE), directions, torch.zeros(D_IN), ReLUGate(), metadata=known)


def rotated(cosine: float) -> torch.Tensor:
    return torch.tensor([cosine, (1 - cosine**2) ** 0.5])


@torch.no_grad()
def student() -> SAE:
    sae = copy.deepcopy(teacher())
    sae.W_enc[:, 1] = rotated(STALE_COSINE + 0.01)
    sae.W_enc[:, 2] = rotated(STALE_COSINE - 0.01)
    sae.W_dec[3] = rotated(STALE_COSINE - 0.01)
    sae.W_dec[4] *= 7.0  # longer is not turned
    sae.W_dec[5] *= -1.0
    return sae


def test_a_latent_is_flagged_by_either_direction() -> None:
    assert label_flags(student(), teacher())["stale"] == [2, 3, 5]
    assert label_flags(teacher(), teacher())["stale"] == []
    wanted = [1, STALE_COSINE + 0.01, STALE_COSINE - 0.01, STALE_COSINE - 0.01, 1, -1]
    assert turned(student(), teacher()).tolist() == pytest.approx(wanted, abs=1e-6)


def test_flags_and_neuronpedia_id_are_in_the_folder(tmp_path: Path) -> None:
    sae = student()
    sae.metadata.extra["labels"] = label_flags(sae, teacher())
    save(sae, tmp_path / "sae")
    metadata = json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]
    assert metadata["neuronpedia_id"] == "gpt2-small/8-res-jb"
    assert metadata["labels"]["stale"] == [2, 3, 5]
    assert str(STALE_COSINE) in metadata["labels"]["rule"]
    assert load(str(tmp_path / "sae")).cfg.labels == metadata["labels"]
