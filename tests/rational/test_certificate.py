"""The certificate measures any function, and is not fooled by narrow peaks, poles or plain grids."""

from __future__ import annotations

import numpy as np
import pytest

from rational_sae.rational import PartialFractions, certify, target
from rational_sae.rational.grids import CHECK_POINTS, clustered_grid
from rational_sae.rational.poles import extremes, monic
from rational_sae.rational.polish import certified, polish


def test_best_line_for_relu_alternates_three_times() -> None:
    """t/2 + 1/4 errs by 1/4 at −1, 0 and 1."""
    found = certify(lambda t: t / 2 + 0.25, target("relu"))
    assert found.error == pytest.approx(0.25, abs=1e-15)
    assert found.peak_ratio == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.points, [-1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(found.peaks, [-0.25, 0.25, -0.25], atol=1e-12)


def test_a_shifted_fit_loses_its_alternation() -> None:
    found = certify(lambda t: t / 2 + 0.26, target("relu"))
    assert found.error == pytest.approx(0.26, abs=1e-12)
    assert found.peak_ratio < 0.93


def test_peaks_between_grid_points_are_found() -> None:
    def wave(t: np.ndarray) -> np.ndarray:
        return np.maximum(t, 0) + np.cos(40 * t + 1)

    assert certify(wave, target("relu")).error == pytest.approx(1, abs=1e-9)


def test_a_narrow_peak_is_seen_through_its_poles() -> None:
    spike = PartialFractions(0.25, 0.5, [0.0], [1.0], [0.4321], [np.log(1e-9)])
    assert certified(spike, target("relu")).error > 1e8


def test_a_pole_on_the_set_gives_an_infinite_error() -> None:
    def pole(t: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return t / (t - 1)

    assert certify(pole, target("relu")).error == np.inf


def test_the_check_grid_is_not_the_fitting_grid() -> None:
    f = target("jumprelu")
    fitting, checking = clustered_grid(f), clustered_grid(f, CHECK_POINTS)
    shared = np.intersect1d(fitting, checking)
    assert len(shared) < 0.02 * len(fitting)


def test_polish_levels_a_perturbed_fit_and_never_harms() -> None:
    f = target("relu")
    start = PartialFractions(0.6113, 0.5, [0.0], [-0.36], [0.0], [np.log(0.62)])
    before = certified(start, f)
    _, after = polish(start, f)
    assert after.error <= before.error


@pytest.mark.parametrize("width", [1e-8, 1e-3, 0.5])
def test_extremes_of_a_denominator_are_exact(width: float) -> None:
    """(t² + w²)((t − 1/2)² + 1): compared with a grid that is dense where the valley is."""
    roots = np.array([1j * width, -1j * width, 0.5 + 1j, 0.5 - 1j])
    low, high = extremes(roots, (-1.0, 1.0))
    u = np.concatenate([width * np.linspace(-5, 5, 100_001), np.linspace(-1, 1, 100_001)])
    values = monic(roots, u[(u >= -1) & (u <= 1)])
    assert low == pytest.approx(values.min(), rel=1e-7)
    assert low <= values.min() * (1 + 1e-12)
    assert high == pytest.approx(values.max(), rel=1e-7)


def test_a_root_on_the_interval_makes_the_minimum_negative() -> None:
    assert extremes(np.array([0.3 + 0j]), (-1.0, 1.0))[0] < 0
    assert extremes(np.array([2.0 + 0j]), (-1.0, 1.0)) == (1.0, 3.0)
