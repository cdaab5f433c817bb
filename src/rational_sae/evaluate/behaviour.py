"""What a changed residual stream does to next-token predictions, a few positions at a time.

Logits are [positions, vocabulary], a hundred megabytes for 512 positions: worked on whole, every operation would
stream them through memory, and take a good part of the time of the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 32
"""Positions worked on at once: [AT_ONCE, vocabulary] float32 stays in a CPU's cache."""


@dataclass(frozen=True)
class Predictions:
    """The clean predictions at some positions, which others are compared with."""

    positions: Tensor
    """[m] int64, flat indices into [batch · context]."""
    labels: Tensor
    """[m] int64: the tokens that really come next."""
    log_p: Tensor
    """[m, vocabulary] float32: clean log-probabilities."""

    @classmethod
    def of(cls, logits: Tensor, positions: Tensor, labels: Tensor) -> Predictions:
        """logits: [batch, context, vocabulary]; positions, labels: [m]."""
        parts = [_log_softmax(logits, part) for part in positions.split(AT_ONCE)]
        return cls(positions, labels, torch.cat(parts) if parts else logits.new_empty(0, logits.shape[-1]).float())

    def cross_entropy(self) -> Tensor:
        """Of the clean predictions: [m]."""
        return -self.log_p.gather(-1, self.labels[:, None])[:, 0]

    def compared(self, logits: Tensor, *, with_kl: bool) -> tuple[Tensor, Tensor]:
        """Cross-entropy of other logits, and KL(clean ‖ other) if asked for (else 0): [m] each."""
        ce, kl = torch.zeros(len(self.labels)), torch.zeros(len(self.labels))
        for i in range(0, len(self.labels), AT_ONCE):
            rows = slice(i, i + AT_ONCE)
            log_q = _log_softmax(logits, self.positions[rows])
            ce[rows] = -log_q.gather(-1, self.labels[rows, None])[:, 0].cpu()
            if with_kl:
                log_p = self.log_p[rows]
                kl[rows] = (log_p.exp() * (log_p - log_q)).sum(-1).cpu()
        return ce, kl


def _log_softmax(logits: Tensor, positions: Tensor) -> Tensor:
    return logits.flatten(0, 1)[positions].float().log_softmax(-1)
