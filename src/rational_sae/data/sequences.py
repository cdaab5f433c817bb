"""Whole sequences of the train split in random order, for steps that run the model on what an SAE gives."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rational_sae.data.activations import Reader
from rational_sae.data.tokens import Sequences

WINDOW = 1024
"""Sequences among which the order is drawn: neighbours are of one document, and a batch should not be."""


class _Row(NamedTuple):
    """One sequence."""

    input_ids: Tensor
    keep: Tensor
    document: Tensor
    fresh: bool
    """Whether no step has read it before."""


@dataclass
class SequenceBatches:
    """Batches of sequences: first of what follows the tokens that were harvested, then of all of them, again and again.

    A pass over so many tokens of text then sees each once, whether as shuffled vectors or as sequences.
    """

    reader: Reader
    train_tokens: int
    """Distinct tokens asked for, harvested ones among them."""
    harvested: int
    """Of these, the first ones, which were read before."""
    sequences: int
    """Of a batch."""
    seed: int
    taken: int = field(default=0, init=False)
    """Batches that were handed out or passed over."""
    used_tokens: int = field(default=0, init=False)
    """Kept positions of those."""
    distinct_tokens: int = field(default=0, init=False)
    """Those that were not harvested, and handed out for the first time."""
    digest: str = field(default="", init=False)
    """sha256 of the sequences handed out so far, in order."""

    def following(self, taken: int) -> Iterator[Sequences]:
        """Endless batches after so many; those are read again as text alone. Raises TextError if there are none."""
        self.taken = self.used_tokens = self.distinct_tokens = 0
        self.digest = ""
        return itertools.islice(self._batches(), taken, None)

    def catch_up(self, taken: int) -> None:
        """Count so many batches, where they were not handed out here."""
        if self.taken < taken:
            next(self.following(taken - 1))

    def _batches(self) -> Iterator[Sequences]:
        for rows in self._shuffled():
            batch = Sequences(
                pad_sequence([row.input_ids for row in rows], batch_first=True),
                pad_sequence([row.keep for row in rows], batch_first=True),
                torch.stack([row.document for row in rows]),
            )
            self.taken += 1
            self.used_tokens += int(batch.keep.sum())
            self.distinct_tokens += sum(int(row.keep.sum()) for row in rows if row.fresh)
            content = self.digest.encode() + batch.input_ids.numpy().tobytes() + batch.keep.numpy().tobytes()
            self.digest = hashlib.sha256(content).hexdigest()
            yield batch

    def _shuffled(self) -> Iterator[list[_Row]]:
        order = torch.Generator().manual_seed(self.seed)
        drawn: list[_Row] = []
        for window in self._windows():
            drawn += [window[place] for place in torch.randperm(len(window), generator=order).tolist()]
            while len(drawn) >= self.sequences:
                yield drawn[: self.sequences]
                drawn = drawn[self.sequences :]

    def _windows(self) -> Iterator[list[_Row]]:
        """At most WINDOW sequences of one pass."""
        for passes in itertools.count():
            rows = self._pass(again=passes > 0)
            first = next(rows, None)
            if first is None and passes:
                self.reader.require(0, 1, "train")
            rows = itertools.chain([] if first is None else [first], rows)
            while window := list(itertools.islice(rows, WINDOW)):
                yield window

    def _pass(self, *, again: bool) -> Iterator[_Row]:
        """Sequences with a position that counts: those after the harvest, or all of them again."""
        before = 0
        for batch in self.reader.tokeniser.batches(self.reader.text, "train", self.train_tokens, seed=self.seed):
            fresh = not again and before >= self.harvested
            before += int(batch.keep.sum())
            if again or fresh:
                rows = zip(batch.input_ids, batch.keep, batch.document, strict=True)
                yield from (_Row(*row, fresh) for row in rows if bool(row[1].any()))
