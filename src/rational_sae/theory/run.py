"""All measurements as one dictionary, and that as files: theory.json and its figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rational_sae.support.files import write_whole
from rational_sae.support.outputs import THEORIES, THEORY, check_out, written
from rational_sae.support.progress import Progress, Silent
from rational_sae.theory import converse, measured
from rational_sae.theory.rates import symmetric_gap, zolotarev_decay

PAPER_EXPONENT = 0.5
"""Of the converse, for every family (arXiv 2606.14990)."""


def measure_theory(progress: Progress | None = None) -> dict[str, Any]:
    """`points`, `decay`, `needs` and `exponents`, as plain numbers. About a minute on one core."""
    progress = progress or Silent()
    progress.stage("approximation rates", measured.COUNT)
    points = list(measured.points(progress.advance))
    progress.stage("converse", len(converse.EPSILONS))
    needs = list(converse.needs(progress.advance))
    return {
        "eta": converse.ETA,
        "threshold": measured.THRESHOLD,
        "points": [asdict(point) for point in points],
        "decay": _decays(points),
        "needs": [asdict(need) for need in needs],
        "exponents": _exponents(needs),
    }


def _decays(points: list[measured.Point]) -> list[dict[str, Any]]:
    """−d log E / d degree over the last two degrees of each gap, beside Zolotarev's rate."""
    found = []
    for statement in ("sign", "jumprelu", "topk"):
        for gap in sorted({point.gap for point in points if point.statement == statement}):
            a, b = [point for point in points if (point.statement, point.gap) == (statement, gap)][-2:]
            slope = float(np.log(a.error / b.error)) / (b.degree - a.degree)
            effective = symmetric_gap(measured.THRESHOLD, gap) if statement == "jumprelu" else gap
            found.append({"statement": statement, "gap": gap, "decay": slope, "predicted": zolotarev_decay(effective)})
    return found


def _exponents(needs: list[converse.Need]) -> list[dict[str, Any]]:
    found = []
    for family in ("relu", "jumprelu", "topk"):
        rows = [need for need in needs if need.family == family]
        epsilon = np.array([need.epsilon for need in rows])
        for key in ("width", "active_max", "active_mean"):
            fitted = converse.exponent(epsilon, np.array([float(getattr(need, key)) for need in rows]))
            found.append({"family": family, "count": key, **asdict(fitted), "paper": PAPER_EXPONENT})
    return found


def write_theory(found: dict[str, Any], out: Path, *, overwrite: bool = False) -> None:
    """theory.json and theory-*.png in `out`, all or nothing. Raises OutputError if `out` holds something (`overwrite`:
    if it holds files of these names that `rsae theory` did not write) or cannot be written."""
    from rational_sae.theory.figures import save_theory_figures

    check_out(out, THEORIES, overwrite=overwrite)
    with written(out, THEORIES) as partial:
        save_theory_figures(found, partial)
        write_whole(partial / THEORY, json.dumps(found, indent=1, allow_nan=False) + "\n")
