"""The teacher with a map on its output: codes stay, and the map is in W_dec and b_dec to the last bits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.gates.base import Gate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.adapted import adapted, folded_
from rational_sae.upgrading.train.candidate import Candidate

D_IN, D_SAE = 12, 40
GATES = {
    "relu": ReLUGate,
    "threshold": lambda: ThresholdGate(torch.full((D_SAE,), 0.5)),
    "topk": lambda: TopKGate(6),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def teacher(gate: Gate, *, reads_b_dec: bool = True) -> SAE:
    W_dec = torch.nn.functional.normalize(drawn(D_SAE, D_IN), dim=-1)
    return SAE(W_dec.T, 0.1 * drawn(D_SAE, seed=1), W_dec, drawn(D_IN, seed=2), gate, apply_b_dec_to_input=reads_b_dec)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("rank", [None, 3, 99])
@pytest.mark.parametrize("reads_b_dec", [True, False])
def test_codes_are_the_teachers_and_the_map_is_folded_exactly(gate: str, rank: int | None, reads_b_dec: bool) -> None:
    x = 2 * drawn(500, D_IN, seed=3)
    old = teacher(GATES[gate](), reads_b_dec=reads_b_dec)
    sae = adapted(old, rank, seed=5)
    assert torch.allclose(sae(x), old(x), atol=1e-5), "it starts as the teacher"
    trained = {name: one.numel() for name, one in sae.named_parameters() if one.requires_grad}
    assert sum(trained.values()) == D_IN + (2 * 3 * D_IN if rank == 3 else D_IN**2)
    change = 0.2 * (drawn(D_IN, 3, seed=6) @ drawn(3, D_IN, seed=7))
    with torch.no_grad():
        found: Any = sae.parametrizations["W_dec"][0]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        if rank == 3:
            found.left.copy_(0.2 * drawn(D_IN, 3, seed=6))
            found.right.copy_(drawn(3, D_IN, seed=7))
        else:
            found.change.copy_(change)
        sae.b_dec += 1.0
        mapped = old(x) + (old(x) - old.b_dec) @ change + 1.0
    assert torch.allclose(sae(x), mapped, rtol=1e-6, atol=1e-5)
    seen = sae(x)
    assert torch.equal(folded_(sae)(x), seen)
    assert type(sae) is SAE
    assert [name for name, _ in sae.named_parameters() if "parametrizations" in name] == []
    assert torch.equal(sae.encode(x) != 0, old.encode(x) != 0)
    assert torch.allclose(sae.encode(x), old.encode(x), atol=1e-5)


def test_training_finds_the_map_and_moves_no_code(tmp_path: Path) -> None:
    x = 2 * drawn(4000, D_IN, seed=3)
    old = teacher(ThresholdGate(torch.full((D_SAE,), 0.5)))
    wanted = old(x).detach() @ (torch.eye(D_IN) + 0.1 * drawn(D_IN, D_IN, seed=8)) + 0.5
    settings = Settings(teacher="made", steps=300, lr=5e-3)
    one = Candidate("teacher_adapted", adapted(old, None, 0), settings, wanted, 5.0)
    one.sae.normalise = lambda _x: (x, None)  # type: ignore[method-assign] - it reads x and is to give what is wanted
    before = copy.deepcopy(one.sae.gate.state_dict())
    first = float((one.sae(x) - wanted).detach().pow(2).mean())
    for number in range(1, 301):
        one.step(wanted, 1.0, number)
    assert float((one.sae(x) - wanted).detach().pow(2).mean()) < 0.01 * first
    assert all(torch.equal(value, before[name]) for name, value in one.sae.gate.state_dict().items())
    del one.sae.normalise
    one.validate(x, 300)
    done = one.finish_at_l0(x)
    assert torch.equal(done.encode(x) != 0, old.encode(x) != 0)
    save(done, tmp_path / "out")
    again = load(str(tmp_path / "out"))
    assert again.gate.family == "jumprelu"
    assert torch.allclose(again(x), done(x), atol=1e-5)
