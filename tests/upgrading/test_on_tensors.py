"""The stages of an upgrade on tensors alone, where the directions that made x are known."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rational_sae
from rational_sae.errors import SettingsError, SourceError
from rational_sae.gates.base import Gate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE
from rational_sae.upgrading.on_tensors import calibrate, finetune, measure

D_IN, D_SAE = 24, 48
FAMILIES = ("relu", "jumprelu", "topk")


def directions() -> Tensor:
    """[D_SAE, D_IN]: an orthonormal basis, both ways."""
    basis = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(0)))[0]
    return torch.cat([basis, -basis])


def vectors(n: int = 4096, seed: int = 1) -> Tensor:
    """[n, D_IN]: some three directions a vector, and noise."""
    rng = torch.Generator().manual_seed(seed)
    active = torch.rand(n, D_SAE, generator=rng) < 3 / D_SAE
    amount = 1 + torch.rand(n, D_SAE, generator=rng)
    return 3 * ((active * amount) @ directions() + 0.1 * torch.randn(n, D_IN, generator=rng))


def teacher(family: str, **options: Any) -> SAE:
    """It knows the directions roughly, so that there is something to learn."""
    gates: dict[str, Gate] = {
        "relu": ReLUGate(),
        "jumprelu": ThresholdGate(torch.full((D_SAE,), 2.0)),
        "topk": TopKGate(4),
    }
    b_enc = torch.full((D_SAE,), -2.0 if family == "relu" else 0.0)
    rough = directions() + 0.1 * torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(4))
    return SAE(rough.T, b_enc, rough, torch.zeros(D_IN), gates[family], **options)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_calibrated_gate_behaves_like_the_teachers(family: str) -> None:
    old, x = teacher(family), vectors()
    kept = copy.deepcopy(old.state_dict())
    found = calibrate(old, x)
    assert found.sae.gate.family == "rational"
    assert found.fit.status == "optimal"
    assert found.after <= found.before < 0.02
    assert all(torch.equal(value, kept[name]) for name, value in old.state_dict().items())
    was, now = measure(old, x), measure(found.sae, x)
    assert now.l0 == pytest.approx(was.l0, rel=0.01)
    if family != "topk":  # whose rule is replaced by thresholds
        assert (found.sae.encode(x) - old.encode(x)).norm() < 0.02 * old.encode(x).norm()
        assert now.fvu == pytest.approx(was.fvu, rel=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_explains_more_at_the_same_l0_and_what_it_gives_is_saved(family: str, tmp_path: Path) -> None:
    old, x, test = teacher(family), vectors(), vectors(seed=2)
    start = calibrate(old, x).sae
    before = copy.deepcopy(start.state_dict())
    told: list[int] = []
    done = finetune(start, x, steps=24, batch_tokens=256, l0=measure(old, x).l0, progress=told.append)
    assert told == list(range(1, 25))
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert (done.steps[0], done.steps[-1]) == (0, 24)
    assert done.kept_step == done.steps[done.fvu.index(min(done.fvu))] > 0
    l0 = measure(old, test).l0
    now = measure(done.sae, test, l0=l0)
    assert now.l0 == pytest.approx(l0, rel=1e-3)
    assert now.fvu < measure(start, test, l0=l0).fvu
    done.sae.save_pretrained(tmp_path / "sae")
    assert rational_sae.load(tmp_path / "sae").d_sae == D_SAE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_control_is_trained_with_its_own_gate_to_the_same_bits_each_time(family: str) -> None:
    x = vectors(1024).bfloat16()
    one, two = (finetune(teacher(family), x, steps=8, batch_tokens=256) for _ in range(2))
    assert one.sae.gate.family == family
    assert one.fvu == two.fvu
    assert all(torch.equal(value, two.sae.state_dict()[name]) for name, value in one.sae.state_dict().items())
    other = finetune(teacher(family), x, steps=8, batch_tokens=256, seed=1)
    assert other.fvu != one.fvu


def test_validation_may_be_given_and_a_normalised_sae_is_trained() -> None:
    old, x = teacher("relu", normalisation="layer_norm"), vectors(1024)
    with torch.no_grad():
        old.b_enc.fill_(-0.5)
    done = finetune(calibrate(old, x).sae, x, validation=vectors(512, seed=3), steps=8, batch_tokens=2048)
    assert done.sae.normalisation == "layer_norm"
    assert min(done.fvu) <= done.fvu[0]


def test_what_cannot_be_used_is_refused_in_one_line() -> None:
    old, x = teacher("relu"), vectors(256)
    for wrong in (x[:, 1:], x[0], x[:1], x[None]):
        with pytest.raises(SettingsError, match=r"this SAE reads at least .* vectors of 24; give x: \[n, d_in\]"):
            calibrate(old, wrong)
    with pytest.raises(SettingsError, match="NaN"):
        measure(old, torch.full_like(x, torch.nan))
    with pytest.raises(SettingsError, match="cannot be trained"):
        calibrate(old, x, degrees=(4, 4))
    with pytest.raises(SettingsError, match="steps"):
        finetune(old, x, steps=0)
    with pytest.raises(SourceError, match="rational already"):
        calibrate(calibrate(old, x).sae, x)


def test_they_are_at_the_root() -> None:
    assert (rational_sae.calibrate, rational_sae.finetune, rational_sae.measure) == (calibrate, finetune, measure)
