"""Predicted rates against closed forms and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rational_sae.rational import fit, zolotarev_sign
from rational_sae.theory import measured
from rational_sae.theory.rates import relu_error, sign_error, symmetric_gap, zolotarev_decay


@pytest.mark.parametrize("gap", [0.3, 0.05, 0.01, 1e-4])
@pytest.mark.parametrize("degree", [8, 9, 14])
def test_the_leading_term_is_zolotarevs_error_up_to_its_square(degree: int, gap: float) -> None:
    t = np.geomspace(gap, 1, 100_001)
    exact = float(np.max(np.abs(zolotarev_sign(degree, gap)(t) - 1)))
    assert sign_error(degree, gap) == pytest.approx(exact, rel=exact + 1e-5)


def test_the_decay_for_a_small_gap_is_the_logarithmic_one() -> None:
    for gap in (1e-2, 1e-4, 1e-8):
        assert zolotarev_decay(gap) == pytest.approx(math.pi**2 / (2 * math.log(4 / gap)), rel=gap)


def test_a_symmetric_set_is_its_own_and_a_shift_narrows_it() -> None:
    assert symmetric_gap(0.0, 0.05) == pytest.approx(0.05, rel=1e-12)
    assert symmetric_gap(0.4, 0.05) == pytest.approx(symmetric_gap(-0.4, 0.05), rel=1e-12)
    # (1 − θ²) is the density of the harmonic measure: a gap off the middle counts for more.
    assert symmetric_gap(0.4, 1e-4) == pytest.approx(1e-4 / (1 - 0.4**2), rel=1e-3)


def test_relu_errors_approach_their_leading_term_from_below() -> None:
    ratios = [fit("relu", (q + 1, q)).error / relu_error(q) for q in (2, 6, 12)]
    assert ratios == sorted(ratios)
    assert 0.4 < ratios[0] < ratios[-1] < 1


def test_a_supplied_threshold_topk_stays_below_its_bound_and_close_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "TOKENS", 200)
    for point in measured._topk():
        assert 0.5 * point.predicted < point.error <= point.predicted * 1.001
