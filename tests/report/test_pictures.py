"""What charts put where: labels apart, and no spike where a threshold moved."""

from __future__ import annotations

import doctest
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rational_sae.report import pareto
from rational_sae.report.panels.gate import gate_group
from rational_sae.report.pareto import apart, pareto_group, pareto_groups


def test_examples() -> None:
    assert doctest.testmod(pareto).failed == 0


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.floats(0.1, 3))
def test_labels_are_a_step_apart_and_keep_their_order_and_mean(values: list[float], step: float) -> None:
    found = apart(values, step)
    assert all(after - before >= step - 1e-6 for before, after in itertools.pairwise(found))
    assert sum(found) == pytest.approx(sum(values), abs=1e-6)
    if all(b - a >= step for a, b in itertools.pairwise(sorted(values))):
        assert found == pytest.approx(sorted(values))


def texts(chart: Any) -> list[str]:
    (layer,) = [layer for layer in chart.to_dict()["layer"] if layer["mark"]["type"] == "text"]
    return sorted(point["line"] for point in layer["data"]["values"])


def test_every_row_is_named_once_beside_its_densest_mark(full: dict[str, Any], swept: dict[str, Any]) -> None:
    group = pareto_group(full)
    assert group
    assert texts(group.figures[0].chart) == sorted(row.replace("_", " ") for row in full["rows"])
    for group in pareto_groups(swept):
        assert len(set(texts(group.figures[0].chart))) == len(texts(group.figures[0].chart)) > 2


def test_the_departure_leaves_out_where_a_threshold_alone_makes_it() -> None:
    gate = {
        "description": "hard",
        "threshold": 0.3,
        "t": [0.1, 0.2, 0.4],
        "teacher": [0.0, 0.2, 0.4],
        "initial": [0.0, 0.2, 0.4],
        "final": [0.0, 0.0, 0.39],
    }
    for threshold, departures in ((0.3, [0.0, None, -0.01]), (None, [0.0, -0.2, -0.01])):
        group = gate_group({"gate": {**gate, "threshold": threshold}})
        assert group
        points = [point for point in drawn(group.figures[1].chart.to_dict()) if point.get("line") == "fine-tuned"]
        assert [point["departure"] and round(point["departure"], 9) for point in points] == departures


def drawn(node: Any) -> Iterator[dict[str, Any]]:
    """Every point of a chart's data, wherever Altair put it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from value if key == "values" and isinstance(value, list) else drawn(value)
    elif isinstance(node, list):
        for value in node:
            yield from drawn(value)
