"""Zolotarev's closed form is certified by its own alternation."""

from __future__ import annotations

import pytest

from rational_sae.errors import FitError
from rational_sae.rational import certify, target, zolotarev_sign


@pytest.mark.parametrize("gap", [0.3, 0.02, 1e-3])
@pytest.mark.parametrize("degree", range(2, 11))
def test_error_alternates_as_often_as_theory_says(degree: int, gap: float) -> None:
    found = certify(zolotarev_sign(degree, gap), target("sign", 0.0, gap))
    assert found.alternations == 2 * degree + 2
    assert found.peak_ratio > 1 - 1e-5


def test_function_is_odd_and_of_the_stated_type() -> None:
    r = zolotarev_sign(8, 0.1)
    assert r.type == (9, 8)
    assert r.e1 == pytest.approx(0, abs=1e-9)
    assert r(0.37) == pytest.approx(-r(-0.37), rel=1e-9)


@pytest.mark.parametrize(("degree", "gap"), [(1, 0.1), (4, 0.0), (4, 1.0)])
def test_impossible_problems_are_refused(degree: int, gap: float) -> None:
    with pytest.raises(FitError, match="no Zolotarev approximant"):
        zolotarev_sign(degree, gap)
