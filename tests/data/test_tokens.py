"""Which positions count: never the first, never a special token, never padding, never more than asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TINY_WORDS, tiny_tokenizer

from rational_sae.data.text import Text
from rational_sae.data.tokens import Sequences, Tokeniser, require_tokens
from rational_sae.errors import TextError

BOS, EOS = 1, 2
CONTEXT = 8


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def train_text(*lengths: int, ending: str = "") -> Text:
    """A text whose train split has one document of each length, in order."""
    documents: list[str] = []
    for length in lengths:
        for start in range(10_000):
            words = [TINY_WORDS[(start * 7 + i * (start + 1)) % len(TINY_WORDS)] for i in range(length)]
            document = " ".join(words) + ending
            one = Text("one", lambda document=document: iter([document]))
            if document not in documents and list(one.documents("train")):
                documents.append(document)
                break
    assert len(documents) == len(lengths)
    return Text("documents", lambda: iter(documents))


def batches(tokeniser: Tokeniser, text: Text, max_tokens: int = 10**6, **options: Any) -> list[Sequences]:
    return list(tokeniser.batches(text, "train", max_tokens, **options))


def kept(found: list[Sequences]) -> int:
    return sum(int(batch.keep.sum()) for batch in found)


def test_the_first_position_is_excluded_unless_told(tokenizer: Any) -> None:
    text = train_text(CONTEXT)
    (excluded,) = batches(Tokeniser(tokenizer, CONTEXT), text)
    (keeping,) = batches(Tokeniser(tokenizer, CONTEXT, sink="keep"), text)
    assert excluded.keep.tolist() == [[False] + [True] * (CONTEXT - 1)]
    assert keeping.keep.all()
    assert torch.equal(excluded.input_ids, keeping.input_ids)


@pytest.mark.parametrize("sink", ["exclude", "keep"])
def test_special_tokens_are_excluded(tokenizer: Any, sink: Any) -> None:
    text = train_text(4, ending=" <eos>")
    (batch,) = batches(Tokeniser(tokenizer, CONTEXT, bos=True, sink=sink), text)
    assert batch.input_ids[0, 0] == BOS
    assert batch.input_ids[0, -1] == EOS
    assert batch.keep.tolist() == [[False, True, True, True, True, False]]


def test_bos_starts_every_sequence_and_fits_in_the_context(tokenizer: Any) -> None:
    (batch,) = batches(Tokeniser(tokenizer, CONTEXT, bos=True), train_text(3 * (CONTEXT - 1)))
    assert batch.input_ids.shape == (3, CONTEXT)
    assert (batch.input_ids[:, 0] == BOS).all()
    assert (batch.input_ids[:, 1:] != BOS).all()
    assert kept([batch]) == 3 * (CONTEXT - 1)


def test_chunks_are_the_document_in_order(tokenizer: Any) -> None:
    text = train_text(2 * CONTEXT)
    (batch,) = batches(Tokeniser(tokenizer, CONTEXT), text)
    (document,) = text.documents("train")
    assert batch.input_ids.flatten().tolist() == tokenizer(document).input_ids


@pytest.mark.parametrize("max_tokens", [1, 5, 14, 28, 29, 100])
def test_max_tokens_is_never_passed_and_reached_when_the_text_has_them(tokenizer: Any, max_tokens: int) -> None:
    text = train_text(*[CONTEXT] * 20)  # 7 kept positions each
    found = batches(Tokeniser(tokenizer, CONTEXT, sequences_per_batch=4), text, max_tokens)
    assert kept(found) == max_tokens
    assert len(found) == -(-max_tokens // 28)  # no batch is made once enough are kept


def test_a_text_that_ends_early_gives_what_it_has(tokenizer: Any) -> None:
    found = batches(Tokeniser(tokenizer, CONTEXT, sequences_per_batch=4), train_text(*[CONTEXT] * 6))
    assert [len(batch.input_ids) for batch in found] == [4, 2]
    assert kept(found) == 6 * (CONTEXT - 1)


def test_per_document_bounds_the_tokens_of_one_document(tokenizer: Any) -> None:
    found = batches(Tokeniser(tokenizer, CONTEXT), train_text(60, CONTEXT), per_document=2 * CONTEXT)
    assert torch.cat([batch.document for batch in found]).tolist() == [0, 0, 1]


def test_pieces_of_one_document_share_its_number_and_its_bound(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bootstrap over documents takes what has different numbers for independent."""
    monkeypatch.setattr("rational_sae.data.text.MAX_DOCUMENT_CHARACTERS", 64)
    text = train_text(100, CONTEXT)
    assert len(list(text.documents("train"))) > 4
    whole = torch.cat([batch.document for batch in batches(Tokeniser(tokenizer, CONTEXT), text)])
    assert set(whole.tolist()) == {0, 1}
    assert int((whole == 0).sum()) > 8
    limited = batches(Tokeniser(tokenizer, CONTEXT), text, per_document=4 * CONTEXT)
    tokens = sum(int((batch.input_ids != tokenizer.pad_token_id)[batch.document == 0].sum()) for batch in limited)
    assert 2 * CONTEXT < tokens <= 4 * CONTEXT
    assert sorted(set(torch.cat([batch.document for batch in limited]).tolist())) == [0, 1]


