"""Leaky ReLU, callables, unions of intervals, weights, symmetry, warm starts, and random problems."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rational_sae.errors import FitError
from rational_sae.rational import Fit, FunctionTarget, fit, minimax, target, zolotarev_sign

T = np.linspace(-1, 1, 2001)


def measured_error(result: Fit) -> float:
    """The weighted sup norm, again, on points of this test's own."""
    f, worst = result.target, 0.0
    for low, high in f.domain:
        away = np.geomspace(1e-9, 1, 20_001) * (high - low)
        t = np.concatenate([low + away, high - away, np.linspace(low, high, 20_001)])
        near = [kink + s * np.geomspace(1e-9, 1, 5001) for kink in f.kinks for s in (-1, 1)]
        t = np.concatenate([t, *near])
        t = t[(t >= low) & (t <= high)]
        worst = max(worst, float(np.max(f.weight(t) * np.abs(result(t) - f(t)))))
    return worst


@pytest.mark.parametrize("slope", [0.01, 0.3, -0.5, 3.0])
@pytest.mark.parametrize("degrees", [(3, 2), (9, 8)])
def test_leaky_relu_is_a_line_and_a_share_of_relu(slope: float, degrees: tuple[int, int]) -> None:
    leaky, relu = fit(target("leaky_relu", slope=slope), degrees), fit("relu", degrees)
    assert leaky.status == "optimal"
    assert leaky.error == pytest.approx(abs(1 - slope) * relu.error, rel=1e-6)
    np.testing.assert_allclose(leaky(T), slope * T + (1 - slope) * relu(T), atol=1e-9)


def test_leaky_relu_of_another_type_agrees_with_the_closed_one() -> None:
    assert fit("leaky_relu", (6, 4)).error == pytest.approx(0.99 * fit("relu", (6, 4)).error, rel=1e-3)


def test_a_callable_gives_what_the_name_gives() -> None:
    as_callable = fit(target(lambda t: np.where(t > 0.1, t, 0.0), domain=[(-1, 0.08), (0.12, 1)]), (9, 8))
    by_name = fit("jumprelu", (9, 8))
    assert as_callable.status == "optimal"
    assert as_callable.error == pytest.approx(by_name.error, rel=1e-6)
    np.testing.assert_allclose(as_callable(T), by_name(T), atol=1e-6)


def test_exp_has_its_known_error() -> None:
    """Best (1, 1) to exp on [−1, 1]: 2.0971e-2 (Meinardus' table)."""
    result = fit(np.exp, (1, 1))
    assert (result.status, result.alternations) == ("optimal", 4)
    assert result.error == pytest.approx(2.0971e-2, rel=2e-4)


def test_an_interval_far_from_zero_is_as_good_as_one_about_it() -> None:
    far = fit(target(lambda t: np.abs(t - 7.0), domain=[(5, 9)], kinks=[7.0]), (5, 4))
    near = fit(target(np.abs, kinks=[0.0]), (5, 4))
    assert far.error == pytest.approx(2 * near.error, rel=1e-6)
    np.testing.assert_allclose(far(7 + 2 * T), 2 * near(T), atol=1e-8)
    ratio = np.polynomial.polynomial.polyval(2 * T, far.numerator)
    ratio = ratio / np.polynomial.polynomial.polyval(2 * T, far.denominator)
    assert np.max(np.abs(ratio - far(7 + 2 * T))) <= max(2 * far.expansion_error, 1e-12)


@pytest.mark.parametrize("degrees", [(4, 4), (5, 4)])
def test_a_set_very_far_from_zero_keeps_its_digits(degrees: tuple[int, int]) -> None:
    """Powers of t itself would lose all of them: they are powers of t − centre."""
    result = fit(target(lambda t: np.abs(t - 10_000.5), domain=[(1e4, 1e4 + 1)], kinks=[10_000.5]), degrees)
    assert result.status == "optimal"
    assert measured_error(result) == pytest.approx(result.error, rel=1e-3)
    assert result.to_json()["centre"] == 10_000.5


def test_a_kink_that_is_not_named_does_not_make_a_poor_fit_pass() -> None:
    """The grid's best is 45 % worse in truth: the proof on the grid is none then, and the peaks are added."""
    assert fit(np.abs, (5, 4)).error == pytest.approx(2 * 4.25074e-3, rel=1e-4)
    hidden = fit(lambda t: np.abs(t - 0.3141), (9, 8), throw=False)
    assert hidden.status == "stalled"


def test_a_kink_at_an_end_is_clustered_too() -> None:
    """Best (k, k) to √x on [0, 1] has twice the error of relu's (2k + 1, 2k)."""
    root = fit(target(np.sqrt, domain=[(0, 1)], kinks=[0.0]), (4, 4))
    assert root.error == pytest.approx(2 * 3.68282e-4, rel=1e-3)


def test_a_common_factor_of_the_best_fit_is_taken_out() -> None:
    """The best (7, 5) of relu is its (6, 4); on the grid it comes with a factor whose zero may lie at ±1."""
    result = fit("relu", (7, 5))
    assert (result.status, result.min_denominator > 0) == ("degenerate", True)
    assert result.error == pytest.approx(fit("relu", (6, 4)).error, rel=1e-3)
    assert result.numerator.shape == (8,)


