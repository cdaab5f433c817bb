"""Targets: exact values, approximation sets, scaling, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from rational_sae.errors import FitError
from rational_sae.rational import Target, target

T = np.array([-1.0, -0.5, 0.05, 0.2, 1.0])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("relu", [0, 0, 0.05, 0.2, 1]),
        ("jumprelu", [0, 0, 0, 0.2, 1]),
        ("step", [0, 0, 0, 1, 1]),
        ("sign", [-1, -1, 1, 1, 1]),
    ],
)
def test_values_are_the_exact_gate(name: str, values: list[float]) -> None:
    np.testing.assert_array_equal(target(name)(T), np.array(values, dtype=np.float64))


def test_the_set_leaves_out_the_gap_and_relu_has_none() -> None:
    assert target("relu").domain == ((-1.0, 1.0),)
    assert target("jumprelu", 0.1, 0.02).domain == ((-1.0, 0.1 - 0.02), (0.1 + 0.02, 1.0))
    assert target("sign", gap=0.25).domain == ((-1.0, -0.25), (0.25, 1.0))


@pytest.mark.parametrize("name", ["relu", "jumprelu", "step", "sign"])
@pytest.mark.parametrize(("t_factor", "f_factor"), [(1e-6, 1.0), (1e6, -2.0), (3.0, 1e6)])
def test_scaled_target_is_the_same_function_in_other_units(name: str, t_factor: float, f_factor: float) -> None:
    plain = target(name)
    scaled = plain.scaled(t_factor, f_factor)
    np.testing.assert_allclose(scaled(t_factor * T), f_factor * plain(T), rtol=1e-14)
    assert scaled.magnitude == pytest.approx(abs(f_factor), rel=1e-14)
    assert scaled.normalised().threshold == pytest.approx(plain.threshold, rel=1e-14)
    assert scaled.normalised().gap == pytest.approx(plain.gap, rel=1e-14)


@pytest.mark.parametrize(
    ("name", "threshold", "gap", "message"),
    [
        ("tanh", None, None, "unknown target 'tanh'; use one of relu, jumprelu, step, sign"),
        ("jumprelu", 0.1, 0.0, "needs a gap around its jump"),
        ("step", 0.1, -0.01, "needs a gap around its jump"),
        ("relu", 0.1, None, "relu takes no threshold and no gap"),
        ("relu", None, 0.1, "relu takes no threshold and no gap"),
        ("sign", 0.99, 0.02, "leaves nothing on one side"),
        ("step", float("nan"), 0.02, "not finite"),
    ],
)
def test_impossible_targets_are_refused_with_a_remedy(
    name: str, threshold: float | None, gap: float | None, message: str
) -> None:
    with pytest.raises(FitError, match=message) as caught:
        target(name, threshold, gap)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_radius_and_height_must_make_sense() -> None:
    with pytest.raises(FitError, match="radius must be positive"):
        Target("relu", radius=0.0)
    with pytest.raises(FitError, match="radius must be positive"):
        Target("relu", height=0.0)