def test_short_documents_are_kept_and_partial_last_chunks_dropped(tokenizer: Any) -> None:
    (batch,) = batches(Tokeniser(tokenizer, CONTEXT), train_text(3, CONTEXT + 5, 2))
    assert batch.document.tolist() == [0, 1, 2]
    assert batch.keep.sum(1).tolist() == [2, CONTEXT - 1, 1]


@pytest.mark.parametrize("sink", ["exclude", "keep"])
def test_padding_is_on_the_right_and_never_kept(tokenizer: Any, sink: Any) -> None:
    (batch,) = batches(Tokeniser(tokenizer, CONTEXT, sink=sink), train_text(3, CONTEXT))
    assert batch.input_ids.shape == (2, CONTEXT)
    assert (batch.input_ids[0, 3:] == tokenizer.pad_token_id).all()
    assert not batch.keep[0, 3:].any()


def test_padding_is_not_kept_when_the_tokenizer_has_no_pad_token() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    (batch,) = batches(Tokeniser(tokenizer, CONTEXT, sink="keep"), train_text(3, CONTEXT))
    assert (batch.input_ids[0, 3:] == EOS).all()
    assert batch.keep.sum(1).tolist() == [3, CONTEXT]


def test_too_few_tokens_are_refused_with_both_numbers(tokenizer: Any) -> None:
    text, tokeniser = train_text(3), Tokeniser(tokenizer, CONTEXT)
    require_tokens(5, 5, "test", text, tokeniser)
    wanted = r"gives 4 tokens for the test split, 5 are needed; .* than these 1 \(a .txt in a folder is one"
    wanted += r".*, some 2 times as much text, or ask for fewer tokens \(--eval-tokens, --batch-tokens\)"
    with pytest.raises(TextError, match=wanted):
        require_tokens(4, 5, "test", text, tokeniser)


def test_a_tokenizer_that_knows_no_word_of_a_text_is_named_as_the_reason(tokenizer: Any) -> None:
    unknown = Text("foreign", lambda: (f"unheard of number{i}" for i in range(400)))
    with pytest.raises(TextError, match=r"reads foreign as special tokens only \(60 tokens looked at, .* <unk>\)"):
        require_tokens(0, 5, "train", unknown, Tokeniser(tokenizer, CONTEXT))


def test_one_sequence_a_text_is_cut_at_the_context_and_keeps_its_place(tokenizer: Any) -> None:
    texts = ["w1 " * 12, "w2", "", "w3 w4"]
    (batch,) = Tokeniser(tokenizer, CONTEXT, sink="keep").one_each(texts)
    assert batch.document.tolist() == [1, 3, 0], "the shortest first, the empty one left out"
    assert batch.keep.sum(1).tolist() == [1, 2, CONTEXT]
