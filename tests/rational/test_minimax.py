"""Minimax fits against known errors, closed forms, symmetry and scaling."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from known_errors import JUMPRELU, RELU

from rational_sae.errors import FitError
from rational_sae.rational import Fit, fit, minimax, target, zolotarev_sign
from rational_sae.rational.correction import correct
from rational_sae.rational.grids import clustered_grid

JSON_KEYS = {
    "error",
    "domain",
    "alternations",
    "peak_ratio",
    "min_denominator",
    "status",
    "numerator",
    "denominator",
    "partial_fractions",
    "seconds",
}


def assert_certified(result: Fit) -> None:
    """What a certificate claims, measured again in the plainest way, on a grid of this test's own."""
    f, (p, q) = result.target, result.type
    assert result.status == "optimal"
    assert result.alternations >= p + q + 2
    assert result.peak_ratio > 0.9996
    peaks = result(result.alternation_points) - f(result.alternation_points)
    assert np.all(np.diff(np.sign(peaks)) != 0)
    np.testing.assert_allclose(np.abs(peaks), result.error, rtol=1e-3)
    u = f.radius * np.geomspace(1e-8, 2, 40_001)
    t = np.concatenate([part for kink in f.kinks for part in (kink - u, kink + u)])
    t = t[np.any([(low <= t) & (t <= high) for low, high in result.domain], axis=0)]
    measured = np.max(np.abs(result(t) - f(t)))
    assert measured == pytest.approx(result.error, rel=1e-3)
    if result.partial_fractions is not None:
        assert np.all(result.partial_fractions.y > 0)
    assert 0 < result.min_denominator <= 1


@pytest.mark.parametrize("type_", RELU)
def test_relu_reaches_the_known_best_error(type_: tuple[int, int]) -> None:
    result = fit("relu", type_)
    assert result.error == pytest.approx(RELU[type_], rel=5e-5)
    assert result.alternations == sum(type_) + 2
    assert_certified(result)


@pytest.mark.parametrize("cell", JUMPRELU)
def test_jumprelu_reaches_the_known_best_error(cell: tuple[float, float]) -> None:
    result = fit(target("jumprelu", *cell), (9, 8))
    assert result.error == pytest.approx(JUMPRELU[cell], rel=1e-2)
    assert result.alternations == 19
    assert_certified(result)


@pytest.mark.parametrize("name", ["jumprelu", "step", "sign"])
@pytest.mark.parametrize("type_", [(1, 0), (3, 2), (5, 4)])
def test_jumps_are_certified_at_low_types(name: str, type_: tuple[int, int]) -> None:
    result = fit(name, type_)
    assert result.partial_fractions is not None
    assert_certified(result)


@pytest.mark.parametrize("gap", [0.02, 0.1])
@pytest.mark.parametrize("degree", [3, 5, 9])
def test_sign_is_zolotarevs_closed_form(degree: int, gap: float) -> None:
    result = fit(target("sign", 0.0, gap), (degree, degree - 1))
    exact = zolotarev_sign(degree, gap)
    t = np.linspace(gap, 1, 1001)
    np.testing.assert_allclose(result(t), exact(t), atol=1e-8)
    assert result.error == pytest.approx(np.max(np.abs(exact(t) - 1)), rel=1e-6)
    assert_certified(result)


def test_step_is_half_of_one_plus_sign() -> None:
    step = fit(target("step", 0.2, 0.03), (5, 4))
    sign = fit(target("sign", 0.2, 0.03), (5, 4))
    assert step.error == pytest.approx(sign.error / 2, rel=1e-9)


def test_mirrored_jumprelu_has_the_same_error() -> None:
    """jumprelu_{−θ}(t) = t + jumprelu_θ(−t)."""
    right, left = (fit(target("jumprelu", theta, 0.05), (5, 4)) for theta in (0.3, -0.3))
    assert left.error == pytest.approx(right.error, rel=1e-9)
    t = np.linspace(-1, 1, 1001)
    np.testing.assert_allclose(left(t), t + right(-t), atol=1e-9)


@pytest.mark.parametrize("type_", [(0, 0), (2, 2), (4, 3), (4, 4), (6, 4), (0, 4), (8, 8)])
def test_types_without_partial_fractions_are_certified_too(type_: tuple[int, int]) -> None:
    result = fit("jumprelu", type_)
    assert result.partial_fractions is None
    assert result.numerator.shape == (type_[0] + 1,)
    assert result.denominator.shape == (type_[1] + 1,)
    assert result.alternations == sum(type_) + 2
    assert result.peak_ratio > 0.999
    assert result.min_denominator > 0


