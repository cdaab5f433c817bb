"""Gates: supports, exact zeros, gradients, units and dtypes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from rational_sae.errors import TrainingError
from rational_sae.gates.base import Gate
from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.rational_topk import RationalTopKGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.smooth import SmoothGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.gates.transition import PROFILE_POINTS, Transition, rational_transition, rectangle
from rational_sae.rational import PartialFractions, cached_fit, target

D = 24


def shape(theta: float = 0.08, gap: float = 0.02) -> PartialFractions:
    fit = cached_fit(target("jumprelu", threshold=theta, gap=gap), (9, 8))
    assert fit.partial_fractions is not None
    return fit.partial_fractions


@pytest.fixture
def h() -> Tensor:
    return torch.randn(64, D, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture
def scale() -> Tensor:
    return torch.linspace(5.0, 15.0, D)


def hard(scale: Tensor) -> RationalGate:
    return HardGate(shape(), scale, 0.1 * scale, transition=rectangle(0.05 * scale))


def test_hard_gate_is_exactly_zero_off_the_support_and_near_the_pre_activation_on_it(h: Tensor, scale: Tensor) -> None:
    z, l0 = hard(scale)(h)
    on = h > 0.1 * scale
    assert torch.equal(z != 0, on)
    assert (z[on] > 0).all()
    assert ((z - h)[on].abs() / scale.expand_as(h)[on]).max() < 5e-4
    assert float(l0.detach()) == pytest.approx(float(on.sum() / len(h)))


def test_a_change_of_shape_never_changes_the_support(h: Tensor, scale: Tensor) -> None:
    gate = hard(scale)
    before = gate(h)[0] != 0
    with torch.no_grad():
        gate.shape[:3] -= 0.3  # r is now negative in places
        gate.log_scale += 0.1
        gate.log_gain += 0.5
    after = gate(h)[0]
    assert torch.equal(after != 0, before)
    assert (after >= 0).all()


def test_active_entries_have_exact_gradients(scale: Tensor) -> None:
    gate = hard(scale)
    gate.transition = Transition(torch.zeros(PROFILE_POINTS), 0.05 * scale, to_input=True)
    h = (0.1 + 0.5 * torch.rand(4, D, generator=torch.Generator().manual_seed(1))) * scale + 0.01
    weights = torch.randn(4, D, generator=torch.Generator().manual_seed(2))

    def loss(h: Tensor, shape: Tensor, log_scale: Tensor) -> Tensor:
        s = log_scale.exp()
        e0, e1, _ = shape[:3]
        alpha, beta, x, eta = shape[3:].view(4, -1, 1, 1)
        d, y = h / s - x, eta.exp()
        return (weights * s * (e0 + e1 * h / s + ((alpha * d + beta * y) / (d * d + y * y)).sum(0))).sum()

    plain = [v.detach().double().requires_grad_() for v in (h, gate.shape, gate.log_scale)]
    loss(*plain).backward()
    ours = h.clone().requires_grad_()
    (weights * gate(ours)[0]).sum().backward()
    for got, wanted in zip((ours.grad, gate.shape.grad, gate.log_scale.grad), plain, strict=True):
        assert got is not None
        assert wanted.grad is not None
        assert torch.allclose(got.double(), wanted.grad, rtol=2e-3, atol=2e-4 * float(wanted.grad.abs().max()))


def test_entries_outside_the_band_and_the_support_pass_no_gradient(h: Tensor, scale: Tensor) -> None:
    gate = hard(scale)
    gate.transition = Transition(gate.transition.profile, gate.transition.half_width, to_input=True)
    h.requires_grad_()
    z, l0 = gate(h)
    (z.sum() + l0).backward()
    assert h.grad is not None
    far = h.detach() < 0.1 * scale - 0.05 * scale
    assert (h.grad[far] == 0).all()
    assert (h.grad[~far] != 0).any()


def test_l0_moves_thresholds_up_and_never_the_shape(h: Tensor, scale: Tensor) -> None:
    gate = hard(scale)
    gate(h)[1].backward()
    assert gate.threshold.grad is not None
    assert (gate.threshold.grad <= 0).all()
    assert (gate.threshold.grad < 0).any()
    assert gate.shape.grad is None or not gate.shape.grad.any()
    assert gate.log_scale.grad is None or not gate.log_scale.grad.any()


def test_the_threshold_gradient_of_l0_estimates_its_finite_difference() -> None:
    h = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(3))
    gate = ThresholdGate(torch.tensor([0.8]), rectangle(torch.tensor([0.1])))
    gate(h)[1].backward()
    difference = ((h > 0.9).float().mean() - (h > 0.7).float().mean()) / 0.2
    assert gate.threshold.grad is not None
    assert float(gate.threshold.grad) == pytest.approx(float(difference), rel=0.02)


def test_the_rational_transition_is_a_kernel_of_unit_area_that_is_never_negative() -> None:
    transition = rational_transition(shape(0.1, 0.02), 0.1, 0.02, torch.ones(1))
    v = torch.linspace(-1, 1, 20_001)
    k = transition.kernel(v, torch.zeros_like(v), torch.zeros(len(v), dtype=torch.int64))
    assert (k >= 0).all()
    assert float(torch.trapezoid(k, v)) == pytest.approx(1, abs=1e-3)
    outside = torch.tensor([-1.01, 1.01])
    assert not transition.kernel(outside, torch.zeros(2), torch.zeros(2, dtype=torch.int64)).any()


def test_threshold_gate_copies_the_pre_activation_exactly_however_small() -> None:
    h = torch.tensor([[1e-6, -1e-6, 5e-5, 3.0]])
    z, _ = ThresholdGate(torch.zeros(4))(h)
    assert z.tolist() == [[pytest.approx(1e-6), 0.0, pytest.approx(5e-5), 3.0]]


def test_topk_mode_keeps_the_k_largest_positive(h: Tensor, scale: Tensor) -> None:
    fit = cached_fit(target("relu"), (9, 8)).partial_fractions
    assert fit is not None
    gate = RationalTopKGate(fit, scale, torch.zeros(D), k=3)
    z, l0 = gate(h)
    wanted, _ = TopKGate(3)(h)
    assert torch.equal(z != 0, wanted != 0)
    assert float(l0) <= 3
    assert (z - wanted).abs().max() < 1e-3 * float(scale.max())


def test_smooth_gate_is_dense_and_counts_l0_with_epsilon(h: Tensor, scale: Tensor) -> None:
    z, l0 = SmoothGate(shape(), scale, 0.1 * scale)(h)
    assert (z != 0).float().mean() > 0.99
    assert 0 < float(l0) < D / 2


@pytest.mark.parametrize("kind", ["relu", "threshold", "hard"])
def test_shifting_thresholds_moves_margins_by_the_amount(kind: str, h: Tensor, scale: Tensor) -> None:
    gates: dict[str, Gate] = {"relu": ReLUGate(), "threshold": ThresholdGate(0.1 * scale), "hard": hard(scale)}
    gate = gates[kind]
    support = gate.margin(h) > 0.25
    assert torch.equal(gate.margin(h) > 0, gate(h)[0] != 0)
    gate.shift_(0.25)
    assert torch.equal(gate(h)[0] != 0, support)


def test_rescaling_latents_is_exact(h: Tensor, scale: Tensor) -> None:
    factor = torch.linspace(0.1, 10, D)
    gate = hard(scale)
    other = copy.deepcopy(gate)
    other.rescale_(factor)
    assert torch.allclose(other(h * factor)[0], gate(h)[0] * factor, rtol=2e-5, atol=1e-5)


def test_moving_to_bfloat16_changes_no_number(scale: Tensor) -> None:
    gate = hard(scale / 3)
    before = copy.deepcopy(gate.state_dict())
    gate.to(torch.bfloat16)
    assert all(torch.equal(value, before[name]) for name, value in gate.state_dict().items())
    assert gate(torch.randn(2, D).bfloat16())[0].dtype == torch.float32


def test_projection_makes_r_positive_on_the_support_and_leaves_a_safe_shape_alone(scale: Tensor) -> None:
    gate = hard(scale)
    before = gate.shape.detach().clone()
    gate.project_()
    assert torch.equal(gate.shape.detach(), before)
    with torch.no_grad():
        gate.shape[0] -= 0.3
        gate.shape[2] = -1.0
    assert gate.lowest_on_support()[1] < 0
    gate.project_(1 << 14)
    assert 0 < gate.lowest_on_support()[1] < 1e-3
    assert gate.right_slope == 0


@pytest.mark.parametrize("place", [0.05, 0.01, -0.2])
def test_a_latent_that_strays_left_of_the_jump_moves_alone(place: float) -> None:
    places, scale = torch.full((D,), 0.1), torch.linspace(0.5, 2.0, D)
    places[3] = place
    gate = HardGate(shape(), scale, places * scale)
    before = copy.deepcopy(gate)
    gate.project_(1 << 14)
    others = torch.arange(D) != 3
    assert torch.equal(gate.shape, before.shape)
    assert torch.equal(gate.threshold[others], before.threshold[others])
    assert torch.equal(gate.log_scale, before.log_scale)
    assert gate.lowest_on_support()[1] > 0
    assert float((gate.threshold / gate.scale)[3].detach()) > 0.07


@pytest.mark.parametrize("places", [(-0.05, -0.05), (-0.05, 0.2)], ids=["all", "some"])
def test_under_a_shape_that_is_not_trained_thresholds_move_alone(places: tuple[float, float]) -> None:
    scale = torch.linspace(0.5, 2.0, D)
    gate = HardGate(shape(), scale, torch.linspace(*places, D) * scale).with_line()
    before = copy.deepcopy(gate)
    assert gate.lowest_on_support()[1] < 0
    gate.project_()
    assert torch.equal(gate.shape, before.shape)
    assert gate.lowest_on_support()[1] > 0
    moved = gate.threshold / gate.scale - before.threshold / before.scale
    assert bool((moved >= 0).all())
    assert float((gate.threshold / gate.scale).min().detach()) < 0.01
    safe = before.threshold > 0.01 * scale
    assert torch.equal(gate.threshold[safe], before.threshold[safe])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_thresholds_that_a_wild_rate_threw_out_of_range_are_left_to_the_check_of_the_next_loss(value: float) -> None:
    gate = hard(torch.linspace(0.5, 2.0, D))
    with torch.no_grad():
        gate.threshold[3] = value
    gate.project_()
    with pytest.raises(TrainingError):
        gate.check_safe()


def test_poles_stay_off_the_real_line(scale: Tensor) -> None:
    gate = hard(scale)
    with torch.no_grad():
        gate.shape[-4:] = -20
    gate.project_()
    assert float(gate.partial_fractions.y.min()) == pytest.approx(2.4788e-3, rel=1e-3)
