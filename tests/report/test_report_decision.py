"""May I replace my SAE? The answer follows from the differences whose intervals exclude 0, and from nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from rational_sae.report import decisions

BETTER, WORSE, UNCLEAR = -1, 1, 0
"""Signs of a difference of a metric whose lower values are better."""


def report(base: str = "teacher", row: str = "rsae", l0: tuple[float, float] = (32.0, 32.0), **signs: int) -> Any:
    """Two rows and their differences: `fvu=BETTER` is a difference of −0.02 whose interval excludes 0."""
    higher = {"loss_recovered", "probe_k1"}
    found = {
        key: {"value": 0.02 * sign, "interval": [0.02 * sign - 0.01, 0.02 * sign + 0.01]}
        for key, sign in ((key, -sign if key in higher else sign) for key, sign in signs.items())
    }
    values = dict.fromkeys(signs, 0.5)
    return {
        "rows": {
            base: {"l0": l0[0], **values},
            row: {"l0": l0[1], **{key: 0.5 + one["value"] for key, one in found.items()}},
        },
        "differences": {f"{row} - {base}": found},
    }


@pytest.mark.parametrize(
    ("signs", "start"),
    [
        ({"fvu_at_l0": BETTER, "delta_ce_at_l0": UNCLEAR}, "Yes, by what was measured: better than its teacher in FVU"),
        ({"fvu_at_l0": UNCLEAR, "delta_ce_at_l0": BETTER, "kl": UNCLEAR}, "Yes"),
        ({"fvu_at_l0": BETTER, "delta_ce_at_l0": UNCLEAR, "probe_k1": WORSE}, "With reservations: better"),
        (
            {"fvu_at_l0": UNCLEAR, "delta_ce_at_l0": UNCLEAR, "kl": BETTER},
            "No clear reason: better than its",
        ),
        ({"fvu_at_l0": UNCLEAR, "delta_ce_at_l0": UNCLEAR}, "No clear reason: no clear difference"),
        ({"fvu_at_l0": WORSE, "delta_ce_at_l0": UNCLEAR}, "No: worse than its teacher in FVU at L0, better in nothing"),
        (
            {"fvu_at_l0": WORSE, "loss_recovered": BETTER},
            "No: worse than its teacher in FVU at L0, better only",
        ),
    ],
)
def test_the_answer(signs: dict[str, int], start: str) -> None:
    (found,) = decisions(report(**signs))
    assert found.answer.startswith(start)
    assert found.question == "May the rational SAE replace its teacher?"


def test_each_fact_is_on_its_side_with_its_numbers() -> None:
    (found,) = decisions(report(fvu_at_l0=BETTER, delta_ce_at_l0=WORSE, kl=UNCLEAR, probe_k1=BETTER))
    assert [fact.label for fact in found.better] == ["FVU at L0", "Probe k=1"]
    assert [fact.label for fact in found.worse] == ["ΔCE at L0"]
    assert [fact.label for fact in found.unclear] == ["KL"]
    fvu, probe = found.better
    assert (fvu.change, fvu.difference, fvu.interval) == ("0.5000 → 0.4800", "-0.0200", "[-0.0300, -0.0100]")
    assert fvu.share == "-4.0%"
    assert probe.share == ""  # a share of an accuracy would mislead


def test_without_intervals_or_differences_there_is_no_answer() -> None:
    bare = report(fvu_at_l0=BETTER)
    del bare["differences"]["rsae - teacher"]["fvu_at_l0"]["interval"]
    assert decisions(bare) == []
    assert decisions({"rows": {"teacher": {"fvu": 0.5}}}) == []


@pytest.mark.parametrize(
    ("l0", "sign", "opens"),
    [
        ((32.0, 64.0), BETTER, True),
        ((32.0, 16.0), WORSE, True),
        ((32.0, 16.0), BETTER, False),
        ((32.0, 64.0), WORSE, False),
        ((32.0, 32.1), BETTER, False),
    ],
)
def test_a_gain_of_density_alone_is_no_gain(l0: tuple[float, float], sign: int, opens: bool) -> None:
    (found,) = decisions(report("a/first", "b/second", l0, fvu=sign, delta_ce=UNCLEAR))
    assert found.answer.startswith("Open: ") == opens
    assert any(line.startswith("L0 differs") for line in found.cautions) == (abs(l0[1] / l0[0] - 1) > 0.01)


def test_at_equal_l0_the_row_s_own_l0_does_not_matter() -> None:
    (found,) = decisions(report(l0=(32.0, 64.0), fvu_at_l0=BETTER, delta_ce_at_l0=BETTER, fvu=WORSE))
    assert found.answer.startswith("Yes")
    assert "FVU and ΔCE above are at equal L0" in " ".join(found.cautions)


def test_names_that_hold_the_sign_of_a_difference() -> None:
    (found,) = decisions(report("runs/a - b", "runs/c - d", fvu=BETTER))
    assert [fact.change for fact in found.better] == ["0.5000 → 0.4800"]


def test_what_was_not_measured_is_said() -> None:
    (without,) = decisions(report(fvu_at_l0=BETTER))
    (probed,) = decisions(report(fvu_at_l0=BETTER, probe_k1=UNCLEAR))
    assert "Sparse probing was not measured" in " ".join(without.cautions)
    assert "Sparse probing" not in " ".join(probed.cautions)


def test_alternatives_are_compared_too(full: dict[str, Any]) -> None:
    (found,) = decisions(full)
    assert [name for name, _ in found.alternatives] == ["control native", "identity"]
    assert all(len(facts) == 2 for _, facts in found.alternatives)
