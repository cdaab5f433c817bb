"""Is one SAE better than another? Two figures decide, clear after correction and large enough, and nothing else can."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from rational_sae.report import decision, decisions
from rational_sae.report.decision import FEWEST_DOCUMENTS, LEAST_EFFECT, answers, verdict_of

BETTER, WORSE, UNCLEAR, SLIGHT, SAME = "better", "worse", "unclear", "slight", "same"

CHANGES = {
    BETTER: (-0.02, 0.01),
    WORSE: (0.02, 0.01),
    UNCLEAR: (-0.02, 0.04),
    SLIGHT: (-0.0045, 0.0009),
    SAME: (-0.0005, 0.001),
}
"""Difference of two values about .5, and half its interval, where lower is better."""


def report(
    base: str = "control_native",
    row: str = "rsae",
    l0: tuple[float, float] = (32.0, 32.0),
    documents: int = 60,
    **of: str,
) -> Any:
    """Two rows and their differences, each of an outcome."""
    higher = {"loss_recovered", "probe_k1", "top1_agreement"}
    found = {}
    for key, outcome in of.items():
        value, half = CHANGES[outcome]
        value = -value if key in higher else value
        found[key] = {"value": value, "interval": [value - half, value + half]}
    values = dict.fromkeys(of, 0.5)
    return {
        "rows": {
            base: {"l0": l0[0], **values},
            row: {"l0": l0[1], **{key: 0.5 + one["value"] for key, one in found.items()}},
        },
        "differences": {f"{row} - {base}": found},
        "data": {"test_tokens": 100 * documents, "test_documents": documents},
    }


FACTS = [
    ({"fvu_at_l0": BETTER, "delta_ce_at_l0": BETTER}, "Yes: FVU 4.0% lower and ΔCE 4.0% lower than the t"),
    ({"fvu_at_l0": BETTER, "delta_ce_at_l0": UNCLEAR}, "Yes: FVU 4.0% lower than the teacher fine-tuned"),
    ({"fvu_at_l0": UNCLEAR, "delta_ce_at_l0": BETTER, "kl": UNCLEAR}, "Yes: ΔCE 4.0% lower than"),
    ({"fvu_at_l0": BETTER, "delta_ce_at_l0": WORSE}, "With reservations: FVU 4.0% lower than"),
    ({"fvu_at_l0": BETTER, "delta_ce_at_l0": UNCLEAR, "probe_k1": WORSE}, "With reservations: FVU 4.0% lower"),
    ({"fvu_at_l0": WORSE, "delta_ce_at_l0": UNCLEAR}, "No: FVU 4.0% higher than the teacher"),
    ({"fvu_at_l0": SLIGHT, "delta_ce_at_l0": SLIGHT}, "No difference that matters from the teacher"),
    ({"fvu_at_l0": SAME, "delta_ce_at_l0": SAME}, "No difference that matters from the teacher"),
    ({"fvu_at_l0": UNCLEAR, "delta_ce_at_l0": UNCLEAR}, "No clear difference from the teacher"),
    ({"fvu_at_l0": UNCLEAR, "delta_ce_at_l0": SAME, "kl": BETTER, "probe_k1": BETTER}, "No clear difference from"),
]


@pytest.mark.parametrize(("outcomes", "start"), FACTS)
def test_the_answer(outcomes: dict[str, str], start: str) -> None:
    (found,) = decisions(report(**outcomes))
    assert found.answer.startswith(start), found.answer
    assert found.question.startswith("Is the rational SAE better than the teacher fine-tuned the same way")


def test_the_control_is_asked_about_and_the_teacher_only_without_one() -> None:
    both = report(fvu_at_l0=UNCLEAR)
    teacher = report("teacher", fvu_at_l0=BETTER)
    both["rows"] |= teacher["rows"]
    both["differences"] |= teacher["differences"]
    (found,) = decisions(both)
    assert found.answer.startswith("No clear difference from the teacher fine-tuned")
    (found,) = decisions(teacher)
    assert found.answer.startswith("Yes: FVU 4.0% lower than the teacher.")


def interval_at(chance: float, value: float = -0.02, documents: int = 60) -> list[float]:
    """The 95 % interval of a difference so large that it has this two-sided chance."""
    error = abs(value) / t.isf(chance / 2, documents - 1) / (documents / (documents - 1)) ** 0.5
    return [value - 1.959964 * error, value + 1.959964 * error]


def test_two_figures_are_corrected_for() -> None:
    """The less likely of two has to be under .025, the other then under .05; one alone under .05."""
    found = report(fvu_at_l0=BETTER, delta_ce_at_l0=UNCLEAR)
    difference = found["differences"]["rsae - control_native"]
    difference["fvu_at_l0"]["interval"] = interval_at(0.03)
    assert decisions(found)[0].answer.startswith("No clear")
    difference["delta_ce_at_l0"]["interval"] = interval_at(0.04)
    assert decisions(found)[0].answer.startswith("No clear")
    difference["fvu_at_l0"]["interval"] = interval_at(0.02)
    assert decisions(found)[0].answer.startswith("Yes: FVU 4.0% lower and")
    difference["delta_ce_at_l0"]["interval"] = interval_at(0.06)
    assert decisions(found)[0].answer.startswith("Yes: FVU 4.0% lower than")
    difference["fvu_at_l0"]["interval"] = interval_at(0.04)
    del difference["delta_ce_at_l0"]
    assert decisions(found)[0].answer.startswith("Yes")


def test_several_saes_are_corrected_for_together() -> None:
    found = report("first", "a", fvu_at_l0=UNCLEAR)
    found["differences"]["a - first"]["fvu_at_l0"]["interval"] = interval_at(0.04)
    assert decisions(found)[0].answer.startswith("Yes")
    for name in "bc":
        found["rows"][name] = found["rows"]["a"]
        found["differences"][f"{name} - first"] = report(fvu_at_l0=UNCLEAR)["differences"]["rsae - control_native"]
    assert [one.answer[:8] for one in decisions(found)] == ["No clear"] * 3
    assert [answer.partition(":")[0] for answer in answers(found)] == ["a", "b", "c"]  # each says whose it is


@pytest.mark.parametrize(("least", "start"), [(0.0, "Yes"), (LEAST_EFFECT, "No difference"), (0.005, "Yes")])
def test_the_least_effect_is_the_settings(least: float, start: str) -> None:
    found = report(fvu_at_l0=SLIGHT, delta_ce_at_l0=SLIGHT) | {"settings": {"least_effect": least}}
    (one,) = decisions(found)
    assert one.answer.startswith(start)
    assert f"at least {100 * least:g} %" in one.rule


def test_too_little_text_is_said() -> None:
    few, enough = (
        decisions(report(documents=n, fvu_at_l0=BETTER))[0] for n in (FEWEST_DOCUMENTS - 1, FEWEST_DOCUMENTS)
    )
    assert few.answer.startswith(f"Too little text to say: {FEWEST_DOCUMENTS - 1} test documents")
    assert enough.answer.startswith("Yes")


def test_lost_latents_count_against() -> None:
    found = report(fvu_at_l0=BETTER, delta_ce_at_l0=BETTER)
    rows = found["rows"]
    rows["control_native"]["alive_fraction"], rows["rsae"]["alive_fraction"] = 0.95, 0.9499
    assert decisions(found)[0].answer.startswith("Yes")
    rows["rsae"]["alive_fraction"] = 0.90
    (one,) = decisions(found)
    assert one.answer.startswith("With reservations")
    assert "5.3% fewer latents are alive" in one.answer
    rows["control_native"]["alive_fraction"] = 0.90
    assert decisions(found)[0].answer.startswith("Yes")
    rows["teacher"] = {"alive_fraction": 0.95}
    assert decisions(found)[0].answer.startswith("With reservations")


def test_each_fact_is_on_its_side_with_its_numbers() -> None:
    (found,) = decisions(report(fvu_at_l0=BETTER, delta_ce_at_l0=WORSE, kl=UNCLEAR, probe_k1=WORSE))
    assert [(fact.label, fact.outcome) for fact in found.primary] == [("FVU at L0", "better"), ("ΔCE at L0", "worse")]
    assert [fact.label for fact in found.against] == ["Probe k=1"]
    assert [fact.label for fact in found.others] == ["KL"]
    fvu, probe = found.primary[0], found.against[0]
    assert (fvu.change, fvu.difference, fvu.interval) == ("0.5000 → 0.4800", "-0.0200", "[-0.0300, -0.0100]")
    assert fvu.share == "-4.0%"
    assert probe.share == ""  # a share of an accuracy would mislead


def test_without_intervals_or_differences_there_is_no_answer() -> None:
    bare = report(fvu_at_l0=BETTER)
    del bare["differences"]["rsae - control_native"]["fvu_at_l0"]["interval"]
    assert decisions(bare) == []
    assert decisions({"rows": {"teacher": {"fvu": 0.5}}}) == []
    assert verdict_of(bare) == "Nothing was compared."


def test_closed_forms_get_no_verdict() -> None:
    """Rows of `headroom` and of `export` are no SAEs that somebody chooses between."""
    assert decisions(report("teacher", "shape", fvu_at_l0=BETTER)) == []


@pytest.mark.parametrize(
    ("l0", "outcome", "opens"),
    [
        ((32.0, 64.0), BETTER, True),
        ((32.0, 16.0), WORSE, True),
        ((32.0, 16.0), BETTER, False),
        ((32.0, 64.0), WORSE, False),
        ((32.0, 32.1), BETTER, False),
    ],
)
def test_a_gain_of_density_alone_is_no_gain(l0: tuple[float, float], outcome: str, opens: bool) -> None:
    (found,) = decisions(report("a/first", "b/second", l0, fvu=outcome, delta_ce=UNCLEAR))
    assert found.answer.startswith("Open: ") == opens
    assert any(line.startswith("L0 differs") for line in found.cautions) == (abs(l0[1] / l0[0] - 1) > 0.01)


def test_at_equal_l0_the_row_s_own_l0_does_not_matter() -> None:
    (found,) = decisions(report(l0=(32.0, 64.0), fvu_at_l0=BETTER, delta_ce_at_l0=BETTER, fvu=WORSE, kl=WORSE))
    assert found.answer.startswith("Yes")
    assert "FVU and ΔCE above are at equal L0" in " ".join(found.cautions)


def test_a_row_that_kept_its_start_is_not_called_fine_tuned() -> None:
    found = report(fvu_at_l0=BETTER)
    found["curves"] = {"validation": {"control_native": {"step": [0, 9], "kept_step": 0}}}
    assert "comparison with the untrained teacher" in decisions(found)[0].answer
    found["curves"]["validation"]["control_native"]["kept_step"] = 9
    assert "untrained" not in decisions(found)[0].answer


def test_names_that_hold_the_sign_of_a_difference() -> None:
    (found,) = decisions(report("runs/a - b", "runs/c - d", fvu=BETTER))
    assert [fact.change for fact in found.primary] == ["0.5000 → 0.4800"]


def test_what_was_not_measured_is_said() -> None:
    (without,) = decisions(report(fvu_at_l0=BETTER))
    (probed,) = decisions(report(fvu_at_l0=BETTER, probe_k1=UNCLEAR))
    assert "Sparse probing was not measured" in " ".join(without.cautions)
    assert "Sparse probing" not in " ".join(probed.cautions)


def test_what_each_part_gave_and_what_an_encode_costs(full: dict[str, Any]) -> None:
    full["timing"] |= {"encode 1,000 tokens, teacher": 0.02, "encode 1,000 tokens, rsae": 0.03}
    (found,) = decisions(full)
    assert [part.base for part in found.parts] == ["teacher", "control_native", "identity"]
    assert all(len(part.facts) == 2 for part in found.parts)
    assert [part.brief for part in found.parts] == [True, False, True]
    assert "Encoding takes 1.5 times as long" in found.cautions[0]


def test_equal_saes_are_seldom_told_apart() -> None:
    """A/A: two columns of the same skewed distribution, resampled as `evaluation.results` does it."""
    rng = np.random.default_rng(0)
    documents, reports, wrong = FEWEST_DOCUMENTS, 300, 0
    for _ in range(reports):
        size = rng.lognormal(0, 0.5, documents)
        columns = 0.5 * size[:, None, None] * (1 + 0.1 * rng.standard_t(4, (documents, 2, 2)))
        weights = np.vstack([np.ones(documents), rng.multinomial(documents, np.full(documents, 1 / documents), 500)])
        values = (weights @ columns.reshape(documents, 4)).reshape(-1, 2, 2) / (weights @ size)[:, None, None]
        one = report(documents=documents) | {"settings": {"least_effect": 0.0}}
        for i, key in enumerate(("fvu_at_l0", "delta_ce_at_l0")):
            differences = values[:, i, 0] - values[:, i, 1]
            interval = np.quantile(differences[1:], [0.025, 0.975]).tolist()
            one["rows"]["rsae"][key], one["rows"]["control_native"][key] = values[0, i].tolist()
            one["differences"]["rsae - control_native"][key] = {"value": float(differences[0]), "interval": interval}
        wrong += decisions(one)[0].answer.startswith(("Yes", "With"))
    assert wrong / reports <= 0.05


def test_examples() -> None:
    assert doctest.testmod(decision).failed == 0
