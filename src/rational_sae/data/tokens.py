"""Documents → token sequences, with one stated rule for the positions that count.

A position is kept (trained on and measured) unless it holds a special token (BOS, EOS, PAD) or, under the
default `sink="exclude"`, is the first of its sequence: that position carries a massive activation (seen: norm
29 792 against a typical 142) that says nothing about the text. Excluded positions still go through the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rational_sae.data.chat import Counted, rendered
from rational_sae.data.text import Split, Text
from rational_sae.errors import TextError

Sink = Literal["exclude", "keep"]

EVAL_TOKENS_PER_DOCUMENT = 256
"""At most this many tokens of one document are evaluated, so that no long document dominates."""

FEW_DOCUMENTS = 100
"""Of fewer, one of the four splits may well have none."""

PEEK_DOCUMENTS = 20
"""Documents looked at to tell a text that is too short from a tokenizer that does not know it."""


@dataclass(frozen=True)
class Sequences:
    """A batch of token sequences, right-padded; padding is never kept."""

    input_ids: Tensor
    """[batch, context] int64."""
    keep: Tensor
    """[batch, context] bool: the positions that count."""
    document: Tensor
    """[batch] int64: which document of the split each sequence is from."""


@dataclass(frozen=True)
class Tokeniser:
    """How documents become sequences: one rule for training and evaluation alike."""

    tokenizer: Any
    context: int = 128
    bos: bool = False
    sink: Sink = "exclude"
    sequences_per_batch: int = 8
    positions: range | None = None
    """Positions of a sequence that may count; default: all."""
    chat_tokens: Counted = "assistant"
    """Tokens of a dialogue that count."""

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
        for index, ids in self._limited_documents(text.pieces(split, seed=seed), per_document, chat=text.chat):
            for chunk in self._chunks(ids):
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

    def one_each(self, texts: list[str]) -> Iterator[Sequences]:
        """One sequence a text, cut at the context; `document` is the text's place in the list. Empty ones are skipped.

        Texts of like length share a batch, so that padding stays rare.
        """
        rows = [(next(self._chunks(ids), []), index) for index, ids in enumerate(self._encoded(texts))]
        rows = sorted((row for row in rows if row[0]), key=lambda row: len(row[0]))
        for start in range(0, len(rows), self.sequences_per_batch):
            part = rows[start : start + self.sequences_per_batch]
            yield self._limited(part, sum(len(ids) for ids, _ in part))

    def ends(self, texts: Sequence[str]) -> list[list[int]]:
        """The last tokens of each text, as many as the context takes; empty where its last position never counts."""
        prefix = [self.tokenizer.bos_token_id] if self.bos else []
        found = [prefix + ids[len(prefix) - self.context :] if ids else [] for ids in self._encoded(texts)]
        special = set(self.tokenizer.all_special_ids)
        return [ids if ids and ids[-1] not in special and self._may_count(len(ids) - 1) else [] for ids in found]

    def at_ends(self, rows: Sequence[list[int]]) -> Iterator[Sequences]:
        """Sequences of which only the last position counts; `document` is the place in the list.

        rows: token ids, none empty, best in the order of their lengths. A batch has about as many tokens as others.
        """
        most = self.sequences_per_batch * self.context
        start = 0
        while start < len(rows):
            end, longest = start, 0
            while end < len(rows) and (end == start or (end + 1 - start) * max(longest, len(rows[end])) <= most):
                longest = max(longest, len(rows[end]))
                end += 1
            batch = self._limited([(rows[place], place) for place in range(start, end)], most)
            last = torch.tensor([len(ids) - 1 for ids in rows[start:end]])
            yield replace(batch, keep=batch.keep & (torch.arange(longest) == last[:, None]))
            start = end

    def _may_count(self, place: int) -> bool:
        """Whether a position counts, whatever its token."""
        return (place > 0 or self.sink == "keep") and (self.positions is None or place in self.positions)

    def only_specials(self, documents: Iterable[str]) -> tuple[int, str] | None:
        """If a few documents hold nothing but special tokens: how many tokens, and the first of them; else None."""
        ids = [token for document in self._encoded(itertools.islice(documents, PEEK_DOCUMENTS)) for token in document]
        if not ids or set(ids) - set(self.tokenizer.all_special_ids):
            return None
        return len(ids), self.tokenizer.convert_ids_to_tokens(ids[0])

    def _limited_documents(
        self, pieces: Iterator[tuple[int, str]], per_document: int | None, *, chat: bool
    ) -> Iterator[tuple[int, list[int]]]:
        """Token ids of pieces, each with the number of its document; of one document's at most per_document in all."""
        latest, taken = -1, 0
        for number, piece in pieces:
            taken = taken if number == latest else 0
            latest = number
            if per_document is None or taken < per_document:
                ids = self._dialogue(piece) if chat else next(self._encoded([piece]))
                ids = ids if per_document is None else ids[: per_document - taken]
                taken += len(ids)
                yield number, ids

    def _dialogue(self, document: str) -> list[int]:
        """A token that does not count is ~token, which is negative, until `_limited` makes a batch of it."""
        ids, counted = rendered(self.tokenizer, document, self.chat_tokens)
        if self.bos and ids[:1] == [self.tokenizer.bos_token_id]:  # of the template; `_chunks` puts one before each
            ids, counted = ids[1:], counted[1:]
        return [token if counts else ~token for token, counts in zip(ids, counted, strict=True)]

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
            input_ids[i, : len(ids)] = torch.tensor([max(token, ~token) for token in ids])
            keep[i, : len(ids)] = torch.tensor([token >= 0 and token not in special for token in ids])
        if self.positions is not None:
            keep &= torch.tensor([place in self.positions for place in range(longest)])
        if self.sink == "exclude":
            keep[:, 0] = False
        keep &= (keep.flatten().cumsum(0) <= room).view_as(keep)
        return Sequences(input_ids, keep, torch.tensor([document for _, document in rows]))

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.tokenizer.eos_token_id or 0


def require_tokens(found: int, needed: int, split: Split, text: Text, tokeniser: Tokeniser) -> None:
    """Raise TextError if a split yielded fewer kept tokens than a job needs."""
    if found < needed:
        require_words(tokeniser, text.name, text.documents(split))
        documents = text.kept()
        few = " (a .txt in a folder is one; by itself it is read in blocks)" if documents < FEW_DOCUMENTS else ""
        more = f", some {-(-needed // found)} times as much text" if found else ""
        raise TextError(
            f"{text.name} gives {found} tokens for the {split} split, {needed} are needed",
            f"give more or longer documents than these {documents}{few}{more}, or ask for fewer tokens (--eval-tokens, "
            "--batch-tokens)",
        )


def require_words(tokeniser: Tokeniser, name: str, documents: Iterable[str]) -> None:
    """Raise TextError if the first documents are nothing but special tokens to this tokenizer."""
    if specials := tokeniser.only_specials(documents):
        count, token = specials
        raise TextError(
            f"the tokenizer reads {name} as special tokens only ({count} tokens looked at, the first is {token})",
            "give the model with its own tokenizer, or text that it knows",
        )
