"""Fine-tuning: every candidate takes the same batches, in the same order, on the same schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from rational_sae.errors import TrainingError
from rational_sae.upgrade.candidate import Candidate

WARM_UP, DECAY_FROM = 0.05, 0.5
"""Shares of the run: linear warm-up, then constant, then linear decay to 0."""

VALIDATIONS = 8
"""Times that each candidate is validated, the start and the end included."""

MAX_SKIPPED = 0.05
"""Share of steps that may be skipped for NaN or Inf before the run is stopped."""


def finetune(
    candidates: list[Candidate],
    batches: Iterable[Tensor],
    validation: Tensor,
    steps: int,
    *,
    progress: Callable[[int], None] = lambda _step: None,
) -> None:
    """Train all candidates in lockstep. batches: x [batch, d_in]; validation: [n, d_in], both in canonical units.

    Raises TrainingError if a candidate keeps meeting NaN or Inf.
    """
    every = max(1, round(steps / VALIDATIONS))
    for candidate in candidates:
        candidate.validate(validation, 0)
    for number, x in zip(range(1, steps + 1), batches, strict=False):
        fraction = schedule(number / steps)
        for candidate in candidates:
            candidate.step(x, fraction, number)
            if candidate.skipped > MAX_SKIPPED * steps:
                raise TrainingError(
                    f"{candidate.name}: {candidate.skipped} steps had NaN or infinite gradients",
                    "lower --lr, or check the activations of this hook",
                )
        if number % every == 0 or number == steps:
            for candidate in candidates:
                candidate.validate(validation, number)
        progress(number)


def schedule(done: float) -> float:
    """Share of the learning rate at a share of the run, both in [0, 1]."""
    return min(1.0, done / WARM_UP, (1.0 - done) / (1.0 - DECAY_FROM) + 1e-3)
