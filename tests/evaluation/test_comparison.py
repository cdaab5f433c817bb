"""Differences of two rows: what they hold, how they print, and what is said of rows that were not compared."""

from __future__ import annotations

import copy
import pickle
import sys

import pytest

from rational_sae.errors import MissingExtraError, SettingsError
from rational_sae.evaluation import Comparison, comparison
from rational_sae.evaluation.comparison import Difference

FOUND = {"rsae - teacher": {"fvu": {"value": -0.1, "interval": [-0.2, -0.05]}, "l0": {"value": 1, "interval": [0, 2]}}}


@pytest.fixture
def found() -> Comparison:
    return comparison(FOUND, "rsae", "teacher")


def test_metrics_are_items_and_attributes(found: Comparison) -> None:
    assert found["fvu"] == found.fvu == Difference(-0.1, -0.2, -0.05)
    assert list(found) == ["fvu", "l0"]
    assert {"fvu", "l0", "to_frame"} <= set(dir(found))
    assert str(found) == "rsae - teacher, with 95 % intervals\nfvu  -0.1 [-0.2, -0.05]\nl0   +1 [+0, +2]"
    with pytest.raises(AttributeError, match="'mse' is no metric"):
        _ = found.mse


def test_it_copies_and_pickles(found: Comparison) -> None:
    assert dict(copy.deepcopy(found)) == dict(pickle.loads(pickle.dumps(found))) == dict(found)


def test_a_frame_has_one_line_a_metric(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = found.to_frame()
    assert list(frame.columns) == ["value", "low", "high"]
    assert frame.loc["fvu"].tolist() == [-0.1, -0.2, -0.05]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pandas is not installed; run: pip install 'rational-sae\[pandas\]'"):
        found.to_frame()


def test_rows_that_were_not_compared_are_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="rsae was not compared with init; there is: rsae - teacher"):
        comparison(FOUND, "rsae", "init")
