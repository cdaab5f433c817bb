"""The rational function's value, slope and coefficient sums, against float64 formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rational_sae.gates.rational import pack
from rational_sae.kernels import LINEAR, apply_rational, rational_value, value_slope_sums
from rational_sae.rational import PartialFractions, cached_fit, target


def value_and_slope(t: torch.Tensor, shape: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return value_slope_sums(t, torch.zeros_like(t), shape)[:2]


@pytest.fixture(scope="module")
def jump() -> PartialFractions:
    fit = cached_fit(target("jumprelu", threshold=0.1, gap=0.02), (9, 8))
    assert fit.partial_fractions is not None
    return fit.partial_fractions


def test_value_and_slope_equal_the_float64_formula_inside_the_domain(jump: PartialFractions) -> None:
    t = np.linspace(-1, 1, 4001)
    value, slope = value_and_slope(torch.from_numpy(t).float(), pack(jump, 1.0))
    assert np.abs(value.numpy() - jump(t)).max() < 2e-6
    assert np.abs(slope.numpy()[1:-1] - jump.derivative(t)[1:-1]).max() < 1e-4 * np.abs(jump.derivative(t)).max()


def test_left_of_the_domain_is_constant_and_right_of_it_a_straight_line(jump: PartialFractions) -> None:
    value, slope = value_and_slope(torch.tensor([-1e30, -2.0, 2.0, 5.0]), pack(jump, 0.75))
    assert value[:2].tolist() == pytest.approx([float(jump(-1.0))] * 2, abs=1e-6)
    assert value[2:].tolist() == pytest.approx([float(jump(1.0)) + 0.75, float(jump(1.0)) + 3.0], abs=1e-5)
    assert slope.tolist() == pytest.approx([0, 0, 0.75, 0.75])


def test_nan_stays_nan(jump: PartialFractions) -> None:
    assert rational_value(torch.tensor([float("nan")]), pack(jump, 1.0)).isnan().all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), poles=st.integers(1, 6))
def test_gradients_equal_finite_differences(seed: int, poles: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    shape = torch.rand(LINEAR + 4 * poles, generator=rng, dtype=torch.float64) - 0.5
    t = torch.rand(7, generator=rng, dtype=torch.float64) * 3 - 1.5
    t = t[((t.abs() - 1).abs() > 1e-3)].requires_grad_()
    assert torch.autograd.gradcheck(apply_rational, (t, shape.requires_grad_(), "reference"))


def test_coefficient_sums_do_not_depend_on_how_the_points_are_split(
    jump: PartialFractions, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = torch.Generator().manual_seed(0)
    t = torch.rand(10_000, generator=rng) * 2 - 1
    g = torch.randn(10_000, generator=rng)
    whole = value_slope_sums(t, g, pack(jump, 1.0))[2]
    monkeypatch.setattr("rational_sae.kernels.reference.CHUNK", 333)
    assert torch.allclose(value_slope_sums(t, g, pack(jump, 1.0))[2], whole, rtol=1e-6)
