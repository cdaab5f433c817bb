"""Fine-tuning: every candidate takes the same batches, in the same order, on the same schedule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from torch import Tensor

from rational_sae.errors import TrainingError
from rational_sae.support import distributed
from rational_sae.support.interrupt import noted, shielded
from rational_sae.upgrading.train.candidate import Candidate

WARM_UP, DECAY_FROM = 0.05, 0.5
"""Shares of the run: linear warm-up, then constant, then linear decay to 0."""

VALIDATIONS = 9
"""Times that each candidate is validated, evenly, the start and the end included; fewer where there are fewer steps."""

MAX_SKIPPED, ALWAYS_ALLOWED = 0.05, 3
"""Share of steps that may be skipped for NaN or infinity before the run is stopped, and a number that always may."""


def finetune(
    candidates: list[Candidate],
    batches: Iterable[Tensor],
    validation: Tensor,
    steps: int,
    *,
    done: int = 0,
    progress: Callable[[int], None] = lambda _step: None,
    stepped: Callable[[int], None] = lambda _step: None,
) -> None:
    """Train all candidates in lockstep. batches: x [batch, d_in]; validation: [n, d_in], both in canonical units.

    done: steps that were taken before; the first batch is that of the next. stepped: told of a step while signals are
    held back, so that what it sees is whole. Raises TrainingError if a candidate keeps meeting NaN or infinity.
    """
    validated = {round(steps * part / (VALIDATIONS - 1)) for part in range(VALIDATIONS)}
    with shielded():
        for candidate in candidates:
            if not candidate.validation["step"]:
                candidate.validate(validation, 0)
    # One process may be told to stop; all must do so after the same step.
    together = noted() if distributed.world() > 1 else contextlib.nullcontext([])
    with together as heard:
        _loop(candidates, batches, validation, steps, validated, done, progress, stepped, heard)


def _loop(
    candidates: list[Candidate],
    batches: Iterable[Tensor],
    validation: Tensor,
    steps: int,
    validated: set[int],
    done: int,
    progress: Callable[[int], None],
    stepped: Callable[[int], None],
    heard: list[int],
) -> None:
    """The steps that are left. heard: signals that are only noted, where several processes must stop together."""
    for number, x in zip(range(done + 1, steps + 1), batches, strict=False):
        with shielded():
            for candidate in candidates:
                candidate.step(x, schedule(number / steps), number)
            if number in validated:
                for candidate in candidates:
                    candidate.validate(validation, number)
            stepped(number)
        if distributed.agreed(bool(heard)):
            raise KeyboardInterrupt
        for candidate in candidates:
            _check_skipped(candidate, number, steps)
        progress(number)


def _check_skipped(candidate: Candidate, number: int, steps: int) -> None:
    now = candidate.curve.skipped[-1:] == [number]
    if not now or candidate.skipped <= max(ALWAYS_ALLOWED, MAX_SKIPPED * steps):
        return
    reason = candidate.curve.reason[-1]
    remedy = "check the model's files and precision" if reason == "activations" else "lower the learning rate"
    raise TrainingError(
        f"{candidate.name}: {candidate.skipped} of {number} steps met NaN or infinite {reason}, so training stopped",
        remedy,
    )


def schedule(done: float) -> float:
    """Share of the learning rate at a share of the run, both in [0, 1]."""
    return min(1.0, done / WARM_UP, (1.0 - done) / (1.0 - DECAY_FROM) + 1e-3)
