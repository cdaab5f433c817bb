"""Training batches: set by the seed, bounded in memory, a new order at every pass, no first positions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from rational_sae.data.activations import Place, Reader, TrainingBatches
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import EVAL_TOKENS_PER_DOCUMENT, Tokeniser
from rational_sae.errors import HostError, TextError

CONTEXT = 20
BATCH = 64
EVERYTHING = 10**6
D_IN = 32
ROW_BYTES = 4 * D_IN


@pytest.fixture
def reader(tiny_hosts: dict[str, Host], tiny_text: Text) -> Reader:
    host = tiny_hosts["llama"]
    return Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, CONTEXT))


def training(reader: Reader, tokens: int = 640, **options: Any) -> TrainingBatches:
    return TrainingBatches(reader, tokens, BATCH, **{"seed": 0, **options})


def first(batches: TrainingBatches, count: int) -> list[Tensor]:
    return list(islice(batches, count))


def rows(batches: list[Tensor]) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for batch in batches for row in batch.tolist())


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_vectors_are_float32_of_kept_positions_and_no_more_than_asked(reader: Reader) -> None:
    parts = list(reader.vectors("train", 100))
    assert sum(map(len, parts)) == 100
    assert all(part.dtype == torch.float32 and part.shape[1] == D_IN for part in parts)
    (batch, *_) = reader.tokeniser.batches(reader.text, "train", EVERYTHING)
    stream = reader.host.residual(batch.input_ids, reader.hook)
    assert torch.equal(reader.at(batch), stream[:, 1:].flatten(0, 1))


def test_a_sink_past_the_first_position_is_left_out_unless_told(reader: Reader) -> None:
    (batch, *_) = reader.tokeniser.batches(reader.text, "train", EVERYTHING)
    stream = reader.host.residual(batch.input_ids, reader.hook)
    expected = batch.keep.clone()
    expected[2, 5] = False
    stream[2, 5] *= 100
    assert torch.equal(reader.kept(stream, batch), expected)
    keeping = Tokeniser(reader.tokeniser.tokenizer, CONTEXT, sink="keep")
    assert replace(reader, tokeniser=keeping).kept(stream, batch)[2, 5]


def test_half_precision_streams_are_widened(tiny_folders: dict[str, Any], tiny_text: Text) -> None:
    from rational_sae.data.language_model import load_host

    host = load_host(str(tiny_folders["llama"]), dtype=torch.bfloat16)
    reader = Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, CONTEXT))
    assert reader.sample("test", 50).dtype == torch.float32


def test_the_same_seed_gives_the_same_batches(reader: Reader) -> None:
    assert equal(first(training(reader), 25), first(training(reader), 25))
    assert not equal(first(training(reader), 5), first(training(reader, seed=1), 5))


def test_batches_are_float32_of_the_stated_shape(reader: Reader) -> None:
    for x in first(training(reader), 12):
        assert x.shape == (BATCH, D_IN)
        assert x.dtype == torch.float32


def test_every_pass_is_a_new_permutation_of_the_same_tokens(reader: Reader) -> None:
    harvested: list[int] = []
    batches = training(reader, progress=harvested.append)
    found = first(batches, 30)
    passes = [found[:10], found[10:20], found[20:]]
    assert rows(passes[0]) == rows(passes[1]) == rows(passes[2])
    assert not equal(passes[0], passes[1])
    assert not equal(passes[1], passes[2])
    assert batches.distinct_tokens == 640
    assert sum(harvested) == 640  # what fits in one window is harvested once


def test_a_small_buffer_is_filled_again_and_again(reader: Reader) -> None:
    whole = first(training(reader), 10)
    harvested: list[int] = []
    batches = training(reader, buffer_bytes=2 * BATCH * ROW_BYTES, progress=harvested.append)
    found = first(batches, 10)
    assert rows(found) == rows(whole)  # the same tokens, window by window
    windows = [rows(found[i : i + 2]) for i in range(0, 10, 2)]
    assert all(one != other for one, other in pairwise(windows))
    assert batches.distinct_tokens == 640
    assert sum(harvested) == 640
    second = first(training(reader, buffer_bytes=2 * BATCH * ROW_BYTES), 20)[10:]
    assert rows(second[:2]) != windows[0]  # the second pass reads the documents in another order


def test_memory_is_bounded_by_the_buffer(reader: Reader) -> None:
    batches = training(reader, tokens=EVERYTHING, buffer_bytes=3 * BATCH * ROW_BYTES)
    sizes = [len(window) for window, _ in islice(batches._windows(Place()), 5)]
    assert sizes == [3 * BATCH] * 5
    storage = next(iter(batches._windows(Place())))[0].untyped_storage()
    assert storage.nbytes() == 3 * BATCH * ROW_BYTES


def test_a_batch_does_not_change_when_the_buffer_is_filled_again(reader: Reader) -> None:
    batches = iter(training(reader, buffer_bytes=BATCH * ROW_BYTES))
    x = next(batches)
    before = x.clone()
    next(batches)
    assert torch.equal(x, before)


def test_too_little_text_is_refused(reader: Reader) -> None:
    short = Text("short", lambda: iter(["w1 w2 w3", "w4 w5 w6"]))
    poor = Reader(reader.host, reader.hook, short, reader.tokeniser)
    with pytest.raises(TextError, match=r"short gives \d+ tokens for the train split, 64 are needed"):
        next(iter(training(poor)))
    with pytest.raises(TextError, match=r"short gives \d+ tokens for the test split, 100 are needed"):
        poor.sample("test", 400)


def test_fewer_tokens_than_asked_are_reported(reader: Reader) -> None:
    batches = training(reader, tokens=EVERYTHING)
    documents = len(list(reader.text.documents("train")))
    first(batches, 1)
    assert batches.distinct_tokens == documents * 2 * (CONTEXT - 1)


def test_a_sample_is_bounded_and_may_need_fewer(reader: Reader) -> None:
    assert len(reader.sample("test", 300)) == 300
    found = reader.sample("validation", EVERYTHING, needed=1)
    assert len(found) < 5000


def test_one_document_gives_a_bounded_share(reader: Reader) -> None:
    words = torch.randint(60, (60, 2000), generator=torch.Generator().manual_seed(0))
    long = Text("long", lambda: iter([" ".join(f"w{i}" for i in row.tolist()) for row in words]))
    greedy = Reader(reader.host, reader.hook, long, reader.tokeniser)
    documents = len(list(long.documents("test")))
    assert documents > 0
    tokens = sum(batch.keep.sum().item() for batch in greedy.held_out("test", EVERYTHING))
    assert 0 < tokens <= documents * EVAL_TOKENS_PER_DOCUMENT


def test_a_real_sample_has_no_first_position_norms(host: Host, news: Text) -> None:
    reader = Reader(host, host.hook("model.layers.11"), news, Tokeniser(host.tokenizer, 32))
    x = reader.sample("calibration", 400)
    assert x.shape == (400, host.d_model)
    assert x.dtype == torch.float32
    norms = x.norm(dim=1)
    assert norms.max() < 20 * norms.median()
    (batch, *_) = reader.held_out("calibration", 400)
    sink = host.residual(batch.input_ids, reader.hook)[:, 0].norm(dim=1)
    assert sink.min() > 20 * norms.median()  # what was left out is indeed massive


def test_tokens_that_fit_in_one_window_are_read_once_and_come_in_the_same_order_again(reader: Reader) -> None:
    batches = training(reader)
    once = first(batches, 25)
    read: list[int] = []
    batches.progress = read.append
    assert equal(first(batches, 25), once)
    assert read == []
    assert batches.distinct_tokens == 640


def test_a_run_that_stops_with_the_last_token_has_read_everything_too(reader: Reader) -> None:
    batches = training(reader)
    once = first(batches, 10)
    batches.progress = lambda _tokens: pytest.fail("read again")
    assert equal(first(batches, 10), once)


def test_several_windows_are_read_again(reader: Reader) -> None:
    batches = training(reader, buffer_bytes=256 * ROW_BYTES)
    first(batches, 8)
    read: list[int] = []
    batches.progress = read.append
    first(batches, 2)
    assert read


@pytest.mark.parametrize("window_vectors", [10_000, 2 * BATCH, 150])  # all in one; whole batches; a cut in mid-batch
def test_batches_go_on_from_any_cursor_as_if_never_stopped(reader: Reader, window_vectors: int) -> None:
    options = {"buffer_bytes": window_vectors * ROW_BYTES, "tokens": 700}
    straight = training(reader, **options)
    steps, cursors, found, counts, means = iter(straight), [], [], [], []
    for _ in range(40):
        found.append(next(steps))
        cursors.append(straight.cursor)
        counts.append(straight.distinct_tokens)
        means.append(straight.mean.clone())
    digest = reader.digests["train", 0]
    for at in range(0, 39, 3):
        resumed = training(reader, **options)
        rest = resumed.following(cursors[at])
        assert all(torch.equal(next(rest), x) for x in found[at + 1 :])
        assert resumed.distinct_tokens == counts[-1]
        assert torch.equal(resumed.mean, means[-1])
    assert reader.digests["train", 0] == digest


def test_a_pass_just_short_of_its_last_batch_does_not_read_a_window_again_for_it(reader: Reader) -> None:
    read: list[int] = []
    short = 10 * BATCH - 5  # as where sinks are left out
    found = first(training(reader, short, buffer_bytes=4 * BATCH * ROW_BYTES, progress=read.append), 10)
    assert sum(read) == short
    counts = Counter(rows(found))
    assert len(counts) == short
    assert Counter(counts.values()) == {1: short - 5, 2: 5}  # the last batch was completed with five of its window


def test_a_last_batch_of_less_than_half_is_left_out(reader: Reader) -> None:
    tokens = 6 * BATCH + BATCH // 2 - 1
    batches = training(reader, tokens, buffer_bytes=4 * BATCH * ROW_BYTES)
    assert [len(window) // BATCH for window, _ in batches._windows(Place())] == [4, 2]


def test_a_text_that_ends_within_the_first_window_is_read_once(reader: Reader) -> None:
    read: list[int] = []
    batches = training(reader, EVERYTHING, buffer_bytes=10**6 * ROW_BYTES - 1, progress=read.append)
    everything = len(list(reader.text.documents("train"))) * 2 * (CONTEXT - 1)
    first(batches, 2 * everything // BATCH)
    assert sum(read) == everything


def test_windows_before_a_cursor_are_not_harvested_again(reader: Reader) -> None:
    options = {"buffer_bytes": 2 * BATCH * ROW_BYTES}
    straight = training(reader, **options)
    first(straight, 7)
    read: list[int] = []
    first_of = next(training(reader, progress=read.append, **options).following(straight.cursor))
    assert len(first_of) == BATCH
    assert sum(read) < 4 * BATCH  # the fourth window alone


def test_the_first_training_tokens_are_the_same_from_memory_and_read_again(reader: Reader) -> None:
    whole, several = training(reader), training(reader, buffer_bytes=256 * ROW_BYTES)
    first(whole, 2), first(several, 2)
    digests = dict(reader.digests)
    assert torch.equal(whole.sample(300), several.sample(300))
    assert len(whole.sample(10_000)) == len(several.sample(10_000)) == 640
    assert reader.digests == digests


def test_several_windows_are_counted_once(reader: Reader) -> None:
    batches = training(reader, buffer_bytes=256 * ROW_BYTES)
    first(batches, 8)
    counted, mean = batches.distinct_tokens, batches.mean.clone()
    first(batches, 8)
    assert batches.distinct_tokens == counted
    assert torch.equal(batches.mean, mean)


def test_nan_is_noticed_sinks_beside_it_are_still_left_out_and_the_mean_is_of_the_rest(reader: Reader) -> None:
    batch = next(iter(reader.held_out("test", 300)))
    stream = reader.host.residual(batch.input_ids, reader.hook)
    stream[1, 3] = torch.nan
    stream[1, 4] = torch.inf
    stream[2, 5] *= 100
    kept = reader.kept(stream, batch)
    assert bool(kept[1, 3] & kept[1, 4])
    assert not bool(kept[2, 5])
    batches = training(reader)
    x = torch.tensor([[1.0] * D_IN, [torch.nan] * D_IN, [3.0] * D_IN])
    batches._count(x)
    assert torch.equal(batches.mean, torch.full((D_IN,), 2.0))
    assert batches.distinct_tokens == 2


def test_a_held_out_sample_with_nan_is_refused(tiny_folders: dict[str, Any], tiny_text: Text) -> None:
    from rational_sae.data.language_model import load_host

    host = load_host(str(tiny_folders["llama"]))
    reader = Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, CONTEXT))
    host.blocks[0].register_forward_hook(
        lambda _module, _inputs, output: output.index_fill(1, torch.tensor(3), torch.nan)
    )
    with pytest.raises(HostError, match=r"NaN or infinity at model\.layers\.1: \d+ of \d+ test vectors"):
        reader.sample("test", 200)


def test_data_is_named_by_a_hash_of_its_sequences(reader: Reader) -> None:
    fresh = replace(reader, digests={})
    fresh.sample("test", 300)
    again = replace(reader, digests={})
    again.sample("test", 300)
    assert fresh.digests == again.digests
    again.sample("test", 400)
    assert fresh.digests != again.digests