def test_a_best_fit_of_lower_degree_is_called_degenerate() -> None:
    """The best (4, 3) of sign is the (3, 2): 8 alternations, one short."""
    result = fit("sign", (4, 3))
    assert (result.status, result.alternations) == ("degenerate", 8)
    assert result.error == pytest.approx(fit("sign", (3, 2)).error, rel=1e-4)


def test_both_routes_agree_on_relu() -> None:
    """The square-root reduction against differential correction on the same clustered grid."""
    f = target("relu")
    t = clustered_grid(f)
    found = correct(t, f(t), np.empty(0), (5, 4), np.ones_like)
    assert found.converged
    assert found.error == pytest.approx(fit(f, (5, 4)).error, rel=1e-3)
    assert found.error <= fit(f, (5, 4)).error


@pytest.mark.parametrize("t_factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("f_factor", [1e-6, -1.0, 1e6])
@pytest.mark.parametrize("name", ["relu", "jumprelu", "sign"])
def test_units_do_not_change_a_fit(name: str, t_factor: float, f_factor: float) -> None:
    plain, scaled = fit(name, (3, 2)), fit(target(name).scaled(t_factor, f_factor), (3, 2))
    assert scaled.error == pytest.approx(abs(f_factor) * plain.error, rel=1e-9)
    assert scaled.alternations == plain.alternations
    assert scaled.min_denominator == pytest.approx(plain.min_denominator, rel=1e-6)
    t = np.linspace(-1, 1, 301)
    np.testing.assert_allclose(scaled(t_factor * t), f_factor * plain(t), atol=1e-8 * abs(f_factor))
    ratio = np.polynomial.polynomial.polyval(t_factor * t, scaled.numerator)
    ratio = ratio / np.polynomial.polynomial.polyval(t_factor * t, scaled.denominator)
    np.testing.assert_allclose(ratio, f_factor * plain(t), atol=1e-8 * abs(f_factor))


def test_numerator_and_denominator_are_the_fit(relu: Fit, jumprelu: Fit) -> None:
    t = np.linspace(-1, 1, 10_001)
    for result in (relu, jumprelu):
        ratio = np.polynomial.polynomial.polyval(t, result.numerator)
        ratio = ratio / np.polynomial.polynomial.polyval(t, result.denominator)
        assert np.max(np.abs(ratio - result(t))) <= max(2 * result.expansion_error, 1e-12)
        assert result.expansion_error < 1e-6 * result.error


def test_min_denominator_is_the_minimum_of_the_factors(jumprelu: Fit) -> None:
    r = jumprelu.partial_fractions
    assert r is not None
    t = np.unique(np.concatenate([np.linspace(-1, 1, 20_001), np.linspace(0.05, 0.15, 200_001)]))
    q = np.prod((t[:, None] - r.x) ** 2 + r.y**2, axis=1)
    assert q.min() / q.max() == pytest.approx(jumprelu.min_denominator, rel=1e-6)


def test_json_has_the_contracts_fields_and_comes_back(jumprelu: Fit) -> None:
    data = json.loads(json.dumps(jumprelu.to_json()))
    assert data.keys() >= JSON_KEYS
    assert data["domain"] == [[-1.0, 0.1 - 0.02], [0.1 + 0.02, 1.0]]
    assert type(data["alternations"]) is int
    again = Fit.from_json(data)
    assert again.to_json() == jumprelu.to_json()
    with pytest.raises(FitError, match="not a stored fit"):
        Fit.from_json({"target": "relu"})


@pytest.mark.parametrize("type_", [(-1, 0), (3, -2), (25, 24), (2.5, 2)])
def test_impossible_types_are_refused(type_: tuple[int, int]) -> None:
    with pytest.raises(FitError, match="not two whole numbers from 0 to 24; use a type such as 3,2 or 9,8"):
        fit("relu", type_)


def test_a_fit_that_is_not_certified_is_returned_with_its_status_or_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One step of differential correction is not enough from any start."""
    monkeypatch.setattr(minimax, "correct", partial(correct, max_steps=1))
    result = fit("jumprelu", (8, 8), throw=False)
    assert result.status == "stalled"
    assert result.alternations < 18 or result.peak_ratio < 0.999
    message = r"^jumprelu type \(8,8\) is stalled: error .* starts tried: zolotarev, wide, constant; widen"
    with pytest.raises(FitError, match=message):
        fit("jumprelu", (8, 8))


def test_differential_correction_never_gets_worse() -> None:
    f = target("jumprelu")
    t = clustered_grid(f)
    limits = (1, 2, 4, 8, 16, 60)
    errors = [correct(t, f(t), np.empty(0), (5, 4), np.ones_like, steps).error for steps in limits]
    assert all(after <= before for before, after in pairwise(errors))
    assert errors[-1] == pytest.approx(fit(f, (5, 4)).error, rel=1e-3)
