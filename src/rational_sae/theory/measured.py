"""Best errors of sign, ReLU, JumpReLU and a supplied-threshold TopK, measured beside their rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rational_sae.rational import fit, target, zolotarev_sign
from rational_sae.theory.rates import relu_error, sign_error, symmetric_gap

GAPS = (0.2, 0.05, 0.01, 0.001)
SIGN_DEGREES = (3, 5, 7, 9, 11, 13)
RELU_DEGREES = (2, 4, 6, 8, 10, 12)
JUMP_DEGREES = (2, 4, 6, 8)
JUMP_GAPS = (0.1, 0.02, 0.005)
THRESHOLD = 0.2
TOKENS, LATENTS, ACTIVE = 2000, 512, 16
"""Size of the TopK experiment: Gaussian pre-activations."""


@dataclass(frozen=True)
class Point:
    """One best error and its prediction."""

    statement: str
    """sign, relu, jumprelu or topk."""
    degree: int
    """Of the denominator (for sign and topk, of the whole function)."""
    gap: float
    """δ; 0 for relu."""
    error: float
    predicted: float
    """The leading term for sign and relu, an upper bound for jumprelu and topk."""
    closed_form: float | None = None
    """Zolotarev's error, for sign."""


def points(told: Callable[[], None] = lambda: None) -> Iterator[Point]:
    """All measurements; `told` is called after each. About a minute on one core."""
    for maker in (_sign, _relu, _jumprelu, _topk):
        for point in maker():
            yield point
            told()


COUNT = len(GAPS) * len(SIGN_DEGREES) + len(RELU_DEGREES) + 2 * len(JUMP_GAPS) * len(JUMP_DEGREES)
"""How many points there are."""


def _sign() -> Iterator[Point]:
    for gap in GAPS:
        for degree in SIGN_DEGREES:
            found = fit(target("sign", 0.0, gap), (degree, degree - 1), throw=False)
            t = np.geomspace(gap, 1.0, 200_001)
            exact = float(np.max(np.abs(zolotarev_sign(degree, gap)(t) - 1)))
            yield Point("sign", degree, gap, found.error, sign_error(degree, gap), exact)


def _relu() -> Iterator[Point]:
    for q in RELU_DEGREES:
        yield Point("relu", q, 0.0, fit("relu", (q + 1, q)).error, relu_error(q))


def _jumprelu() -> Iterator[Point]:
    """The bound takes h·(1 + s)/2 with s the sign of the set, of degree q: half of its error, times |h| ≤ 1."""
    for gap in JUMP_GAPS:
        for q in JUMP_DEGREES:
            found = fit(target("jumprelu", THRESHOLD, gap), (q + 1, q), throw=False)
            yield Point("jumprelu", q, gap, found.error, sign_error(q, symmetric_gap(THRESHOLD, gap)) / 2)


def _topk() -> Iterator[Point]:
    """h·(1 + s((h − τ)/H))/2 on real top-k problems whose k-th and next values lie 2δH apart or more.

    τ is half-way between the two and H the largest |h − τ|; the error is relative to the largest |h|. The bound is
    half of Zolotarev's error for the gap asked for.
    """
    rng = np.random.default_rng(0)
    h = rng.standard_normal((TOKENS, LATENTS))
    ranked = np.sort(h, axis=1)[:, ::-1]
    tau = (ranked[:, ACTIVE - 1] + ranked[:, ACTIVE]) / 2
    span = np.max(np.abs(h - tau[:, None]), axis=1)
    half_gap = (ranked[:, ACTIVE - 1] - ranked[:, ACTIVE]) / 2 / span
    for gap in JUMP_GAPS:
        # Gaussian rows rarely have a wide gap; those that do not are moved apart, order kept.
        short = np.clip(gap - half_gap, 0, None) * span / (1 - gap)
        moved = h + np.where(h > tau[:, None], short[:, None], -short[:, None])
        wide = span + short
        for degree in JUMP_DEGREES:
            s = zolotarev_sign(degree, gap)((moved - tau[:, None]) / wide[:, None])
            exact = np.where(moved > tau[:, None], moved, 0.0)
            error = np.abs(moved * (1 + s) / 2 - exact) / np.max(np.abs(moved), axis=1, keepdims=True)
            yield Point("topk", degree, gap, float(error.max()), sign_error(degree, gap) / 2)
