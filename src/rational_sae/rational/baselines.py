"""Methods that are used elsewhere and measured here: neither is certified, neither is a default (docs/fits.md)."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray

from rational_sae.errors import FitError
from rational_sae.rational.forms import SafePade

Array = NDArray[np.float64]

ADAM_STEPS, ADAM_RATE = 3000, 1e-3
"""A heuristic; docs/fits.md has what they reach."""
SHARPNESS = 50.0
"""Of the smoothed maximum: its gradient is spread over points within some 2 % of the largest error (a heuristic)."""
NEAR_POINTS = 256
"""Points with the largest errors, that the smoothed maximum is taken over."""


def aaa(t: Array, f: Array, type: tuple[int, int]) -> tuple[Array, Array]:  # noqa: A002
    """P and Q of SciPy's AAA with m = q + 1 support points, which has type (q, q). t, f: [N].

    Raises FitError where p < q: AAA has no such type.
    """
    from scipy.interpolate import AAA  # a quarter of a second that only this baseline should cost

    p, q = type
    if p < q:
        raise FitError(f"AAA has no type ({p},{q})", "use p >= q, or another method")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # AAA warns that q + 1 terms do not reach its tolerance
        found = AAA(t, f, max_terms=q + 1, clean_up=False)
    denominator = polynomial.polyfromroots(found.poles()).real
    points = np.cos(np.linspace(0, np.pi, 401))
    values = found(points)
    sane = np.isfinite(values)
    powers = polynomial.polyvander(points[sane], q)
    numerator = np.linalg.lstsq(powers, values[sane] * polynomial.polyval(points[sane], denominator), rcond=None)[0]
    return numerator, denominator


def adam(t: Array, f: Array, type: tuple[int, int]) -> SafePade:  # noqa: A002
    """Adam on a smoothed max |r − f| over the grid in safe-Padé coefficients about 0 (RationalNet's way); the step
    with the least true maximum is kept.

    t, f: [N]. Starts from the least-squares polynomial, with small b: b = 0 has no gradient through |·|.
    """
    import torch

    p, q = type
    start = np.polynomial.Polynomial.fit(t, f, p, domain=(-1, 1), window=(-1, 1)).coef
    a = torch.tensor(np.pad(start, (0, p + 1 - len(start))), requires_grad=True)
    b = torch.full((q,), 0.01, dtype=torch.float64, requires_grad=True)
    powers = torch.from_numpy(polynomial.polyvander(t, max(p, q)))
    wanted = torch.from_numpy(f)
    optimizer = torch.optim.Adam([a, b], lr=ADAM_RATE)
    best, lowest = (a.detach().clone(), b.detach().clone()), float("inf")
    for _ in range(ADAM_STEPS):
        error = (powers[:, : p + 1] @ a) / (1 + (powers[:, 1 : q + 1] @ b).abs()) - wanted
        largest = error.detach().abs().max()
        if float(largest) < lowest:
            best, lowest = (a.detach().clone(), b.detach().clone()), float(largest)
        sharpness = SHARPNESS / largest
        near = error.abs().topk(min(NEAR_POINTS, len(t))).values  # the others weigh next to nothing
        loss = (sharpness * near).logsumexp(0) / sharpness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return SafePade(best[0].numpy(), best[1].numpy(), 0.0)
