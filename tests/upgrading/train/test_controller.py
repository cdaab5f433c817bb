"""The L0 controller: converges on a plant like ours, stays bounded, reports excursions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rational_sae.upgrading.train.controller import BAND, SPAN, SparsityController


@given(best=st.floats(0.02, 0.5), start=st.floats(0.02, 0.5), speed=st.floats(0.002, 0.02))
def test_l0_settles_within_one_percent_on_a_plant_that_integrates_the_weight(
    best: float, start: float, speed: float
) -> None:
    controller = SparsityController(32.0, start)
    log_l0 = math.log(32.0)
    for _ in range(1500):
        log_l0 -= speed * math.tanh(math.log(controller.weight / best))  # Adam: bounded steps
        controller.update(math.exp(log_l0))
    assert math.exp(log_l0) == pytest.approx(32.0, rel=0.01)


@given(l0=st.floats(0, 1e5))
def test_the_weight_is_bounded_whatever_the_l0(l0: float) -> None:
    controller = SparsityController(32.0, 0.1)
    for _ in range(300):
        controller.update(l0)
        assert controller.weight * (1 + 1e-9) >= 0.1 / SPAN
        assert controller.weight <= 0.1 * SPAN * (1 + 1e-9)


def test_leaving_the_band_is_reported() -> None:
    controller = SparsityController(32.0, 0.1)
    assert not controller.update(32.0 * math.exp(0.9 * BAND))
    assert controller.update(32.0 * math.exp(1.1 * BAND))
    assert controller.update(32.0 * math.exp(-1.1 * BAND))
