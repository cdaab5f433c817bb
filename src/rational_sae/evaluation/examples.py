"""Top activating examples of chosen latents, with their values token by token, in bounded memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

TOP = 5
"""Examples of a latent, each from another sequence."""

WINDOW, BEFORE = 20, 12
"""Tokens of an example, and how many of them come before the peak where the sequence allows it."""

NONE = -1
"""In place of a token id where a sequence is shorter than the window."""


class Examples:
    """Keeps the TOP sequences of each latent while batches go by: [latents, TOP, WINDOW] ids and values."""

    def __init__(self, tokenizer: Any, latents: list[int]) -> None:
        self._text = _token_text(tokenizer)
        n = len(latents)
        self._peak = torch.zeros(n, TOP)
        self._place = torch.zeros(n, TOP, dtype=torch.long)
        self._ids = torch.full((n, TOP, WINDOW), NONE)
        self._values = torch.zeros(n, TOP, WINDOW)

    def add(self, input_ids: Tensor, keep: Tensor, z: Tensor) -> None:
        """input_ids, keep: [batch, context]; z: [n_kept, latents], the chosen codes at kept positions."""
        keep = keep.cpu()
        batch, context = input_ids.shape
        dense = torch.zeros(batch, context, z.shape[1])
        dense[keep] = z.float().cpu()
        peak, place = dense.max(dim=1)  # [batch, latents]
        length = (keep * torch.arange(1, context + 1)).amax(1)  # up to the last kept position: no padding is shown
        start = (place - BEFORE).minimum((length - WINDOW)[:, None]).clamp(min=0)
        window = start[..., None] + torch.arange(WINDOW)  # [batch, latents, WINDOW]
        inside = window < length[:, None, None]
        window = window.clamp(max=context - 1)
        ids = torch.where(inside, input_ids[torch.arange(batch)[:, None, None], window], NONE)
        values = torch.where(inside, dense.gather(1, window.permute(0, 2, 1)).permute(0, 2, 1), 0.0)
        self._merge(peak.T, (place - start).T, ids.transpose(0, 1), values.transpose(0, 1))

    def _merge(self, peak: Tensor, place: Tensor, ids: Tensor, values: Tensor) -> None:
        """Candidates: [latents, batch] and [latents, batch, WINDOW]. Of equal peaks the earlier one stays."""
        self._peak, best = torch.cat([self._peak, peak], 1).sort(dim=1, descending=True, stable=True)
        self._peak, best = self._peak[:, :TOP], best[:, :TOP]
        self._place = torch.cat([self._place, place], 1).gather(1, best)
        wide = best[..., None].expand(-1, -1, WINDOW)
        self._ids = torch.cat([self._ids, ids], 1).gather(1, wide)
        self._values = torch.cat([self._values, values], 1).gather(1, wide)

    def latents(self) -> list[list[dict[str, Any]]]:
        """For each latent its examples, the strongest first; fewer than TOP if it fired in fewer sequences."""
        return [
            [self._example(i, rank) for rank in range(TOP) if self._peak[i, rank] > 0] for i in range(len(self._peak))
        ]

    def _example(self, i: int, rank: int) -> dict[str, Any]:
        ids = self._ids[i, rank]
        size = int((ids != NONE).sum())
        return {
            "tokens": [self._text(token) for token in ids[:size].tolist()],
            "values": [float(f"{value:.4g}") for value in self._values[i, rank, :size].tolist()],
            "peak": int(self._place[i, rank]),
        }


def _token_text(tokenizer: Any):
    """A token as people read it, with the space that it starts with."""

    @cache
    def text(token: int) -> str:
        piece = str(tokenizer.convert_ids_to_tokens(token))
        read = tokenizer.decode([token])
        return f" {read}" if piece[:1] in ("▁", "Ġ") and not read[:1].isspace() else read

    return text
