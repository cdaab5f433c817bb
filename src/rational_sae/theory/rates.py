"""What theory predicts, in closed form."""

from __future__ import annotations

import math

from scipy.special import ellipk, ellipkm1


def zolotarev_decay(gap: float) -> float:
    """c(δ) with E_n ≈ 4 exp(−c n): the exact exponential rate of the best rational sign on [−1, −δ] ∪ [δ, 1].

    c = π K(δ) / K(√(1 − δ²)), moduli in brackets: Zolotarev's function of degree n is the transformation of degree n of
    elliptic functions, which raises the nome to the n-th power (Akhiezer, Elements of the Theory of Elliptic
    Functions, §50). For small δ, c ≈ π² / (2 log(4/δ)).
    """
    return math.pi * float(ellipk(gap * gap)) / float(ellipkm1(gap * gap))


def sign_error(degree: int, gap: float) -> float:
    """Leading term of the best error of sign with denominators of degree at most `degree`; relative error O(E²)."""
    return 4 * math.exp(-zolotarev_decay(gap) * degree)


def relu_error(q: int) -> float:
    """Leading term for ReLU on [−1, 1] with type (q + 1, q): half of Stahl's 8 exp(−π√q) for |x| (1993)."""
    return 4 * math.exp(-math.pi * math.sqrt(q))


def symmetric_gap(threshold: float, gap: float) -> float:
    """δ′ of the symmetric gap set that a Möbius map takes [−1, θ − δ] ∪ [θ + δ, 1] to; rates depend on it alone.

    From the cross-ratio of the four ends (Beckermann and Townsend, SIAM Review 61, 2019, §3).
    """
    a, b, c, d = -1.0, threshold - gap, threshold + gap, 1.0
    ratio = (c - a) * (d - b) / ((c - b) * (d - a))
    return 1 / (-1 + 2 * ratio + 2 * math.sqrt(ratio * ratio - ratio))
