"""Per-document sums → the metrics (docs/evaluation.md), their bootstrap intervals and paired differences.

A bootstrap resample is a vector of document weights, and every metric is a function of weighted sums; so all resamples
of all rows are computed at once, and a difference uses the same resamples on both sides (it is paired).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rational_sae.evaluation.firing import firing
from rational_sae.evaluation.measure import Measurements, RowSums

RESAMPLES = 2000
COVERAGE = 0.95

SAME_L0 = 0.01
"""Relative difference of L0 up to which a row whose L0 cannot move (a TopK, a smooth gate) is compared as it is."""

Figures = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Results:
    """What a report's table holds."""

    rows: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, list[float]]]
    differences: dict[str, dict[str, dict[str, float | list[float]]]]
    further: dict[str, Any] = field(default_factory=dict)
    """Other sections of a report: `warnings`, `firing`, `probing`, `absorption`, `features`, where there are any."""

    def report(self) -> dict[str, Any]:
        """As in report.json."""
        return {
            "rows": self.rows,
            "intervals": self.intervals,
            "differences": self.differences,
            **self.further,
        }


def results(sums: Measurements, compare: list[tuple[str, str]], *, seed: int = 0) -> Results:
    """Values, 95 % intervals and paired differences. compare: pairs (row, baseline)."""
    documents = len(sums.tokens)
    rng = np.random.default_rng(seed)
    resampled = rng.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    weights = np.vstack(
        [np.ones(documents), resampled.astype(np.float64)]
    )  # [1 + RESAMPLES, documents]; the first is the sample itself
    figures = {name: _figures(sums, name, weights) for name in sums.rows}
    alive = {name: float((row.fired > 0).double().mean()) for name, row in sums.rows.items()}
    return Results(
        {
            name: {key: float(v[0]) for key, v in row.items()} | {"alive_fraction": alive[name]}
            for name, row in figures.items()
        },
        {name: {key: _interval(v) for key, v in row.items()} for name, row in figures.items()},
        {
            f"{row} - {base}": {
                key: {"value": float(d[0]), "interval": _interval(d)}
                for key in figures[row]
                if key in figures[base]
                for d in [figures[row][key] - figures[base][key]]
            }
            for row, base in compare
            if row in figures and base in figures
        },
        {"firing": firing(sums)},
    )


def _figures(sums: Measurements, name: str, weights: NDArray[np.float64]) -> Figures:
    """Every metric of one row: [1 + RESAMPLES] each."""
    row = sums.rows[name]
    tokens = weights @ sums.tokens.numpy()
    predictions = weights @ sums.predictions.numpy()
    centre, squared = weights @ sums.x.numpy(), weights @ sums.x_squared.numpy()
    if name in sums.centred:
        centre, squared = centre - centre.mean(-1, keepdims=True), squared - weights @ sums.x_mean_squared.numpy()
    variance = squared - (centre**2).sum(-1) / tokens
    ce = {kind: weights @ column.numpy() / predictions for kind, column in sums.ce.items()}

    everywhere = {kind: weights @ column.numpy() for kind, column in sums.everywhere.items()}
    ce_everywhere = weights @ row.ce_everywhere.numpy()

    def reconstruction(part: RowSums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return weights @ part.squared_error.numpy() / variance, weights @ part.ce.numpy() / predictions

    fvu, ce_sae = reconstruction(row)
    figures = {
        "mse": weights @ row.squared_error.numpy() / tokens,
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "l0": weights @ row.l0.numpy() / tokens,
        "l0_eps": weights @ row.l0_eps.numpy() / tokens,
        "ce_clean": ce["clean"],
        "ce_sae": ce_sae,
        "ce_zero": ce["zero"],
        "ce_mean": ce["mean"],
        "delta_ce": ce_sae - ce["clean"],
        "loss_recovered": (ce["zero"] - ce_sae) / (ce["zero"] - ce["clean"]),
        "loss_recovered_mean": (ce["mean"] - ce_sae) / (ce["mean"] - ce["clean"]),
        "ce_loss_score": (everywhere["zero"] - ce_everywhere) / (everywhere["zero"] - everywhere["clean"]),
        "kl": weights @ row.kl.numpy() / predictions,
        "top1_agreement": weights @ row.agreed.numpy() / predictions,
    }
    if name in sums.at_l0 or _has_reference_l0(sums, name):
        fvu_at_l0, ce_at_l0 = reconstruction(sums.at_l0.get(name, row))
        figures |= {"fvu_at_l0": fvu_at_l0, "delta_ce_at_l0": ce_at_l0 - ce["clean"]}
    return figures


def _has_reference_l0(sums: Measurements, name: str) -> bool:
    """Whether a row that was not moved can stand for itself at the reference's L0."""
    reference = sums.rows.get(sums.reference)
    return reference is not None and abs(float(sums.rows[name].l0.sum() / reference.l0.sum()) - 1) <= SAME_L0


def _interval(values: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(values[1:], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return [float(low), float(high)]
