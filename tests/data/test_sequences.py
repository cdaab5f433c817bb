"""Whole sequences for training: what was not harvested first, each once a pass, the same after a restart."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.sequences import SequenceBatches
from rational_sae.data.text import Text, open_text
from rational_sae.data.tokens import Sequences, Tokeniser
from rational_sae.errors import TextError

CONTEXT = 20


@pytest.fixture
def reader(tiny_hosts: dict[str, Host], tiny_text: Text) -> Reader:
    host = tiny_hosts["llama"]
    return Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, CONTEXT))


def rows(batches: list[Sequences]) -> list[tuple[int, ...]]:
    return [tuple(row) for batch in batches for row in batch.input_ids.tolist()]


def everything(reader: Reader, tokens: int) -> list[tuple[int, ...]]:
    return rows(list(reader.tokeniser.batches(reader.text, "train", tokens, seed=3)))


def test_a_first_pass_takes_what_was_not_harvested_and_the_next_one_all(reader: Reader) -> None:
    asked = 8 * 40 * (CONTEXT - 1)
    order = everything(reader, asked)
    assert len(order) == len(set(order)) == 320
    found = SequenceBatches(reader, asked, harvested=asked // 2, sequences=16, seed=3)
    batches = list(islice(found.following(0), 10 + 20))
    assert all(batch.input_ids.shape == batch.keep.shape == (16, CONTEXT) for batch in batches)
    assert sorted(rows(batches[:10])) == sorted(order[160:])
    assert rows(batches[:10]) != order[160:], "neighbours are of one document"
    assert sorted(rows(batches[10:])) == sorted(order)
    assert (found.taken, found.used_tokens, found.distinct_tokens) == (30, 480 * (CONTEXT - 1), asked // 2)


def test_after_a_restart_they_are_the_same(reader: Reader) -> None:
    def made() -> SequenceBatches:
        return SequenceBatches(reader, 5000, harvested=1000, sequences=7, seed=1)

    straight, again, counted = made(), made(), made()
    whole = list(islice(straight.following(0), 60))
    rest = list(islice(again.following(45), 15))
    for one, other in zip(whole[45:], rest, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.keep, other.keep)
    counted.catch_up(60)
    for one in (again, counted):
        assert (one.taken, one.used_tokens, one.distinct_tokens, one.digest) == (
            straight.taken, straight.used_tokens, straight.distinct_tokens, straight.digest,
        )  # fmt: skip
    counted.catch_up(60)
    assert counted.taken == 60
    other = SequenceBatches(reader, 5000, harvested=1000, sequences=7, seed=2)
    assert rows([next(other.following(0))]) != rows(whole[:1])


def test_no_more_positions_count_than_were_asked_for(reader: Reader) -> None:
    found = SequenceBatches(reader, 200, harvested=100, sequences=4, seed=0)
    passes = Counter(rows(list(islice(found.following(0), 30))))
    assert found.distinct_tokens <= 100
    assert len(passes) <= -(-200 // (CONTEXT - 1))


def test_a_text_without_words_is_refused(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("empty") / "text.txt"
    path.write_text("<pad>\n\n<eos>")
    poor = Reader(reader.host, reader.hook, open_text(str(path)), reader.tokeniser)
    with pytest.raises(TextError, match="special tokens only"):
        next(SequenceBatches(poor, 100, harvested=0, sequences=2, seed=0).following(0))
