"""Fine-tuning: every candidate takes the same batches, in the same order, on the same schedule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from torch import Tensor

from rational_sae.errors import TrainingError
from rational_sae.support import distributed
from rational_sae.support.interrupt import noted, shielded
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.train.predictions import Passage, Predictions, Pull

WARM_UP, DECAY_FROM = 0.05, 0.5
"""Shares of the run: linear warm-up, then constant, then linear decay to 0."""

VALIDATIONS = 9
"""Times that each candidate is validated, evenly, the start and the end included; fewer where there are fewer steps."""

MAX_SKIPPED, ALWAYS_ALLOWED = 0.05, 3
"""Share of steps that may be skipped for NaN or infinity before the run is stopped, and a number that always may."""


def finetune(
    candidates: list[Candidate],
    batches: Iterable[Tensor | Passage],
    validation: Tensor,
    steps: int,
    *,
    predictions: Predictions | None = None,
    done: int = 0,
    progress: Callable[[int], None] = lambda _step: None,
    stepped: Callable[[int], None] = lambda _step: None,
) -> None:
    """Train all candidates in lockstep. batches: x [batch, d_in]; validation: [n, d_in], both in canonical units.

    predictions: what takes batches of sequences, and validates KL too.
    done: steps that were taken before; the first batch is that of the next. stepped: told of a step while signals are
    held back, so that what it sees is whole. Raises TrainingError if a candidate keeps meeting NaN or infinity.
    """
    validated = {round(steps * part / (VALIDATIONS - 1)) for part in range(VALIDATIONS)}
    held_out = None if predictions is None else predictions.validation()

    def validate(number: int) -> None:
        kl: list[float] | list[None] = [None] * len(candidates)
        if predictions is not None and held_out is not None:
            kl = predictions.kl(held_out, [one.validated(validation, held_out.own) for one in candidates])
        for candidate, value in zip(candidates, kl, strict=True):
            candidate.validate(validation, number, value)

    with shielded():
        if not all(candidate.validation["step"] for candidate in candidates):
            validate(0)
    # One process may be told to stop; all must do so after the same step.
    together = noted() if distributed.world() > 1 else contextlib.nullcontext([])
    with together as heard:
        _loop(candidates, batches, predictions, validate, steps, validated, done, progress, stepped, heard)


def _loop(
    candidates: list[Candidate],
    batches: Iterable[Tensor | Passage],
    predictions: Predictions | None,
    validate: Callable[[int], None],
    steps: int,
    validated: set[int],
    done: int,
    progress: Callable[[int], None],
    stepped: Callable[[int], None],
    heard: list[int],
) -> None:
    """The steps that are left. heard: signals that are only noted, where several processes must stop together."""
    for number, batch in zip(range(done + 1, steps + 1), batches, strict=False):
        pulls: list[Pull] | list[None] = [None] * len(candidates)
        if isinstance(batch, Passage):
            assert predictions is not None
            pulls = predictions.pulls(batch, [candidate.reconstruction(batch.own) for candidate in candidates])
        x = batch.x if isinstance(batch, Passage) else batch
        with shielded():
            for candidate, pull in zip(candidates, pulls, strict=True):
                candidate.step(x, schedule(number / steps), number, pull)
            if number in validated:
                validate(number)
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
