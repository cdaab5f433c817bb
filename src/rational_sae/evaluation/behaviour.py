"""What a changed residual stream does to next-token predictions, a few positions at a time.

Logits are [positions, vocabulary], a hundred megabytes for 512 positions: worked on whole, every operation would
stream them through memory, and take a good part of the time of the model itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.metrics import Guesses, PredictionColumn

AT_ONCE, AT_ONCE_ACCELERATOR = 32, 512
"""Positions worked on at once: [AT_ONCE, vocabulary] float32 stays in a CPU's cache; elsewhere only memory counts."""


@dataclass(frozen=True)
class Predictions:
    """The clean predictions at some positions, which others are compared with."""

    positions: Tensor
    """[m] int64, flat indices into [batch · context]."""
    labels: Tensor
    """[m] int64: the tokens that really come next."""
    log_p: Tensor
    """[m, vocabulary] float32: clean log-probabilities."""
    likeliest: Tensor
    """[m] int64: the clean model's likeliest tokens."""

    @classmethod
    def of(cls, logits: Tensor, positions: Tensor, labels: Tensor) -> Predictions:
        """logits: [batch, context, vocabulary]; positions, labels: [m]."""
        parts = [_log_softmax(logits, part) for part in positions.split(_at_once(logits))]
        log_p = torch.cat(parts) if parts else logits.new_empty(0, logits.shape[-1]).float()
        return cls(positions, labels, log_p, log_p.argmax(-1))

    def cross_entropy(self) -> Tensor:
        """Of the clean predictions: [m]."""
        return -self.log_p.gather(-1, self.labels[:, None])[:, 0]

    def compared(self, logits: Tensor, columns: Mapping[str, PredictionColumn]) -> dict[str, Tensor]:
        """How other predictions at the same positions differ from these: column → [m] float32 on the CPU.

        logits: [batch, context, vocabulary].
        """
        found = {name: torch.zeros(len(self.labels)) for name in columns}
        step = _at_once(logits)
        for i in range(0, len(self.labels), step):
            rows = slice(i, i + step)
            log_q = _log_softmax(logits, self.positions[rows])
            guesses = Guesses(self.log_p[rows], log_q, self.likeliest[rows], self.labels[rows])
            for name, column in columns.items():
                found[name][rows] = column.of(guesses).cpu()
        return found


def cross_entropy(logits: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
    """Of predictions at some positions, without holding more than a few of them: [m] float32 on the CPU.

    logits: [batch, context, vocabulary]; positions: [m] flat indices; labels: [m].
    """
    step = _at_once(logits)
    parts = [
        -_log_softmax(logits, where).gather(-1, label[:, None])[:, 0].cpu()
        for where, label in zip(positions.split(step), labels.split(step), strict=True)
    ]
    return torch.cat(parts)


def _at_once(logits: Tensor) -> int:
    return AT_ONCE if logits.device.type == "cpu" else AT_ONCE_ACCELERATOR


def _log_softmax(logits: Tensor, positions: Tensor) -> Tensor:
    return logits.flatten(0, 1)[positions].float().log_softmax(-1)
