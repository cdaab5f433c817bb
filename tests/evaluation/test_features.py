"""Single latents before and after: movement, firing and examples, against plain loops on a tiny Llama."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_tokenizer

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.logits import direct_logits
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.evaluation import features
from rational_sae.evaluation.examples import BANDS, TOP, WINDOW, Examples
from rational_sae.evaluation.features import BINS, SHOWN, chosen_latents, histogram, public_page
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.model import SAE

D, D_SAE, TOKENS = 32, 64, 400
DEAD, REVIVED, LOST, TURNED = 3, 5, 7, 11


@pytest.fixture
def reader(tiny_hosts: dict[str, Host], tiny_text: Text) -> Reader:
    host = tiny_hosts["llama"]
    return Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, 40))


def pair() -> dict[str, SAE]:
    W = torch.randn(D, D_SAE, generator=torch.Generator().manual_seed(0)) / D**0.5
    threshold = torch.full((D_SAE,), 0.3)
    threshold[[DEAD, REVIVED]] = 1e6
    before = SAE(W, torch.zeros(D_SAE), W.T, torch.zeros(D), ThresholdGate(threshold))
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.gate.threshold[[REVIVED, LOST]] = torch.tensor([0.3, 1e6])  # type: ignore[union-attr, index]
        after.W_dec[TURNED] *= -1
    return {"teacher": before, "rsae": after}


def test_figures_equal_plain_ones(reader: Reader) -> None:
    rows = pair()
    found = features(reader, rows, TOKENS)
    x = torch.cat([reader.at(batch) for batch in reader.held_out("test", TOKENS)])
    z = {name: sae.encode(x).detach().double() for name, sae in rows.items()}
    latents = {one["latent"]: one for one in found["latents"]}
    assert sorted(latents) == list(range(D_SAE)), "fewer than may be shown: all of them, those that never fire too"
    assert latents[DEAD]["status"] == "dead"
    for j, one in latents.items():
        for name in rows:
            assert one["fired"][name] == int((z[name][:, j] != 0).sum())
            assert one["largest"][name] == pytest.approx(float(z[name][:, j].max()), rel=1e-4)
            assert sum(map(int, one["histogram"][name].split())) == one["fired"][name]
            assert one["density"][name] == pytest.approx(float((z[name][:, j] != 0).double().mean()), rel=1e-5)
    live = [j for j in latents if j not in (DEAD, REVIVED, LOST)]
    for j in live:
        expected = np.corrcoef(z["teacher"][:, j], z["rsae"][:, j])[0, 1]
        assert latents[j]["correlation"] == pytest.approx(expected, abs=1e-4)
        on = [z[name][:, j] != 0 for name in rows]
        assert latents[j]["overlap"] == pytest.approx(float((on[0] & on[1]).sum() / (on[0] | on[1]).sum()), rel=1e-4)
    assert latents[REVIVED]["correlation"] is None
    assert latents[REVIVED]["overlap"] == latents[LOST]["overlap"] == 0
    assert latents[TURNED]["cos_decoder"] == pytest.approx(-1)
    assert latents[TURNED]["change"] == pytest.approx(2)
    assert latents[TURNED]["cos_encoder"] == pytest.approx(1)
    summary = found["summary"]
    assert summary["dead"]["rsae"] == summary["dead"]["teacher"] == 2
    assert (summary["newly_alive"], summary["newly_dead"]) == (1, 1)
    assert [latents[j]["status"] for j in (REVIVED, LOST, 0)] == ["newly_alive", "newly_dead", "kept"]
    assert summary["median_cos_decoder"] == pytest.approx(1)


def test_examples_are_the_strongest_of_all_sequences(reader: Reader) -> None:
    rows = pair()
    found = features(reader, rows, TOKENS)
    peaks: list[float] = []
    j = 0
    for batch in reader.held_out("test", TOKENS):
        stream = reader.host.residual(batch.input_ids, reader.hook)
        for sequence, keep in zip(stream, reader.kept(stream, batch), strict=True):
            if keep.any():
                peaks.append(float(rows["teacher"].encode(sequence[keep].float()).detach()[:, j].max()))
    (latent,) = [one for one in found["latents"] if one["latent"] == j]
    examples = [read(found, one) for one in latent["examples"]["teacher"]]
    assert [one["values"][one["peak"]] for one in examples] == pytest.approx(
        sorted((p for p in peaks if p > 0), reverse=True)[:TOP], rel=1e-3
    )
    assert max(len(one["tokens"]) for one in examples) == WINDOW, "only a sequence cut by the token limit is shorter"
    for one in examples:
        assert len(one["tokens"]) == len(one["values"]) <= WINDOW
        assert one["values"][one["peak"]] == max(one["values"])
        assert all(token.strip().startswith("w") for token in one["tokens"])
    lost = next(one for one in found["latents"] if one["latent"] == LOST)
    assert lost["examples"]["rsae"] == lost["weaker"]["rsae"] == []


def read(found: dict[str, Any], written: str) -> dict[str, Any]:
    """An example as the page takes it apart."""
    number, start, size, peak, *entries = written.split(" ")
    places = found["text"]["sequences"][int(number)].split(" ")[int(start) : int(start) + int(size)]
    values = [0.0] * len(places)
    for entry in entries:
        place, _, value = entry.partition(":")
        values[int(place)] = float(value)
    tokens = [found["text"]["tokens"][int(place)] for place in places]
    return {"tokens": tokens, "values": values, "peak": int(peak)}


def test_weaker_examples_are_one_of_each_band_of_the_latents_own_largest_value(reader: Reader) -> None:
    found = features(reader, pair(), TOKENS)
    seen = 0
    for latent in found["latents"]:
        for name in ("teacher", "rsae"):
            heights = [one["values"][one["peak"]] for one in (read(found, w) for w in latent["weaker"][name])]
            shares = [height / latent["largest"][name] for height in heights]
            bands = [next(i for i, (low, high) in enumerate(BANDS) if low < share <= high) for share in shares]
            assert bands == sorted(set(bands))
            seen += len(bands)
    assert seen > D_SAE, "most latents have a weaker example"
    again = features(reader, pair(), TOKENS)
    assert again == found, "the draw has a seed"


def test_logits_are_those_of_the_decoder_row_and_what_is_kept_of_them_is_counted(reader: Reader) -> None:
    rows = pair()
    found = features(reader, rows, TOKENS)
    latents = {one["latent"]: one for one in found["latents"]}
    logits = direct_logits(reader.host, reader.hook, rows["teacher"].W_dec[[0]])[0]
    for end, sign in (("promoted", 1), ("suppressed", -1)):
        entries = [one.split(":") for one in latents[0]["logits"]["teacher"][end].split(" ")]
        best = (sign * logits).topk(10)
        assert [found["text"]["tokens"][int(place)] for place, _ in entries] == [
            reader.host.tokenizer.decode([token]) for token in best.indices.tolist()
        ]
        assert [sign * float(value) for _, value in entries] == pytest.approx(best.values.tolist(), rel=1e-2)
    assert latents[0]["tokens_kept"] == 1
    assert latents[TURNED]["tokens_kept"] == 0, "the opposite direction promotes what was suppressed"


def test_where_nothing_reaches_the_logits_there_are_none_and_the_rest_is_there(
    tiny_hosts: dict[str, Host], tiny_text: Text
) -> None:
    host = tiny_hosts["llama"]
    reader = Reader(host, host.hook("blocks.1.ln2.hook_normalized"), tiny_text, Tokeniser(host.tokenizer, 40))
    found = features(reader, pair(), TOKENS)
    assert "logits" not in found["latents"][0]
    assert "tokens_kept" not in found["latents"][0]
    assert any(latent["examples"]["teacher"] for latent in found["latents"])


def test_a_histogram_counts_equal_parts_of_the_way_to_the_largest() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.01, 0.0], [0.5, 0.0]])
    counts = histogram(z, torch.tensor([1.0, 0.0]))
    expected = torch.zeros(BINS, dtype=torch.int64)
    expected[[0, BINS // 2 - 1, BINS - 1]] = 1
    assert counts[0].tolist() == expected.tolist()
    assert counts[1].sum() == 0


@pytest.mark.parametrize(
    ("named", "page"),
    [
        ("gpt2-small/8-res-jb", "https://www.neuronpedia.org/gpt2-small/8-res-jb/"),
        ("a/b/c", None),
        ("javascript:alert(1)", None),
        (None, None),
    ],
)
def test_only_a_plain_name_becomes_part_of_an_address(named: str | None, page: str | None) -> None:
    sae = pair()["teacher"]
    sae.metadata.extra["neuronpedia_id"] = named
    assert public_page(sae) == page


def collected(ids: list[list[int]], keep: list[list[bool]], z: list[list[float]]) -> list[dict[str, Any]]:
    found = Examples(tiny_tokenizer(), [0])
    kept = torch.tensor(keep)
    found.add(torch.tensor(ids), kept, torch.tensor(z)[kept][:, None])
    return found.latents()[0]


def test_a_short_sequence_gives_a_short_window_without_padding_and_a_silent_one_none() -> None:
    (only,) = collected(
        [[4, 5, 6, 0], [7, 8, 9, 10]],
        [[False, True, True, False], [False, True, True, True]],
        [[0, 1, 2, 0], [0, 0, 0, 0]],
    )
    assert only == {"tokens": ["w0", "w1", "w2"], "values": [0.0, 1.0, 2.0], "peak": 2}


def test_a_window_in_a_long_sequence_shows_more_of_what_comes_before() -> None:
    ids = [[4 + i % 60 for i in range(50)]]
    (only,) = collected(ids, [[True] * 50], [[float(i == 30) for i in range(50)]])
    assert len(only["tokens"]) == WINDOW
    assert only["peak"] == 24
    (late,) = collected(ids, [[True] * 50], [[float(i == 49) for i in range(50)]])
    assert (len(late["tokens"]), late["peak"]) == (WINDOW, WINDOW - 1)


def test_the_choice_holds_each_kind_once_and_at_most_so_many() -> None:
    n = 4000
    change = torch.rand(n, generator=torch.Generator().manual_seed(0))
    before = torch.ones(n, dtype=torch.bool)
    after = before.clone()
    before[:1000], after[900:1000] = False, False  # 900 revived, 100 dead throughout
    chosen = chosen_latents(change, before, after, seed=0)
    assert len(chosen) == len(set(chosen)) == sum(SHOWN.values()) == 2500
    assert not set(chosen) & set(range(900, 1000)), "those that never fired come last"
    alive = change.clone()
    alive[900:1000] = -1
    assert set(alive.argsort(descending=True)[:100].tolist()) <= set(chosen)
    assert chosen == chosen_latents(change, before, after, seed=0)
    assert chosen != chosen_latents(change, before, after, seed=1)
    assert chosen_latents(change[:2304], before[:2304], after[:2304], seed=0) == list(range(2304))
