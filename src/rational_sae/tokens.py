"""Documents → token sequences, with one stated rule for the positions that count.

A position is kept (trained on and measured) unless it holds a special token (BOS, EOS, PAD) or, under the
default `sink="exclude"`, is the first of its sequence: that position carries a massive activation (seen: norm
29 792 against a typical 142) that says nothing about the text. Excluded positions still go through the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rational_sae.errors import TextError
from rational_sae.text import Split, Text

Sink = Literal["exclude", "keep"]

EVAL_TOKENS_PER_DOCUMENT = 256
"""At most this many tokens of one document are evaluated, so that no long document dominates."""


@dataclass(frozen=True)
class Sequences:
    """A batch of token sequences, right-padded; padding is never kept."""

    input_ids: Tensor
    """[batch, context] int64."""
    keep: Tensor
    """[batch, context] bool: the positions that count."""
    document: Tensor
    """[batch] int64: which document of the pass each sequence is from."""


@dataclass(frozen=True)
class Tokeniser:
    """How documents become sequences: one rule for training and evaluation alike."""

    tokenizer: Any
    context: int = 128
    bos: bool = False
    sink: Sink = "exclude"
    sequences_per_batch: int = 8

    def batches(
        self,
        text: Text,
        split: Split,
        max_tokens: int,
        *,
        seed: int | None = None,
        per_document: int | None = None,
    ) -> Iterator[Sequences]:
        """Sequences of one split until `max_tokens` positions are kept or the text ends.

        per_document: at most this many tokens of one document. A last, partial chunk of a document is
        dropped unless it is the document's only one, so that padding stays rare.
        """
        kept = 0
        rows: list[tuple[list[int], int]] = []
        for index, ids in enumerate(self._encoded(text.documents(split, seed=seed))):
            for chunk in self._chunks(ids[:per_document]):
                rows.append((chunk, index))
                if len(rows) == self.sequences_per_batch:
                    batch = self._limited(rows, max_tokens - kept)
                    kept += int(batch.keep.sum())
                    rows = []
                    yield batch
                    if kept >= max_tokens:
                        return
        if rows:
            yield self._limited(rows, max_tokens - kept)

    def _encoded(self, documents: Iterable[str]) -> Iterator[list[int]]:
        for document in documents:
            yield self.tokenizer(document, add_special_tokens=False, verbose=False).input_ids

    def _chunks(self, ids: list[int]) -> Iterator[list[int]]:
        prefix = [self.tokenizer.bos_token_id] if self.bos else []
        size = self.context - len(prefix)
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            if len(chunk) == size or start == 0:
                yield prefix + chunk

    def _limited(self, rows: list[tuple[list[int], int]], room: int) -> Sequences:
        longest = max(len(ids) for ids, _ in rows)
        input_ids = torch.full((len(rows), longest), self._pad)
        keep = torch.zeros(len(rows), longest, dtype=torch.bool)
        special = set(self.tokenizer.all_special_ids)
        for i, (ids, _) in enumerate(rows):
            input_ids[i, : len(ids)] = torch.tensor(ids)
            keep[i, : len(ids)] = torch.tensor([token not in special for token in ids])
        if self.sink == "exclude":
            keep[:, 0] = False
        keep &= (keep.flatten().cumsum(0) <= room).view_as(keep)
        return Sequences(input_ids, keep, torch.tensor([document for _, document in rows]))

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.tokenizer.eos_token_id or 0


def require_tokens(found: int, needed: int, split: Split, text: Text) -> None:
    """Raise TextError if a split yielded fewer kept tokens than a job needs."""
    if found < needed:
        raise TextError(
            f"{text.name} gives {found} tokens for the {split} split, {needed} are needed",
            "give more or longer documents, or ask for fewer tokens",
        )
