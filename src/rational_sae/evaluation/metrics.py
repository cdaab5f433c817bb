"""Per-document sums → the values of all metrics, their bootstrap intervals and paired differences.

A bootstrap resample is a vector of document weights, and every metric is a function of weighted sums; so all resamples
of all rows are computed at once, and a difference uses the same resamples on both sides (it is paired).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rational_sae.evaluation.firing import firing
from rational_sae.evaluation.measure import Measurements, RowSums
from rational_sae.metrics import METRICS, Sums

RESAMPLES = 2000
COVERAGE = 0.95

SAME_L0 = 0.01
"""Relative difference of L0 up to which a row whose L0 cannot move (a TopK, a smooth gate) is compared as it is."""

Figures = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Way:
    """Which share of the way from the reference row's FVU to a floor's a row has gone."""

    row: str
    floor: str
    """The row that is the floor; it needs no more codes than the reference has."""
    metric: str
    """Under which name it stands among the row's figures."""


@dataclass(frozen=True)
class Results:
    """What a report's table holds."""

    rows: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, list[float]]]
    differences: dict[str, dict[str, dict[str, float | list[float]]]]
    further: dict[str, Any] = field(default_factory=dict)
    """Other sections of a report, where there are any: `data`, `warnings`, `firing`, `probing`, `absorption`,
    `features`."""

    def report(self) -> dict[str, Any]:
        """As in report.json."""
        return {
            "rows": self.rows,
            "intervals": self.intervals,
            "differences": self.differences,
            **self.further,
        }


def results(sums: Measurements, compare: list[tuple[str, str]], *, ways: Sequence[Way] = (), seed: int = 0) -> Results:
    """Values, 95 % intervals and paired differences. compare: pairs (row, baseline).

    ways: further figures of rows, left out where a row has no FVU at the reference's L0, or where the reference lies
    no higher than the floor.
    """
    documents = len(sums.tokens)
    rng = np.random.default_rng(seed)
    resampled = rng.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    weights = np.vstack(
        [np.ones(documents), resampled.astype(np.float64)]
    )  # [1 + RESAMPLES, documents]; the first is the sample itself
    figures = {name: _figures(sums, name, weights) for name in sums.rows}
    for way in ways:
        figures[way.row] |= _gone(figures, sums.reference, way)
    return Results(
        {name: {key: float(v.flat[0]) for key, v in row.items()} for name, row in figures.items()},
        {name: {key: _interval(v) for key, v in row.items() if v.ndim} for name, row in figures.items()},
        {
            f"{row} - {base}": {
                key: {"value": float(d[0]), "interval": _interval(d)}
                for key in figures[row]
                if key in figures[base] and figures[row][key].ndim
                for d in [figures[row][key] - figures[base][key]]
            }
            for row, base in compare
            if row in figures and base in figures
        },
        {
            "firing": firing(sums),
            "data": {"test_tokens": int(sums.tokens.sum()), "test_documents": documents},
        },
    )


def _figures(sums: Measurements, name: str, weights: NDArray[np.float64]) -> Figures:
    """Every metric that a row has: [1 + RESAMPLES] each, or one number."""
    of_row = _sums(sums, name, weights)
    known = of_row.columns.keys()
    had = {key: one for key, one in METRICS.items() if all(column.name in known for column in one.sums)}
    found = ((key, one.of(of_row)) for key, one in had.items() if one.of)
    return {key: np.asarray(values) for key, values in found if values is not None}


def _gone(figures: Mapping[str, Figures], reference: str, way: Way) -> Figures:
    start, end = figures[reference]["fvu"], figures[way.floor]["fvu"]
    reached = figures[way.row].get("fvu_at_l0")
    if reached is None or start[0] <= end[0]:
        return {}
    return {way.metric: (start - reached) / (start - end)}


def _sums(sums: Measurements, name: str, weights: NDArray[np.float64]) -> Sums:
    """One row's sums over documents, resampled. weights: [1 + RESAMPLES, documents]."""
    row = sums.rows[name]
    tokens = weights @ sums.tokens.numpy()
    predictions = weights @ sums.predictions.numpy()
    centre, squared = weights @ sums.x.numpy(), weights @ sums.x_squared.numpy()
    if name in sums.centred:
        centre, squared = centre - centre.mean(-1, keepdims=True), squared - weights @ sums.x_mean_squared.numpy()
    everywhere = {**sums.everywhere, "sae": row.ce_everywhere} if name in sums.written_everywhere else {}
    own = Sums(
        tokens=tokens,
        predictions=predictions,
        variance=squared - (centre**2).sum(-1) / tokens,
        ce={kind: weights @ column.numpy() / predictions for kind, column in sums.ce.items()},
        everywhere={kind: weights @ column.numpy() for kind, column in everywhere.items()},
        columns=_weighted(row, weights),
        fired=row.fired.numpy(),
    )
    if name in sums.at_l0:
        return replace(own, at_l0=replace(own, columns=_weighted(sums.at_l0[name], weights)))
    return replace(own, at_l0=own) if _has_reference_l0(sums, name) else own


def _weighted(row: RowSums, weights: NDArray[np.float64]) -> Figures:
    return {name: weights @ column.numpy() for name, column in row.columns.items()}


def _has_reference_l0(sums: Measurements, name: str) -> bool:
    """Whether a row that was not moved can stand for itself at the reference's L0."""
    if sums.reference not in sums.rows:
        return False
    own, reference = (sums.rows[one].columns["l0"].sum() for one in (name, sums.reference))
    return abs(float(own / reference) - 1) <= SAME_L0


def _interval(values: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(values[1:], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return [float(low), float(high)]
