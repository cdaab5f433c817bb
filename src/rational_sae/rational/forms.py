"""Rational functions as the package stores them: partial fractions and centred safe-Padé.

Both are frozen, hold float64, evaluate on arrays of any shape, and go to and from dictionaries that
name their form and version: coefficients fitted for one form are never evaluated in another.
Conversions between them are in `conversion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rational_sae.errors import FitError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PartialFractions:
    """r(t) = e₀ + e₁t + Σ_k (α_k (t − x_k) + β_k y_k) / ((t − x_k)² + y_k²), y_k = exp(η_k) > 0.

    Type (2K + 1, 2K), 4K + 2 numbers, no pole on the real line whatever the numbers are.
    """

    e0: float
    """Constant term."""
    e1: float
    """Slope at infinity."""
    alpha: Array
    """[K], odd residues."""
    beta: Array
    """[K], even residues."""
    x: Array
    """[K], real parts of the poles."""
    eta: Array
    """[K], logarithms of the poles' imaginary parts."""

    form: ClassVar[str] = "partial_fractions"
    version: ClassVar[int] = 1
    FIELDS: ClassVar[tuple[str, ...]] = ("alpha", "beta", "x", "eta")

    def __post_init__(self) -> None:
        for name in ("e0", "e1"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in self.FIELDS:
            object.__setattr__(self, name, _vector(getattr(self, name), name))
        if len({len(getattr(self, name)) for name in self.FIELDS}) != 1:
            raise FitError("alpha, beta, x and eta differ in length", "give one number of each for a pole")
        if not (np.isfinite(self.e0) and np.isfinite(self.e1)):
            raise FitError("e0 or e1 is not finite", "fit again")

    @property
    def type(self) -> tuple[int, int]:
        """(p, q), the degrees of numerator and denominator."""
        return 2 * len(self.x) + 1, 2 * len(self.x)

    @property
    def y(self) -> Array:
        """[K], imaginary parts of the poles, positive."""
        return np.exp(self.eta)

    @property
    def roots(self) -> NDArray[np.complex128]:
        """[2K], the denominator's roots: x ± iy."""
        upper = self.x + 1j * self.y
        return np.concatenate([upper, upper.conj()])

    def __call__(self, t: ArrayLike) -> Array:
        """r(t), of the shape of t."""
        t = np.asarray(t, dtype=np.float64)
        u, y = t[..., None] - self.x, self.y
        return self.e0 + self.e1 * t + np.sum((self.alpha * u + self.beta * y) / (u * u + y * y), axis=-1)

    def derivative(self, t: ArrayLike) -> Array:
        """r′(t), of the shape of t."""
        t = np.asarray(t, dtype=np.float64)
        u, y = t[..., None] - self.x, self.y
        squared = u * u + y * y
        slope = (self.alpha - 2 * u * (self.alpha * u + self.beta * y) / squared) / squared
        return self.e1 + np.sum(slope, axis=-1)

    def scaled(self, t_factor: float, f_factor: float) -> PartialFractions:
        """The function s with s(t_factor · t) = f_factor · r(t); t_factor > 0."""
        return PartialFractions(
            e0=self.e0 * f_factor,
            e1=self.e1 * f_factor / t_factor,
            alpha=self.alpha * (f_factor * t_factor),
            beta=self.beta * (f_factor * t_factor),
            x=self.x * t_factor,
            eta=self.eta + np.log(t_factor),
        )

    def shifted(self, by: float) -> PartialFractions:
        """The function s with s(t + by) = r(t)."""
        return PartialFractions(self.e0 - self.e1 * by, self.e1, self.alpha, self.beta, self.x + by, self.eta)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, with the form and its version."""
        numbers = {name: getattr(self, name).tolist() for name in self.FIELDS}
        return {"form": self.form, "version": self.version, "e0": self.e0, "e1": self.e1, **numbers}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; another form or version is refused."""
        _check_form(data, cls.form, cls.version)
        return cls(**_numbers(data, ("e0", "e1", *cls.FIELDS)))


@dataclass(frozen=True, eq=False)
class SafePade:
    """r(t) = Σ_i a_i u^i / (1 + |Σ_{j≥1} b_j u^j|), u = t − c: the paper's form, centred.

    About c = argmin Q the inner sum is never negative at a minimax fit, so the form is exact there; about
    0 it cannot write a JumpReLU optimum at all.
    """

    a: Array
    """[p + 1], numerator, ascending powers of t − c."""
    b: Array
    """[q], denominator, powers 1 to q of t − c."""
    c: float
    """The centre."""

    form: ClassVar[str] = "centred_safe_pade"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "a", _vector(self.a, "a"))
        object.__setattr__(self, "b", _vector(self.b, "b"))
        object.__setattr__(self, "c", float(self.c))
        if len(self.a) == 0 or not np.isfinite(self.c):
            raise FitError("safe-Padé needs a numerator and a finite centre", "fit again")

    @property
    def type(self) -> tuple[int, int]:
        """(p, q), the degrees of numerator and denominator."""
        return len(self.a) - 1, len(self.b)

    def __call__(self, t: ArrayLike) -> Array:
        """r(t), of the shape of t."""
        u = np.asarray(t, dtype=np.float64) - self.c
        inner = np.polynomial.polynomial.polyval(u, np.concatenate([[0.0], self.b]))
        return np.polynomial.polynomial.polyval(u, self.a) / (1 + np.abs(inner))

    def scaled(self, t_factor: float, f_factor: float) -> SafePade:
        """The function s with s(t_factor · t) = f_factor · r(t); t_factor > 0."""
        powers = t_factor ** -np.arange(max(len(self.a), len(self.b) + 1), dtype=np.float64)
        a, b = self.a * f_factor * powers[: len(self.a)], self.b * powers[1 : len(self.b) + 1]
        return SafePade(a, b, self.c * t_factor)

    def shifted(self, by: float) -> SafePade:
        """The function s with s(t + by) = r(t)."""
        return SafePade(self.a, self.b, self.c + by)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, with the form and its version."""
        lists = {"a": self.a.tolist(), "b": self.b.tolist()}
        return {"form": self.form, "version": self.version, "c": self.c, **lists}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; another form or version is refused."""
        _check_form(data, cls.form, cls.version)
        return cls(**_numbers(data, ("a", "b", "c")))


def _vector(values: ArrayLike, name: str) -> Array:
    """A read-only float64 copy, one-dimensional and finite."""
    vector = np.array(values, dtype=np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise FitError(f"{name} must be a list of finite numbers", "fit again")
    vector.setflags(write=False)
    return vector


def _check_form(data: Mapping[str, Any], form: str, version: int) -> None:
    if data.get("form") != form or data.get("version") != version:
        found = f"{data.get('form')!r} version {data.get('version')!r}"
        raise FitError(f"coefficients are {found}, not {form!r} version {version}", "fit again")


def _numbers(data: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    missing = [name for name in names if name not in data]
    if missing:
        raise FitError(f"coefficients lack {', '.join(missing)}", "fit again")
    try:
        return {name: np.asarray(data[name], dtype=np.float64)[()] for name in names}
    except (TypeError, ValueError) as error:
        raise FitError(f"coefficients are not numbers ({error})", "fit again") from error
