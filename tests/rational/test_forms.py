"""Stored forms: evaluation, derivative, serialisation, conversion both ways."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rational_sae.errors import FitError
from rational_sae.rational import (
    Fit,
    PartialFractions,
    SafePade,
    from_rational,
    from_safe_pade,
    to_rational,
    to_safe_pade,
)

T = np.linspace(-1, 1, 801)


@st.composite
def fractions(draw: st.DrawFn, most_pairs: int = 4) -> PartialFractions:
    """Any partial fractions with poles in or near [−1, 1], not nearer to it than .02."""
    pairs = draw(st.integers(0, most_pairs))

    def vector(low: float, high: float) -> list[float]:
        return [draw(st.floats(low, high)) for _ in range(pairs)]

    return PartialFractions(
        draw(st.floats(-2, 2)),
        draw(st.floats(-2, 2)),
        np.array(vector(-1, 1)),
        np.array(vector(-1, 1)),
        np.array(vector(-1.2, 1.2)),
        np.log(np.array(vector(0.02, 2))),
    )


def size(r: PartialFractions) -> float:
    return float(np.max(np.abs(r(T)))) + 1e-300


@given(fractions())
def test_value_is_the_sum_of_its_terms(r: PartialFractions) -> None:
    upper = r.x + 1j * r.y
    residues = (r.alpha - 1j * r.beta) / 2
    terms = 2 * np.real(residues / (T[:, None] - upper)).sum(axis=1)
    np.testing.assert_allclose(r(T), r.e0 + r.e1 * T + terms, atol=1e-11 * (1 + size(r)))
    assert r.type == (2 * len(r.x) + 1, 2 * len(r.x))


@given(fractions())
def test_derivative_is_the_slope(r: PartialFractions) -> None:
    h = 1e-6
    slope = (r(T + h) - r(T - h)) / (2 * h)
    scale = 1 + np.max(np.abs(r.derivative(T)))
    np.testing.assert_allclose(r.derivative(T), slope, atol=1e-4 * scale)


@given(fractions(), st.sampled_from([1e-6, 0.5, 1e6]), st.sampled_from([1e-6, -2.0, 1e6]))
def test_scaled_is_the_same_function_in_other_units(r: PartialFractions, t_factor: float, f_factor: float) -> None:
    found = r.scaled(t_factor, f_factor)(t_factor * T)
    np.testing.assert_allclose(found, f_factor * r(T), atol=1e-10 * abs(f_factor) * (1 + size(r)))


def test_any_shape_goes_in_and_comes_out(jumprelu: Fit) -> None:
    r = jumprelu.partial_fractions
    assert r is not None
    assert r(0.3).shape == ()
    assert r(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    assert r.derivative(np.zeros((2, 3))).shape == (2, 3)


@given(fractions())
def test_dictionary_round_trip_is_exact(r: PartialFractions) -> None:
    again = PartialFractions.from_dict(json.loads(json.dumps(r.to_dict())))
    np.testing.assert_array_equal(again(T), r(T))


def test_dictionary_states_form_and_version() -> None:
    data = PartialFractions(0, 1, [], [], [], []).to_dict()
    assert (data["form"], data["version"]) == ("partial_fractions", 1)
    data = SafePade(np.ones(2), np.ones(1), 0.0).to_dict()
    assert (data["form"], data["version"]) == ("centred_safe_pade", 1)


@pytest.mark.parametrize(
    "change",
    [{"form": "safe_pade"}, {"version": 2}, {"version": None}, {"form": "centred_safe_pade"}],
)
def test_another_form_or_version_is_refused(jumprelu: Fit, change: dict[str, Any]) -> None:
    assert jumprelu.partial_fractions is not None
    with pytest.raises(FitError, match="not 'partial_fractions' version 1; fit again"):
        PartialFractions.from_dict(jumprelu.partial_fractions.to_dict() | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": [1.0]}, "differ in length"),
        ({"eta": [[1.0]]}, "eta must be a list of finite numbers"),
        ({"x": [float("nan")] * 4}, "x must be a list of finite numbers"),
        ({"e0": float("inf")}, "e0 or e1 is not finite"),
        ({"beta": ["a"] * 4}, "coefficients are not numbers"),
    ],
)
def test_malformed_coefficients_are_refused(jumprelu: Fit, change: dict[str, Any], message: str) -> None:
    assert jumprelu.partial_fractions is not None
    with pytest.raises(FitError, match=message):
        PartialFractions.from_dict(jumprelu.partial_fractions.to_dict() | change)


def test_a_missing_coefficient_is_named(jumprelu: Fit) -> None:
    assert jumprelu.partial_fractions is not None
    data = jumprelu.partial_fractions.to_dict()
    del data["eta"]
    with pytest.raises(FitError, match="coefficients lack eta"):
        PartialFractions.from_dict(data)


def test_coefficients_cannot_be_changed_in_place(jumprelu: Fit) -> None:
    assert jumprelu.partial_fractions is not None
    with pytest.raises(ValueError, match="read-only"):
        jumprelu.partial_fractions.x[0] = 0.0


@given(fractions(most_pairs=2))
@settings(deadline=None)
def test_rational_round_trip_agrees_or_refuses(r: PartialFractions) -> None:
    try:
        numerator, denominator = to_rational(r)
        again = from_rational(numerator, denominator)
    except FitError:
        return
    assert numerator.shape == (r.type[0] + 1,)
    assert denominator.shape == (r.type[1] + 1,)
    np.testing.assert_allclose(again(T), r(T), atol=1e-6 * size(r))


@given(fractions(most_pairs=1))
@settings(deadline=None)
def test_one_pole_pair_is_never_refused(r: PartialFractions) -> None:
    again = from_rational(*to_rational(r))
    np.testing.assert_allclose(again(T), r(T), atol=1e-9 * size(r))
    np.testing.assert_allclose(from_safe_pade(to_safe_pade(r))(T), r(T), atol=1e-9 * size(r))


def test_expanded_denominator_is_one_at_its_largest(jumprelu: Fit) -> None:
    assert jumprelu.partial_fractions is not None
    denominator = to_rational(jumprelu.partial_fractions)[1]
    values = np.polynomial.polynomial.polyval(np.linspace(-1, 1, 100_001), denominator)
    assert values.max() == pytest.approx(1, abs=1e-12)
    assert values.min() == pytest.approx(jumprelu.min_denominator, rel=1e-4)


@pytest.mark.parametrize("fit_name", ["relu", "jumprelu"])
def test_minimax_fits_survive_every_conversion(fit_name: str, request: pytest.FixtureRequest) -> None:
    result: Fit = request.getfixturevalue(fit_name)
    r = result.partial_fractions
    assert r is not None
    pade = to_safe_pade(r)
    assert pade.type == (9, 8)
    for other in (from_rational(result.numerator, result.denominator), pade, from_safe_pade(pade)):
        assert np.max(np.abs(other(T) - r(T))) < 1e-4 * result.error
    again = SafePade.from_dict(json.loads(json.dumps(pade.to_dict())))
    np.testing.assert_array_equal(again(T), pade(T))


def test_lower_types_convert_too() -> None:
    """(1 + t) / ((t − .5)² + .01) is of type (1, 2)."""
    numerator, denominator = np.array([1.0, 1.0]), np.array([0.26, -1.0, 1.0])
    r = from_rational(numerator, denominator)
    assert r.type == (3, 2)
    np.testing.assert_allclose([r.e0, r.e1], 0, atol=1e-12)
    np.testing.assert_allclose([r.x[0], r.y[0]], [0.5, 0.1], rtol=1e-12)
    np.testing.assert_allclose(r(T), (1 + T) / ((T - 0.5) ** 2 + 0.01), atol=1e-11)
    line = from_rational([2.0, 3.0], [0.5, 0.0, 0.0])
    assert (line.e0, line.e1, line.type) == (pytest.approx(4), pytest.approx(6), (1, 0))


@pytest.mark.parametrize(
    ("numerator", "denominator", "message"),
    [
        ([1.0], [-0.25, 0.0, 1.0], "pole on the real line"),
        ([1.0], [2.0, 1.0], "pole on the real line"),
        ([1.0, 0, 0, 0, 1.0], [1.0, 0.0, 1.0], "grows faster than a straight line"),
        ([1.0], [0.0], "the denominator is zero"),
        ([float("nan")], [1.0], "finite coefficients"),
    ],
)
def test_what_partial_fractions_cannot_hold_is_refused(
    numerator: list[float], denominator: list[float], message: str
) -> None:
    with pytest.raises(FitError, match=message) as caught:
        from_rational(numerator, denominator)
    assert caught.value.remedy


def test_a_conversion_above_its_tolerance_is_refused(jumprelu: Fit) -> None:
    with pytest.raises(FitError, match=r"the conversion is off by .* of max \|r\|, more than 0e\+00"):
        from_rational(jumprelu.numerator, jumprelu.denominator, tolerance=0.0)


def test_safe_pade_that_folds_is_refused() -> None:
    """1 + |b₁ t| has a corner: no rational function is equal to it on both sides."""
    with pytest.raises(FitError, match=r"conversion is off|real line"):
        from_safe_pade(SafePade(np.array([1.0]), np.array([0.5, 0.1]), 0.0))
