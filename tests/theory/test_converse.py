"""Constructions for the converse: errors as promised, counts that meet the bounds, exponents as known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rational_sae.theory import converse
from rational_sae.theory.converse import Layer, exponent, f, relu_layer, topk_layer, tube_spline

X = np.linspace(-1, 1, 100_001)


@pytest.mark.parametrize("epsilon", [1e-2, 1e-3, 1e-4])
def test_the_relu_layer_is_within_epsilon_everywhere(epsilon: float) -> None:
    found, active = relu_layer(epsilon)(X)
    assert 0.9 * epsilon < float(np.max(np.abs(found - f(X)))) <= epsilon
    assert active.max() < len(relu_layer(epsilon).w)


def test_the_spline_of_a_parabola_has_the_known_number_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best line errs by length²/8 on x²: 1 / √(2ε) pieces of [−1, 1]."""
    monkeypatch.setattr(converse, "f", lambda x, eta=0.0: x * x)
    epsilon = 1e-4
    knots, _ = tube_spline(epsilon)
    pieces = math.ceil(2 / math.sqrt(8 * converse.SLACK * epsilon))
    assert len(knots) - 1 == pieces
    np.testing.assert_allclose(np.diff(knots)[1:-1], math.sqrt(8 * converse.SLACK * epsilon), rtol=2e-3)


def test_the_fewest_pieces_are_those_of_the_curvature_integral() -> None:
    """For small ε: ∫ √|f″| dx / (4 √ε)."""
    x = np.linspace(-1, 1, 1_000_001)
    curvature = np.abs(np.gradient(np.gradient(f(x), x), x))
    epsilon = 1e-5
    predicted = float(np.sqrt(curvature).sum() * (x[1] - x[0])) / (4 * math.sqrt(epsilon))
    assert len(converse._jumps(epsilon)) + 1 == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("epsilon", [3e-2, 1e-2, 1e-3])
def test_one_active_unit_of_a_topk_is_enough_at_any_epsilon(epsilon: float) -> None:
    layer = topk_layer(epsilon)
    found, active = layer(X)
    assert float(np.max(np.abs(found - f(X)))) <= epsilon
    assert (active == 1).all()
    assert len(layer.w) == pytest.approx((1 - float(f(np.array([1.0]))[0])) / epsilon, rel=0.25)


def test_counts_meet_the_bounds_that_hold_for_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converse, "EPSILONS", (1e-2, 1e-3, 1e-4))
    found = list(converse.needs())
    assert {need.family for need in found} == {"relu", "jumprelu", "topk"}
    for need in found:
        assert need.error <= need.epsilon
        assert need.width >= need.width_bound
        assert need.active_max >= need.active_bound
        if need.family != "topk":
            assert need.width <= need.width_bound + 4
            assert need.active_max <= need.active_bound + 3


def test_a_layer_counts_what_is_active() -> None:
    layer = Layer(np.array([1.0, -1.0]), np.zeros(2), np.array([2.0, 3.0]), 0.5)
    out, active = layer(np.array([-0.5, 0.0, 0.5]))
    assert out.tolist() == [2.0, 0.5, 1.5]
    assert active.tolist() == [1, 0, 1]


def test_the_exponent_of_a_power_is_found_with_a_narrow_interval() -> None:
    epsilon = np.geomspace(1e-6, 1e-1, 20)
    noise = np.random.default_rng(0).normal(scale=0.02, size=20)
    fitted = exponent(epsilon, 3 * epsilon**-0.5 * np.exp(noise))
    assert fitted.low <= 0.5 <= fitted.high
    assert fitted.high - fitted.low < 0.03


def test_a_constant_count_has_the_exponent_zero_exactly() -> None:
    fitted = exponent(np.geomspace(1e-4, 1e-1, 8), np.ones(8))
    assert (fitted.a, fitted.low, fitted.high) == (0.0, 0.0, 0.0)
