"""Which latents are flagged: those that turned away from the teacher, by either of their two directions."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.evaluation.logits import kept_tokens
from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE, Metadata
from rational_sae.upgrading.labels import KEPT_TOKENS, STALE_COSINE, label_flags, promoted, turned

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


def test_a_latent_that_promotes_other_tokens_is_listed_apart_though_it_has_hardly_turned() -> None:
    kept = torch.ones(D_SAE)
    kept[1] = KEPT_TOKENS - 0.1
    labels = label_flags(student(), teacher(), kept)
    assert labels["stale"] == [2, 3, 5]
    assert labels["other_tokens"] == [1]
    assert str(KEPT_TOKENS) in labels["rule_tokens"]


def test_tokens_are_looked_up_where_they_can_be_and_where_it_is_cheap(
    tiny_hosts: dict[str, Host], tiny_text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tiny_hosts["llama"]
    W = torch.randn(host.d_model, 7, generator=torch.Generator().manual_seed(0))
    sae = SAE(W, torch.zeros(7), W.T, torch.zeros(host.d_model), ReLUGate())
    reader = Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, 16))
    found = promoted(reader, sae)
    assert found is not None
    assert kept_tokens(found, found).tolist() == [1.0] * 7
    read_only = Reader(host, host.hook("blocks.1.ln2.hook_normalized"), tiny_text, Tokeniser(host.tokenizer, 16))
    assert promoted(read_only, sae) is None
    monkeypatch.setattr("rational_sae.upgrading.labels.MOST_PRODUCTS", 1000)
    assert promoted(reader, sae) is None
