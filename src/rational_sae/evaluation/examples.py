"""Examples of chosen latents, the strongest and some of each strength below, token by token, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

TOP = 5
"""Strongest examples of a latent, each from another sequence."""

BANDS = ((0.5, 0.75), (0.25, 0.5), (0.0, 0.25))
"""Shares of a latent's largest value; from each band one token is drawn, for the strongest alone mislead: a latent may
mean something else where it is weak."""

WINDOW, BEFORE = 40, 24
"""Tokens of an example, and how many of them come before the peak where the sequence allows it."""


@dataclass(frozen=True)
class Example:
    """A stretch of one sequence."""

    sequence: int
    """Its number among those that were added."""
    ids: list[int]
    """At most WINDOW tokens."""
    start: int
    """Place of the first of them in the sequence."""
    values: list[float]
    """The latent's value on each."""
    peak: int
    """Which of them the example was chosen for."""

    def sparse(self) -> str:
        """As report.json has it: sequence, start, size and peak, then offset:value of each token that is not silent."""
        active = (f"{i}:{value:.4g}" for i, value in enumerate(self.values) if value)
        return " ".join(map(str, (self.sequence, self.start, len(self.ids), self.peak, *active)))


class Examples:
    """Examples of each latent, kept while batches go by."""

    def __init__(self, tokenizer: Any, latents: list[int], largest: Tensor | None = None, seed: int = 0) -> None:
        """largest: [latents], each one's largest value over all batches; without it there are no bands."""
        self._text = token_text(tokenizer)
        n = len(latents)
        self._top = _Kept(n, TOP)
        self._bands = [] if largest is None else [(_Kept(n, 1), low * largest, high * largest) for low, high in BANDS]
        self._draw = torch.Generator().manual_seed(seed)
        self._sequences = 0

    def add(self, input_ids: Tensor, keep: Tensor, z: Tensor) -> None:
        """input_ids, keep: [batch, context]; z: [n_kept, latents], the chosen codes at kept positions."""
        keep = keep.cpu()
        dense = torch.zeros(*input_ids.shape, z.shape[1])
        dense[keep] = z.float().cpu()
        length = (keep * torch.arange(1, input_ids.shape[1] + 1)).amax(1)  # no padding is shown
        sequence = self._sequences + torch.arange(len(input_ids))
        self._sequences += len(input_ids)
        peak, place = dense.max(dim=1)  # [batch, latents]
        self._top.add(peak, place, dense, input_ids, length, sequence)
        if self._bands:
            draw = torch.rand(dense.shape, generator=self._draw)
            for kept, low, high in self._bands:
                score, place = (draw * ((dense > low) & (dense <= high))).max(dim=1)
                kept.add(score, place, dense, input_ids, length, sequence)

    def latents(self) -> list[list[dict[str, Any]]]:
        """For each latent its strongest examples, strongest first, their tokens as people read them; fewer than TOP if
        it fired in fewer sequences."""
        return [
            [
                {
                    "tokens": [self._text(token) for token in one.ids],
                    "values": [float(f"{value:.4g}") for value in one.values],
                    "peak": one.peak,
                }
                for one in found
            ]
            for found in self._top.found()
        ]

    def top(self) -> list[list[Example]]:
        """The same as they are."""
        return self._top.found()

    def drawn(self) -> list[list[Example]]:
        """For each latent one of each band in which it has any, the strong ones first."""
        bands = [kept.found() for kept, _, _ in self._bands]
        return [[one for band in bands for one in band[i]] for i in range(len(self._top.score))]


class _Kept:
    """For each latent the windows of highest score: [latents, count], each from another sequence."""

    def __init__(self, latents: int, count: int) -> None:
        self.count = count
        self.score = torch.zeros(latents, count)
        self.numbers = torch.zeros(latents, count, 4, dtype=torch.long)
        """Sequence, start, size, peak."""
        self.ids = torch.zeros(latents, count, WINDOW, dtype=torch.long)
        self.values = torch.zeros(latents, count, WINDOW)

    def add(
        self, score: Tensor, place: Tensor, dense: Tensor, input_ids: Tensor, length: Tensor, sequence: Tensor
    ) -> None:
        """score, place: [batch, latents]; dense: [batch, context, latents]; length, sequence: [batch]. Of equal scores
        the earlier one stays."""
        batch, context = input_ids.shape
        start = (place - BEFORE).minimum((length - WINDOW)[:, None]).clamp(min=0)
        size = (length[:, None] - start).clamp(max=WINDOW)
        window = (start[..., None] + torch.arange(WINDOW)).clamp(max=context - 1)  # [batch, latents, WINDOW]
        ids = input_ids[torch.arange(batch)[:, None, None], window]
        values = dense.gather(1, window.permute(0, 2, 1)).permute(0, 2, 1)
        numbers = torch.stack([sequence[:, None].expand_as(start), start, size, place - start], -1)
        self.score, best = torch.cat([self.score, score.T], 1).sort(dim=1, descending=True, stable=True)
        self.score, best = self.score[:, : self.count], best[:, : self.count]
        for name, new in (("numbers", numbers), ("ids", ids), ("values", values)):
            held = torch.cat([getattr(self, name), new.transpose(0, 1)], 1)
            setattr(self, name, held.gather(1, best[..., None].expand(-1, -1, held.shape[-1])))

    def found(self) -> list[list[Example]]:
        scores, numbers, ids, values = (one.tolist() for one in (self.score, self.numbers, self.ids, self.values))
        return [
            [
                Example(place[0], ids[i][rank][: place[2]], place[1], values[i][rank][: place[2]], place[3])
                for rank, place in enumerate(numbers[i])
                if scores[i][rank] > 0
            ]
            for i in range(len(scores))
        ]


def token_text(tokenizer: Any) -> Callable[[int], str]:
    """Of a token: how people read it, with the space that it starts with."""

    @cache
    def text(token: int) -> str:
        piece = str(tokenizer.convert_ids_to_tokens(token))
        read = tokenizer.decode([token])
        return f" {read}" if piece[:1] in ("▁", "Ġ") and not read[:1].isspace() else read

    return text
