"""Predictions compared a few at a time: the same figures as on whole tensors."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rational_sae.evaluation import behaviour
from rational_sae.evaluation.behaviour import Predictions
from rational_sae.metrics import prediction_columns


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_cross_entropy_and_kl_equal_those_of_whole_tensors(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviour, "AT_ONCE", at_once)
    rng = torch.Generator().manual_seed(0)
    clean, other = (4 * torch.randn(3, 9, 50, generator=rng) for _ in range(2))
    where = torch.rand(3, 9, generator=rng) < 0.7
    labels = torch.randint(50, (int(where.sum()),), generator=rng)
    predictions = Predictions.of(clean, where.flatten().nonzero()[:, 0], labels)
    found = predictions.compared(other, prediction_columns())
    log_p, log_q = clean[where].log_softmax(-1), other[where].log_softmax(-1)
    assert torch.allclose(predictions.cross_entropy(), functional.cross_entropy(clean[where], labels, reduction="none"))
    assert torch.allclose(found["ce"], functional.cross_entropy(other[where], labels, reduction="none"))
    kl = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(found["kl"], kl, atol=1e-6)
    assert torch.equal(found["agreed"].bool(), log_p.argmax(-1) == log_q.argmax(-1))


def test_no_position_at_all() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    predictions = Predictions.of(torch.zeros(1, 4, 5), none, none)
    assert predictions.log_p.shape == (0, 5)
    assert len(predictions.compared(torch.zeros(1, 4, 5), prediction_columns())["kl"]) == 0
