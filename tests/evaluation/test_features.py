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
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.evaluation import features
from rational_sae.evaluation.examples import TOP, WINDOW, Examples
from rational_sae.evaluation.features import SHOWN, chosen_latents
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
    fired = (z["teacher"] != 0).any(0) | (z["rsae"] != 0).any(0)
    assert sorted(latents) == fired.nonzero()[:, 0].tolist(), "fewer than may be shown: all that ever fired"
    assert DEAD not in latents
    for j, one in latents.items():
        for name in rows:
            assert one["density"][name] == pytest.approx(float((z[name][:, j] != 0).double().mean()))
    live = [j for j in latents if j not in (REVIVED, LOST)]
    for j in live:
        expected = np.corrcoef(z["teacher"][:, j], z["rsae"][:, j])[0, 1]
        assert latents[j]["correlation"] == pytest.approx(expected, abs=1e-6)
        on = [z[name][:, j] != 0 for name in rows]
        assert latents[j]["overlap"] == pytest.approx(float((on[0] & on[1]).sum() / (on[0] | on[1]).sum()))
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
    examples = latent["examples"]["teacher"]
    assert [one["values"][one["peak"]] for one in examples] == pytest.approx(
        sorted((p for p in peaks if p > 0), reverse=True)[:TOP], rel=1e-3
    )
    assert max(len(one["tokens"]) for one in examples) == WINDOW, "only a sequence cut by the token limit is shorter"
    for one in examples:
        assert len(one["tokens"]) == len(one["values"]) <= WINDOW
        assert one["values"][one["peak"]] == max(one["values"])
        assert all(token.strip().startswith("w") for token in one["tokens"])
    assert next(one for one in found["latents"] if one["latent"] == LOST)["examples"]["rsae"] == []


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
    assert only["peak"] == 12
    (late,) = collected(ids, [[True] * 50], [[float(i == 49) for i in range(50)]])
    assert (len(late["tokens"]), late["peak"]) == (WINDOW, WINDOW - 1)


def test_the_choice_holds_each_kind_once_and_at_most_five_hundred() -> None:
    n = 3000
    change = torch.rand(n, generator=torch.Generator().manual_seed(0))
    before = torch.ones(n, dtype=torch.bool)
    after = before.clone()
    before[:1000], after[900:1000] = False, False  # 900 revived, 100 dead throughout
    chosen = chosen_latents(change, before, after, seed=0)
    assert len(chosen) == len(set(chosen)) == sum(SHOWN.values()) == 500
    assert not set(chosen) & set(range(900, 1000)), "nothing is known of a latent that never fired"
    alive = change.clone()
    alive[900:1000] = -1
    assert set(alive.argsort(descending=True)[:100].tolist()) <= set(chosen)
    assert chosen == chosen_latents(change, before, after, seed=0)
    assert chosen != chosen_latents(change, before, after, seed=1)
