"""What a metric is, and what it is computed from: tokens, predictions, and sums of both over documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[np.float64]

Table = Literal["headline", "further", "floor", "probing", "suite", "latent", "absorption"]
"""Where a metric is shown: in the main table, under "More metrics", by `rsae headroom`, with the probes, with the suite
of probing tasks, of a latent, of absorption."""


@dataclass(frozen=True)
class Tokens:
    """An SAE on some kept tokens."""

    x: Tensor
    """[n, d_in] float32 residual vectors."""
    x_hat: Tensor
    """[n, d_in] float32 reconstructions."""
    z: Tensor
    """[n, d_sae] codes."""
    active: Tensor
    """[n, d_sae] bool: z ≠ 0."""
    above_epsilon: Tensor
    """[n] int64: codes above the stated ε, for a gate that is never exactly 0; for any other those that are active."""


@dataclass(frozen=True)
class Guesses:
    """Next-token predictions at some positions: of the clean model, and with x replaced."""

    log_p: Tensor
    """[m, vocabulary] float32: clean log-probabilities."""
    log_q: Tensor
    """[m, vocabulary] float32: log-probabilities with x replaced."""
    likeliest: Tensor
    """[m] int64: the clean model's likeliest tokens."""
    labels: Tensor
    """[m] int64: the tokens that really come next."""


@dataclass(frozen=True)
class TokenColumn:
    """A number of every kept token, summed over each document."""

    name: str
    of: Callable[[Tokens], Tensor]
    """→ [n]"""


@dataclass(frozen=True)
class PredictionColumn:
    """A number of every predicted position, summed over each document."""

    name: str
    of: Callable[[Guesses], Tensor]
    """→ [m]"""


Column = TokenColumn | PredictionColumn


@dataclass(frozen=True)
class Sums:
    """One row's sums over documents: arrays of [1 + resamples], the sample itself first."""

    tokens: Array
    """Kept positions."""
    predictions: Array
    """Kept positions that have a next token."""
    variance: Array
    """Σ‖x − x̄‖²"""
    ce: Mapping[str, Array]
    """Mean next-token cross-entropy, `clean`, `zero` and `mean`: with x untouched, 0 in its place, its mean;
    empty without a language model."""
    everywhere: Mapping[str, Array]
    """Sums of cross-entropy over every position with a next token: `clean`, `zero` and `sae`, written at every
    position; empty where that was not measured."""
    columns: Mapping[str, Array]
    """Column → its sums."""
    fired: NDArray[np.int64]
    """[d_sae] tokens of the sample on which each latent was active."""
    at_l0: Sums | None = None
    """The same with thresholds moved so that L0 is the teacher's; None where they cannot be."""


@dataclass(frozen=True)
class Metric:
    """One metric, whole."""

    name: str
    """Its key in report.json."""
    label: str
    """Heading of its column."""
    words: str
    """What it is, in the glossary."""
    unit: str = ""
    """"" for a share, a ratio or a count."""
    better: Literal["lower", "higher"] | None = None
    """Which direction is an improvement; None where the metric is held or only a reference."""
    table: Table = "further"
    decimals: int | None = 4
    """Digits after the point; None shows four significant digits."""
    sums: tuple[Column, ...] = ()
    """What `of` needs of `Sums.columns`; metrics may share a column. A row without one has no such metric."""
    of: Callable[[Sums], Array | None] | None = None
    """→ [1 + resamples]; or one number, which gets no interval; or None where a row has none. Without it the metric is
    not measured by `evaluation.results` but put beside its figures."""
    weighed: bool = False
    """Whether the answer at the top of a report lists it, beside FVU and ΔCE."""
    relative: bool = False
    """Whether a difference as a share of the base means something: it is ≥ 0, and 0 is perfect."""