def test_three_intervals_are_certified_and_pole_free_between_them() -> None:
    result = fit(target(np.sign, domain=[(-1, -0.5), (-0.3, -0.1), (0.2, 1)]), (5, 4))
    assert result.status in minimax.PROVED
    assert measured_error(result) == pytest.approx(result.error, rel=1e-3)
    assert result.min_denominator > 0


def test_a_function_of_the_type_itself_is_fitted_to_rounding() -> None:
    result = fit(lambda t: 1 / (t * t + 0.1), (3, 2))
    assert result.status == "optimal"
    assert result.error < 1e-11


@pytest.mark.parametrize("kappa", [0.25, 4.0, 64.0])
def test_a_one_sided_weight_trades_the_root_of_kappa(kappa: float) -> None:
    """E√κ off the gate, E/√κ on it, to about 1 % (docs/fits.md)."""
    plain, weighted = fit("jumprelu", (9, 8)), fit(target("jumprelu", kappa=kappa), (9, 8))
    assert weighted.status == "optimal"
    assert weighted.error == pytest.approx(plain.error * math.sqrt(kappa), rel=0.02)
    assert measured_error(weighted) == pytest.approx(weighted.error, rel=1e-3)


def test_a_weight_that_is_a_callable_is_honoured() -> None:
    result = fit(target(np.exp, weights=lambda t: np.exp(-t)), (3, 2))
    assert (result.status, result.alternations) == ("optimal", 7)
    relative = np.abs(result(T) / np.exp(T) - 1)
    assert relative.max() == pytest.approx(result.error, rel=1e-3)


def test_symmetric_targets_give_symmetric_fits() -> None:
    sign, relu = fit(target("sign", 0.0, 0.05), (9, 8)), fit("relu", (9, 8))
    np.testing.assert_allclose(sign(T) + sign(-T), 0, atol=1e-8)
    np.testing.assert_allclose((relu(T) - T / 2) - (relu(-T) + T / 2), 0, atol=1e-12)


@pytest.mark.parametrize("degree", [3, 5, 7, 9])
def test_zolotarevs_closed_form_to_six_digits(degree: int) -> None:
    exact = zolotarev_sign(degree, 0.05)
    found = fit(target("sign", 0.0, 0.05), (degree, degree - 1)).error
    assert found == pytest.approx(float(np.max(np.abs(exact(np.linspace(0.05, 1, 200_001)) - 1))), rel=1e-6)


def test_a_warm_start_is_tried_first_and_finds_the_same_fit() -> None:
    cold = fit(target("jumprelu", 0.11), (9, 8))
    warm = fit(target("jumprelu", 0.11), (9, 8), start=fit("jumprelu", (9, 8)))
    assert warm.start == "warm"
    assert fit("jumprelu", (9, 8), start=fit("jumprelu", (5, 4))).start == "warm"
    assert fit("jumprelu", (3, 2), start=warm).start != "warm"
    assert warm.error == pytest.approx(cold.error, rel=1e-8)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    theta=st.floats(-0.6, 0.6),
    gap=st.floats(0.005, 0.2),
    q=st.integers(0, 6),
    more=st.integers(-2, 2),
    name=st.sampled_from(["jumprelu", "step", "sign"]),
)
def test_a_random_fit_is_what_it_says(theta: float, gap: float, q: int, more: int, name: str) -> None:
    """Whatever the status, the error is true; "optimal" means that no fit is a thousandth better."""
    p = max(0, q + more)
    result = fit(target(name, theta, gap), (p, q), throw=False)
    assert result.status in ("optimal", "degenerate", "stalled")
    assert measured_error(result) == pytest.approx(result.error, rel=1e-3, abs=1e-12)
    assert result.min_denominator > 0
    if result.status == "optimal" and result.error > 1e-12:
        assert result.alternations >= p + q + 2
        peaks = result(result.alternation_points) - result.target(result.alternation_points)
        assert np.all(np.diff(np.sign(peaks)) != 0)
        assert np.min(np.abs(peaks)) > 0.999 * result.error


@settings(max_examples=15, deadline=None, derandomize=True)
@given(theta=st.floats(0.03, 0.5), gap=st.floats(0.005, 0.1), half=st.integers(1, 4))
def test_every_trainable_type_of_a_random_jumprelu_is_certified(theta: float, gap: float, half: int) -> None:
    result = fit(target("jumprelu", theta, min(gap, 0.9 * theta)), (2 * half + 1, 2 * half))
    assert result.status == "optimal"
    assert result.partial_fractions is not None


@pytest.mark.parametrize("domain", [[], [(1, 0)], [(0, 1), (0.5, 2)], [(0, float("nan"))], [(-1, 1), (1, 2)]], ids=str)
def test_what_is_no_union_of_intervals_is_refused(domain: list[tuple[float, float]]) -> None:
    with pytest.raises(FitError, match="not a union of intervals"):
        target(np.exp, domain=domain)


def test_a_callable_that_is_not_finite_on_the_set_is_refused() -> None:
    with pytest.raises(FitError, match="not finite"), np.errstate(divide="ignore"):
        FunctionTarget(lambda t: 1 / t, ((0.0, 1.0),))
    with pytest.raises(FitError, match="takes no slope"):
        target("relu", slope=0.1)
    with pytest.raises(FitError, match="kappa must be positive"):
        target("jumprelu", kappa=0.0)
