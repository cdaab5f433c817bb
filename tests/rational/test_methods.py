"""The other methods: never certified by accident, never better than the best, and as far off as docs/fits.md says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rational_sae.errors import FitError
from rational_sae.rational import fit, target
from rational_sae.rational.minimax import Method


@pytest.mark.parametrize("name", ["relu", "jumprelu"])
def test_the_relaxed_exchange_finds_the_best_fit_of_a_low_type(name: str) -> None:
    best, found = fit(name, (3, 2)), fit(name, (3, 2), method="relaxed_remez")
    assert found.error == pytest.approx(best.error, rel=1e-4)
    assert found.error >= best.error * (1 - 1e-9)
    assert (found.status, found.alternations) == ("optimal", 7)


@pytest.mark.parametrize("method", ["relaxed_remez", "adam"])
@pytest.mark.parametrize("name", ["relu", "jumprelu"])
def test_at_nine_eight_other_methods_fall_short_and_say_so(method: Method, name: str) -> None:
    best, found = fit(name, (9, 8)), fit(name, (9, 8), method=method)
    assert found.status == "stalled"
    assert 2 * best.error < found.error < 1000 * best.error
    assert found.safe_pade is not None
    t = np.concatenate([np.linspace(low, high, 40_001) for low, high in found.domain])
    assert np.max(np.abs(found(t) - found.target(t))) == pytest.approx(found.error, rel=1e-2)


def test_aaa_puts_poles_on_the_interval() -> None:
    found = fit("relu", (9, 8), method="aaa")
    assert found.status == "pole"
    assert found.min_denominator <= 0
    with pytest.raises(FitError, match="no type"):
        fit("relu", (2, 3), method="aaa")


def test_a_function_that_is_not_of_the_type_is_never_called_optimal() -> None:
    """This safe-Padé folds: it errs less than the best (2, 1) and alternates as often, and is none."""
    best, folded = fit("step", (2, 1)), fit("step", (2, 1), method="relaxed_remez")
    assert best.status == "optimal"
    assert folded.error < 0.99 * best.error
    assert (folded.status, folded.alternations) == ("stalled", 5)


@pytest.mark.parametrize("method", ["relaxed_remez", "adam", "aaa"])
def test_other_methods_refuse_a_weight(method: Method) -> None:
    with pytest.raises(FitError, match="takes no weight"):
        fit(target("jumprelu", kappa=4.0), (3, 2), method=method)


@pytest.mark.parametrize(("name", "degrees"), [("relu", (3, 2)), ("step", (2, 1))])
def test_an_infinite_error_is_written_as_plain_json(name: str, degrees: tuple[int, int]) -> None:
    for method in ("aaa", "relaxed_remez"):
        found = fit(name, degrees, method=method)
        again = type(found).from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
        assert again.error == found.error
        assert 0 <= found.peak_ratio <= 1


def test_other_methods_follow_the_units_too() -> None:
    plain = fit("jumprelu", (3, 2), method="relaxed_remez")
    scaled = fit(target("jumprelu").scaled(1e3, 1e-3), (3, 2), method="relaxed_remez")
    t = np.linspace(-1, 1, 101)
    np.testing.assert_allclose(scaled(1e3 * t), 1e-3 * plain(t), rtol=1e-6, atol=1e-9)


def test_a_stored_fit_of_another_method_comes_back() -> None:
    found = fit("relu", (3, 2), method="adam")
    again = type(found).from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert float(again(0.3)) == float(found(0.3))
