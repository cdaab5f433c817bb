"""Token sequences → residual vectors → shuffled training batches, in bounded memory, never in float16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rational_sae.hosts import Hook, Host
from rational_sae.text import Split, Text
from rational_sae.tokens import EVAL_TOKENS_PER_DOCUMENT, Sequences, Tokeniser, require_tokens

BUFFER_BYTES = 1 << 30
"""Residual vectors held at once while training (float32), whatever the text's size."""

SINK_NORM = 5.0
"""Residual norm, relative to the median, above which a position is an attention sink (heuristic: typical norms
lie within a factor 1.6 of the median, sinks at 7 to 190 times it)."""


@dataclass(frozen=True)
class Reader:
    """Everything that turns a text into residual vectors at one hook of one model."""

    host: Host
    hook: Hook
    text: Text
    tokeniser: Tokeniser

    def vectors(self, split: Split, max_tokens: int, *, seed: int | None = None) -> Iterator[Tensor]:
        """Residual vectors of kept positions, a batch of sequences at a time.

        Yields x: [n, d_in] float32; the total over the pass is at most max_tokens.
        """
        for batch in self.tokeniser.batches(self.text, split, max_tokens, seed=seed):
            yield self.at(batch)

    def held_out(self, split: Split, max_tokens: int) -> Iterator[Sequences]:
        """Sequences for measuring: a fixed order, and a bounded share for each document."""
        return self.tokeniser.batches(self.text, split, max_tokens, per_document=EVAL_TOKENS_PER_DOCUMENT)

    def at(self, batch: Sequences) -> Tensor:
        """x: [n_kept, d_in] float32 of one batch of sequences."""
        stream = self.host.residual(batch.input_ids, self.hook)
        return stream[self.kept(stream, batch)].float()

    def kept(self, stream: Tensor, batch: Sequences) -> Tensor:
        """Positions that count: [batch, context] bool, on the stream's device.

        stream: [batch, context, d_in]. Under `sink="exclude"` attention sinks past the first position are left
        out too (about one token in ten thousand, but enough to carry two thirds of the variance of a test set):
        those of more than SINK_NORM times the batch's median norm.
        """
        keep = batch.keep.to(stream.device)
        if self.tokeniser.sink == "keep" or not bool(keep.any()):
            return keep
        norm = stream.float().norm(dim=-1)
        return keep & ~(norm > SINK_NORM * norm[keep].median())  # NaN is kept, so that it is noticed

    def sample(self, split: Split, tokens: int, *, needed: int | None = None) -> Tensor:
        """About `tokens` vectors of a split, for calibration and validation. x: [n, d_in] float32.

        Raises TextError if fewer than `needed` (default: a quarter of `tokens`) can be had.
        """
        parts = [self.at(batch) for batch in self.held_out(split, tokens)]
        x = torch.cat(parts) if parts else torch.empty(0, self.host.d_model)
        require_tokens(len(x), needed if needed is not None else max(1, tokens // 4), split, self.text, self.tokeniser)
        return x


@dataclass
class TrainingBatches:
    """Shuffled batches over the train split: window by window, each window harvested, permuted and used up.

    If all tokens asked for fit in one window they are harvested once; every further pass is a new permutation.
    """

    reader: Reader
    train_tokens: int
    """Distinct tokens asked for; the text may have fewer."""
    batch_tokens: int
    seed: int
    buffer_bytes: int = BUFFER_BYTES
    progress: Callable[[int], None] = lambda _tokens: None
    """Told of every batch of vectors harvested."""
    distinct_tokens: int = field(default=0, init=False)
    """Tokens harvested in the first pass so far."""
    mean: Tensor = field(init=False)
    """x̄: [d_in] float32 of the tokens harvested in the first pass so far."""
    _whole: Tensor | None = field(default=None, init=False, repr=False)
    """All tokens asked for, if they fitted in one window: iterating again then reads nothing."""

    def __post_init__(self) -> None:
        self.mean = torch.zeros(self.reader.host.d_model)

    def __iter__(self) -> Iterator[Tensor]:
        """Endless x: [batch_tokens, d_in] float32. Raises TextError if the split has less than one batch."""
        order = torch.Generator().manual_seed(self.seed)
        passes = 0
        while self._whole is None:
            for window in self._windows(self.seed + passes, first=passes == 0):
                yield from self._shuffled(window, order)
            passes += 1
        while True:
            yield from self._shuffled(self._whole, order)

    def _windows(self, seed: int, *, first: bool) -> Iterator[Tensor]:
        capacity = max(self.batch_tokens, self.buffer_bytes // (4 * self.reader.host.d_model))
        buffer = torch.empty(min(capacity, self.train_tokens), self.reader.host.d_model)
        filled, harvested, several = 0, 0, len(buffer) < self.train_tokens
        for x in self.reader.vectors("train", self.train_tokens, seed=seed):
            harvested += len(x)
            if first:
                self.distinct_tokens += len(x)
                self.mean += (x.mean(0).cpu() - self.mean) * (len(x) / self.distinct_tokens)
            self.progress(len(x))
            while len(x):
                part, x = x[: len(buffer) - filled], x[len(buffer) - filled :]
                buffer[filled : filled + len(part)] = part
                filled += len(part)
                if filled == len(buffer):
                    self._whole = None if several else buffer
                    yield buffer
                    filled = 0
        if first:
            require_tokens(harvested, self.batch_tokens, "train", self.reader.text, self.reader.tokeniser)
        if filled >= self.batch_tokens:
            self._whole = buffer[:filled] if harvested == filled else None
            yield buffer[:filled]

    def _shuffled(self, window: Tensor, order: torch.Generator) -> Iterator[Tensor]:
        places = torch.randperm(len(window), generator=order)
        for chosen in places.split(self.batch_tokens):
            if len(chosen) == self.batch_tokens:
                yield window[chosen]
