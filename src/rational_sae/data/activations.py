"""Token sequences → the vectors of a hook → shuffled training batches, in bounded memory, never in float16."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from rational_sae.data.cache import ActivationCache
from rational_sae.data.language_model import Hook, Host
from rational_sae.data.text import Split, Text
from rational_sae.data.tokens import EVAL_TOKENS_PER_DOCUMENT, Sequences, Tokeniser, require_tokens
from rational_sae.data.vectors import GivenVectors
from rational_sae.errors import HostError
from rational_sae.support import distributed

BUFFER_BYTES = 1 << 30
"""Residual vectors held at once while training (float32), whatever the text's size."""

SINK_NORM = 5.0
"""Residual norm, relative to the median, above which a position is an attention sink (heuristic: typical norms
lie within a factor 1.6 of the median, sinks at 7 to 190 times it)."""


@dataclass(frozen=True)
class Reader:
    """Everything that turns a text into the vectors of one hook of one model."""

    host: Host
    hook: Hook
    text: Text
    tokeniser: Tokeniser
    digests: dict[tuple[Split, int | None], str] = field(default_factory=dict)
    """sha256 of the sequences read so far, in order, by split and seed: which data a result comes from."""
    cache: ActivationCache | None = None
    """Where streams are kept, of this model and hook; default: nowhere."""

    @cached_property
    def width(self) -> int:
        """Of one vector: d_in, or d_in + d_out of a transcoder's [x; y]."""
        return self.host.width(self.hook)

    @cached_property
    def d_in(self) -> int:
        """Of what is read."""
        return self.host.width(replace(self.hook, out=None))

    def target(self, row: Tensor) -> Tensor:
        """What is to be given back: row: [..., d_in] itself, or y of a transcoder's [x; y]."""
        return row if self.hook.out is None else row[..., self.d_in :]

    def vectors(self, split: Split, max_tokens: int, *, seed: int | None = None, skip: int = 0) -> Iterator[Tensor]:
        """The hook's vectors at kept positions, a batch of sequences at a time.

        skip: batches of sequences that are passed over without running the model. Processes share the work; all of
        them get all vectors. Yields x: [n, d_in] float32; the total over the pass is at most max_tokens.
        """
        batches = self.tokeniser.batches(self.text, split, max_tokens, seed=seed)
        digest = self._digester((split, seed))
        for batch in itertools.islice(batches, skip):
            digest(batch)
        for batch, x in distributed.spread(batches, self.at):
            digest(batch)
            yield x

    def held_out(self, split: Split, max_tokens: int) -> Iterator[Sequences]:
        """Sequences for measuring: a fixed order, and a bounded share for each document."""
        batches = self.tokeniser.batches(self.text, split, max_tokens, per_document=EVAL_TOKENS_PER_DOCUMENT)
        digest = self._digester((split, None))
        for batch in batches:
            digest(batch)
            yield batch

    def _digester(self, key: tuple[Split, int | None]) -> Callable[[Sequences], None]:
        """A chain of hashes, so that its state is 32 bytes wherever a pass stops."""
        last = b""

        def take(batch: Sequences) -> None:
            nonlocal last
            content = batch.input_ids.numpy().tobytes() + batch.keep.numpy().tobytes()
            last = hashlib.sha256(last + content).digest()
            self.digests[key] = last.hex()

        return take

    def at(self, batch: Sequences) -> Tensor:
        """x: [n_kept, d_in] float32 of one batch of sequences."""
        stream = self.stream(batch.input_ids)
        return stream[self.kept(stream, batch)].float()

    def stream(self, input_ids: Tensor) -> Tensor:
        """What passes at the hook, from the cache if there is one: the same bits.

        input_ids: [batch, context] int64. Returns [batch, context, d_in] in the model's dtype.
        """
        if self.cache is None:
            return self.host.residual(input_ids, self.hook)
        return self.cache.stream(input_ids)

    def warnings(self) -> list[str]:
        """What a reader of the result should know about how it was read."""
        return self.text.warnings() + ([] if self.cache is None else self.cache.warnings())

    def kept(self, stream: Tensor, batch: Sequences) -> Tensor:
        """Positions that count: [batch, context] bool, on the stream's device.

        stream: [batch, context, d_in]. Under `sink="exclude"` attention sinks past the first position are left
        out too (about one token in ten thousand, but enough to carry two thirds of the variance of a test set):
        those of more than SINK_NORM times the batch's median norm.
        """
        keep = batch.keep.to(stream.device)
        if self.tokeniser.sink == "keep" or not bool(keep.any()):
            return keep
        parts = [stream] if self.hook.out is None else [stream[..., : self.d_in], stream[..., self.d_in :]]
        kept = keep
        for norm in (part.float().norm(dim=-1) for part in parts):
            finite = norm.isfinite()  # a position that is not is kept, so that it is noticed
            if bool((keep & finite).any()):
                kept = kept & ~(finite & (norm > SINK_NORM * norm[keep & finite].median()))
        return kept

    def sample(self, split: Split, tokens: int, *, needed: int | None = None) -> Tensor:
        """About `tokens` vectors of a split, for calibration and validation. x: [n, d_in] float32.

        Raises TextError if fewer than `needed` (default: a quarter of `tokens`) can be had, and HostError if the model
        gives NaN or infinity.
        """
        parts = [self.at(batch) for batch in self.held_out(split, tokens)]
        x = torch.cat(parts) if parts else torch.empty(0, self.width)
        self.require(len(x), needed if needed is not None else max(1, tokens // 4), split)
        self.require_finite(x, split)
        return x

    def unrecorded(self) -> Self:
        """The same, which notes elsewhere what is read."""
        return replace(self, digests={})

    def require(self, found: int, needed: int, split: Split) -> None:
        """Raise TextError if a split yielded fewer vectors than a job needs."""
        require_tokens(found, needed, split, self.text, self.tokeniser)

    def require_finite(self, x: Tensor, what: str) -> None:
        """Raise HostError if any of x: [n, d_in] is NaN or infinite. what: which vectors these are."""
        wrong = int((~x.isfinite().all(-1)).sum())
        if wrong:
            raise HostError(
                f"{self.host.name} gives NaN or infinity at {self.hook.name}: {wrong} of {len(x)} {what} vectors",
                "check the model's files and precision, or use an earlier hook",
            )


class Place(NamedTuple):
    """Where a window of training vectors begins."""

    passes: int = 0
    """Passes over the text before."""
    sequences: int = 0
    """Batches of sequences of this pass before."""
    vectors: int = 0
    """Vectors of the next batch of sequences that belong to the window before."""


@dataclass(frozen=True)
class Cursor:
    """How far training batches were handed out: enough for the next one to be the same after a restart."""

    place: Place
    """Of the present window."""
    taken: int
    """Training batches of it that were handed out."""
    order: Tensor
    """[5056] uint8: the generator's state before the window was shuffled."""
    mean: Tensor
    """[d_in] float32: x̄ of the tokens harvested before the window."""
    distinct_tokens: int
    """How many those are."""


@dataclass
class TrainingBatches:
    """Shuffled batches over the train split: window by window, each window harvested, permuted and used up.

    If all tokens asked for fit in one window they are harvested once; every further pass is a new permutation.
    """

    reader: Reader | GivenVectors
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
    """x̄: [d_in] float32 of the tokens harvested in the first pass so far; NaN and infinity left out."""
    cursor: Cursor = field(init=False, repr=False)
    """After the latest batch that was handed out."""
    _whole: Tensor | None = field(default=None, init=False, repr=False)
    """All tokens asked for, if they fitted in one window: iterating again then reads nothing."""

    def __post_init__(self) -> None:
        self.mean = torch.zeros(self.reader.width)
        self.cursor = self.beginning()

    def __iter__(self) -> Iterator[Tensor]:
        """Endless x: [batch_tokens, d_in] float32. Raises TextError if the split has less than one batch."""
        return self.following(self.beginning())

    def following(self, cursor: Cursor) -> Iterator[Tensor]:
        """The same from a cursor on; the window that it stands in is harvested again, those before it are not."""
        order = torch.Generator().manual_seed(self.seed)
        order.set_state(cursor.order)
        self.cursor = cursor
        if self._whole is None:
            self.mean, self.distinct_tokens = cursor.mean.clone(), cursor.distinct_tokens
        while True:
            start = cursor.place
            for window, end in self._windows(start) if self._whole is None else [(self._whole, start)]:
                places = torch.randperm(len(window), generator=order)
                batches = [part for part in places.split(self.batch_tokens) if len(part) == self.batch_tokens]
                after = replace(cursor, taken=0, order=order.get_state())
                if self._whole is None:
                    after = replace(after, place=end, mean=self.mean.clone(), distinct_tokens=self.distinct_tokens)
                for number in range(cursor.taken, len(batches)):
                    last = number + 1 == len(batches)
                    self.cursor = after if last else replace(cursor, taken=number + 1)
                    yield window[batches[number]]
                cursor = after
            if self._whole is None:
                cursor = Cursor(Place(start.passes + 1), 0, order.get_state(), self.mean.clone(), self.distinct_tokens)

    def harvested(self) -> Tensor | None:
        """All training vectors, [n, d_in] float32, read now if they were not; None if they need several windows."""
        next(iter(self))
        return self._whole

    def sample(self, tokens: int) -> Tensor:
        """The first so many training vectors, [n, d_in] float32: from memory if all of them are there, else read again.
        NaN and infinity are left out."""
        if self._whole is not None:
            x = self._whole[:tokens]
        else:
            again = self.reader.unrecorded()
            x = torch.cat(list(again.vectors("train", min(tokens, self.train_tokens), seed=self.seed)))
        return x[x.isfinite().all(-1)]

    def give(self, whole: Tensor, mean: Tensor, distinct_tokens: int) -> None:
        """Take what another `harvested` the same tokens, instead of reading them."""
        self._whole, self.mean, self.distinct_tokens = whole, mean, distinct_tokens

    def beginning(self) -> Cursor:
        """Before the first batch."""
        order = torch.Generator().manual_seed(self.seed)
        return Cursor(Place(), 0, order.get_state(), torch.zeros(self.reader.width), 0)

    def _windows(self, start: Place) -> Iterator[tuple[Tensor, Place]]:
        """Windows of one pass from a place on, each with the place where the next begins. Windows before the last are
        of whole batches, so that nothing is lost between two."""
        passes, number, used = start
        first, fresh = passes == 0, start == Place(passes)
        batches = self.buffer_bytes // (4 * self.reader.width * self.batch_tokens)
        capacity = max(1, batches) * self.batch_tokens
        buffer = torch.empty(min(capacity, self.train_tokens), self.reader.width)
        filled, harvested, several = 0, 0, len(buffer) < self.train_tokens
        for x in self.reader.vectors("train", self.train_tokens, seed=self.seed + passes, skip=number):
            if first and not used:
                self._count(x)
            place = used
            x, used = x[used:], 0
            harvested += len(x)
            self.progress(len(x))
            while len(x):
                part, x = x[: len(buffer) - filled], x[len(buffer) - filled :]
                buffer[filled : filled + len(part)] = part
                filled += len(part)
                place += len(part)
                if filled == len(buffer):
                    self._whole = None if several else buffer
                    yield buffer, Place(passes, number, place) if len(x) else Place(passes, number + 1)
                    filled = 0
            number += 1
        if first and fresh:
            self.reader.require(harvested, self.batch_tokens, "train")
        whole = fresh and harvested == filled
        if not whole:
            filled = self._completed(buffer, filled)
        if filled >= self.batch_tokens:
            self._whole = buffer[:filled] if whole else None
            yield buffer[:filled], Place(passes + 1)

    def _completed(self, buffer: Tensor, filled: int) -> int:
        """A last batch that lacks less than half is completed with vectors of its window. Returns how many there are.

        A few positions are left out of nearly every text, so that a pass over steps · batch_tokens ends just short of
        its last step, for which a whole window would be harvested again.
        """
        missing = -filled % self.batch_tokens
        if not 0 < missing < self.batch_tokens / 2:
            return filled
        buffer[filled : filled + missing] = buffer[:missing]
        return filled + missing

    def _count(self, x: Tensor) -> None:
        """Take vectors of the first pass into the mean. x: [n, d_in]."""
        x = x[x.isfinite().all(-1)]
        self.distinct_tokens += len(x)
        if len(x):
            self.mean += (x.mean(0).cpu() - self.mean) * (len(x) / self.distinct_tokens)
