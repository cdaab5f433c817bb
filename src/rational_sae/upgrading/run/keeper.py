"""What a training loop tells while it runs, so that somebody can keep it. See `folder.py` for who does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rational_sae.data.activations import TrainingBatches
from rational_sae.upgrading.train.candidate import Candidate


@dataclass(frozen=True)
class Training:
    """Everything that changes while candidates are trained."""

    candidates: dict[str, Candidate]
    batches: TrainingBatches
    timing: dict[str, float]
    """Seconds a stage."""
    inputs: dict[str, str]
    """What it started from, by sha256: a state belongs to these inputs alone."""


class Keeper:
    """Keeps nothing: training in memory, from the start."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        """What a reader of the result should know about how it was kept."""

    @property
    def goes_on(self) -> bool:
        """Whether there is something to go on from, known once `check` was called."""
        return False

    def check(self, asked: dict[str, Any]) -> None:
        """Hears the settings before any work is done."""

    def begin(self, training: Training) -> int:
        """Hears what is going to be trained. Returns the step after which training goes on."""
        return 0

    def stepped(self, number: int) -> None:
        """Every candidate has taken this step."""

    def stopped(self, error: BaseException) -> None:
        """Training ends early; the last step that was told is whole."""
