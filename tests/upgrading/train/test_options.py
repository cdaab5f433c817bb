"""Options of the upgrade that an ablation turns: each does what it says, on a synthetic teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.gates.hard import HardGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata
from rational_sae.sae.sparse import reconstruct
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.prepare import prepare
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.rows import starting_saes
from rational_sae.upgrading.train.candidate import Candidate

pytestmark = pytest.mark.usefixtures("selection")

D_IN, D_SAE, N = 16, 64, 1500


@pytest.fixture
def x() -> Tensor:
    """Sparse combinations of the decoder's directions."""
    rng = torch.Generator().manual_seed(1)
    code = torch.rand(N, D_SAE, generator=rng) * (torch.rand(N, D_SAE, generator=rng) < 0.06)
    return 4 * code @ directions() + 0.1 * torch.randn(N, D_IN, generator=rng)


def directions() -> Tensor:
    return torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(0)), dim=-1)


def candidate(x: Tensor, **options: Any) -> Candidate:
    threshold = torch.linspace(0.6, 1.2, D_SAE)
    W_dec = directions()
    teacher = SAE(W_dec.T, torch.zeros(D_SAE), W_dec, torch.zeros(D_IN), ThresholdGate(threshold))
    settings = Settings(teacher="synthetic", controls=(), type=(3, 2), **options)
    shared = Harvest(None, x, x, None)  # type: ignore[arg-type]
    prepared = prepare(settings, teacher, shared, accept_implausible=True)
    return Candidate(
        "rsae",
        starting_saes(prepared.sae, prepared.hard, settings, prepared.looks)["rsae"],
        settings,
        prepared.x,
        prepared.target_l0,
    )


def gate_of(one: Candidate) -> HardGate:
    assert isinstance(one.sae.gate, HardGate)
    return one.sae.gate


def trained(one: Candidate, steps: int = 4) -> HardGate:
    for number in range(1, steps + 1):
        one.step(one.calibration_x, 1.0, number)
    assert one.skipped == 0
    return gate_of(one)


def test_scales_of_latents_start_in_proportion_to_thresholds_and_part(x: Tensor) -> None:
    one = candidate(x, lr_threshold=1e-2)
    before = gate_of(one)
    ratio = (before.threshold / before.scale).detach()
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
    ratio = (trained(one).threshold / gate_of(one).scale).detach()
    assert float(ratio.max() - ratio.min()) > 1e-3


def test_without_calibration_the_designed_shape_is_kept(x: Tensor) -> None:
    designed, fitted = gate_of(candidate(x, calibrate="none")), gate_of(candidate(x))
    assert not torch.equal(designed.shape, fitted.shape)


def test_a_shape_of_rate_0_is_left_alone(x: Tensor) -> None:
    one = candidate(x, lr_shape=0.0)
    start = gate_of(one).shape.detach().clone()
    assert torch.equal(trained(one, 3).shape.detach(), start)


def test_without_the_controller_the_penalty_keeps_its_first_weight(x: Tensor) -> None:
    one = candidate(x, hold_l0=False, lr=1e-2)
    trained(one, 6)
    assert set(one.curve.sparsity_weight) == {one.controller.start}
    held = candidate(x, lr=1e-2)
    trained(held, 6)
    assert len(set(held.curve.sparsity_weight)) > 1


def test_the_l1_penalty_is_the_norm_weighted_sum_of_codes_per_token_over_the_deviation(x: Tensor) -> None:
    one = candidate(x, penalty="l1")
    found = reconstruct(one.sae, one.calibration_x, sparse=False)
    expected = (one.sae.encode(one.calibration_x) * one.sae.W_dec.norm(dim=-1)).sum(
        -1
    ).mean() / one.objective.variance**0.5
    torch.testing.assert_close(one.objective.penalty(found, N), expected)
    assert not candidate(x).objective.uses_sizes


def test_a_rate_scales_every_learning_rate(x: Tensor) -> None:
    one = candidate(x)
    other = Candidate("rsae", one.sae, one.settings, one.calibration_x, one.target_l0, rate=3.0)
    assert other.optimiser.rates == [3 * rate for rate in one.optimiser.rates]


@pytest.mark.parametrize("family", ["relu", "jumprelu", "topk"])
def test_every_row_is_of_the_family_that_its_gate_is_and_its_files_say(x: Tensor, family: str, tmp_path: Path) -> None:
    gate = {"relu": ReLUGate(), "jumprelu": ThresholdGate(torch.full((D_SAE,), 0.8)), "topk": TopKGate(4)}[family]
    teacher = SAE(
        directions().T, torch.zeros(D_SAE), directions(), torch.zeros(D_IN), gate, metadata=Metadata(family=family)
    )
    settings = Settings(teacher="synthetic", controls=("native", "identity", "jumprelu"), type=(3, 2))
    prepared = prepare(settings, teacher, Harvest(None, x, x, None), accept_implausible=True)  # type: ignore[arg-type]
    rows = starting_saes(prepared.sae, prepared.hard, settings, prepared.looks)
    found = {name: sae.metadata.family for name, sae in rows.items()}
    assert found == {
        "rsae": "rational",
        "identity": "rational",
        "control_native": family,
        "control_jumprelu": "jumprelu",
    }
    for name, sae in rows.items():
        save(sae, tmp_path / name)
        assert load(str(tmp_path / name)).metadata.family == found[name]


def test_no_decoder_is_fitted_again_under_a_smooth_gate() -> None:
    with pytest.raises(ValueError, match="exact zeros"):
        Settings(teacher="synthetic", gate="smooth", refit_decoder=True)


@pytest.mark.parametrize("control", [False, True], ids=["rsae", "identity"])
def test_a_kept_step_is_positive_on_its_support_wherever_the_l0_moved_its_thresholds(x: Tensor, control: bool) -> None:
    one = candidate(x)
    one.target_l0 = 0.9 * D_SAE  # out of reach for thresholds above 0
    if control:
        one.sae.gate = gate_of(one).with_line()
    one.validate(one.calibration_x, 0)
    assert gate_of_sae(one.finish()).lowest_on_support()[1] > 0


def gate_of_sae(sae: SAE) -> HardGate:
    assert isinstance(sae.gate, HardGate)
    return sae.gate
