"""What a reader of the result is told: one line for each reason, and none without."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.warnings import of_training, revived_latents, skipped_steps, smooth_gate


def candidate(**changes: Any) -> Any:
    usual = {
        "skipped": 0,
        "curve": SimpleNamespace(reason=[]),
        "kept_revived": [],
        "validation": {"step": [0, 4], "l0": [9.0, 10.0]},
        "kept_step": 4,
        "sae": None,
    }
    return SimpleNamespace(**usual | changes)


def test_skipped_steps_name_their_reasons_once() -> None:
    rows = {"rsae": candidate(skipped=3, curve=SimpleNamespace(reason=["loss", "gradient", "loss"])), "b": candidate()}
    (line,) = skipped_steps(rows)
    assert line == "rsae: 3 steps were skipped, because something was NaN or infinite (gradient, loss)"


def test_revived_latents_of_the_rsae_are_counted() -> None:
    assert revived_latents({"rsae": candidate()}) == []
    (line,) = revived_latents({"rsae": candidate(kept_revived=[1, 2])})
    assert "new directions: 2; their old labels are void" in line


def test_a_smooth_gate_is_explained() -> None:
    assert smooth_gate(Settings(teacher="t")) == []
    (line,) = smooth_gate(Settings(teacher="t", gate="smooth"))
    assert line.startswith("a smooth gate is never exactly 0")


def test_a_training_that_went_well_gives_none() -> None:
    assert of_training({"rsae": candidate()}, 10.0, Settings(teacher="t", hold_l0=False)) == []
