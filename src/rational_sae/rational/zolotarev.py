"""Zolotarev's best rational approximants of sign on a symmetric gap set, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ellipj, ellipkm1

from rational_sae.errors import FitError
from rational_sae.rational.conversion import from_poles
from rational_sae.rational.forms import PartialFractions

Array = NDArray[np.float64]


def zolotarev_nodes(degree: int, gap: float) -> Array:
    """[degree − 1] numbers c_l = δ² sc²(l K / n), n = degree: odd l are minus the squared poles, even l
    minus the squared zeros (Akhiezer, Elements of the Theory of Elliptic Functions, §50)."""
    order = np.arange(1, degree)
    sn, cn, _, _ = ellipj(order * ellipkm1(gap * gap) / degree, 1 - gap * gap)
    return np.asarray((gap * sn / cn) ** 2)


def zolotarev_sign(degree: int, gap: float) -> PartialFractions:
    """The best approximant of sign on [−1, −gap] ∪ [gap, 1] with denominators of degree at most `degree`.

    Its type is (degree − 1, degree) for an even degree and (degree, degree − 1) for an odd one; an even
    one is written with e₁ = 0. The error peaks alternate at ±gap / dn(jK/n), j = 0 … n.
    """
    if degree < 2 or not 0 < gap < 1:
        raise FitError(f"no Zolotarev approximant of degree {degree} for gap {gap:g}", "use degree >= 2, gap in (0, 1)")
    nodes = zolotarev_nodes(degree, gap)
    zeros, squared_poles = nodes[1::2], nodes[0::2]

    def shape(t: Array) -> Array:
        squared = (t * t)[:, None]
        return t * np.prod(squared + zeros, axis=1) / np.prod(squared + squared_poles, axis=1)

    dn = ellipj(np.array([0, 1]) * ellipkm1(gap * gap) / degree, 1 - gap * gap)[2]
    factor = 2 / np.sum(shape(gap / dn))
    t = np.geomspace(gap / 100, 1, 400)
    t = np.concatenate([-t[::-1], t])
    return from_poles(1j * np.sqrt(squared_poles), t, factor * shape(t))
