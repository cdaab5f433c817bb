"""Which tokens each latent promotes and suppresses by itself, and how many of them it still does after an upgrade."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.data.language_model import Hook, Host
from rational_sae.data.logits import direct_logits, rows_at_once

TOP_TOKENS = 10
"""Of each latent, promoted and suppressed."""


@dataclass(frozen=True)
class Effects:
    """The ends of the direct effects of n latents: [n, TOP_TOKENS] each, the strongest first, on the CPU."""

    promoted: Tensor
    """Token ids, int64."""
    promoted_by: Tensor
    """Logits above the mean of all tokens, float32."""
    suppressed: Tensor
    suppressed_by: Tensor


@torch.no_grad()
def effects(host: Host, hook: Hook, directions: Tensor) -> Effects:
    """Of W_dec rows, [n, width]: see `direct_logits`. Bounded memory. Raises HostError where that says nothing."""
    parts: list[tuple[Tensor, ...]] = []
    for some in directions.split(rows_at_once(host)):
        logits = direct_logits(host, hook, some)
        count = min(TOP_TOKENS, logits.shape[1])
        (up, most), (down, least) = logits.topk(count), logits.topk(count, largest=False)
        parts.append((most.cpu(), up.cpu(), least.cpu(), down.cpu()))
    return Effects(*(torch.cat(column) for column in zip(*parts, strict=True)))


def kept_tokens(before: Effects, after: Effects) -> Tensor:
    """[n] share of the tokens that a latent promoted most before which it still does after. 1: all of them."""
    return (before.promoted[:, :, None] == after.promoted[:, None, :]).any(-1).float().mean(-1)
