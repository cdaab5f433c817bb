"""Probing on a real (tiny, random) Llama: what is told apart, what the intervals say, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY_WORDS

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import TextError
from rational_sae.evaluation.pooling import pooled
from rational_sae.evaluation.probing import Protocol, interval, probe
from rational_sae.evaluation.tasks import Task
from rational_sae.gates.relu import ReLUGate
from rational_sae.metrics.probes import LATENTS_OF
from rational_sae.sae.model import SAE

D = 32
PROTOCOL = Protocol(train=160)


@pytest.fixture
def reader(tiny_hosts: dict[str, Host], tiny_text: Text) -> Reader:
    host = tiny_hosts["llama"]
    return Reader(host, host.hook("model.layers.0"), tiny_text, Tokeniser(host.tokenizer, 20))


def perfect() -> SAE:
    eye = torch.eye(D)
    return SAE(torch.cat([eye, -eye], 1), torch.zeros(2 * D), torch.cat([eye, -eye]), torch.zeros(D), ReLUGate())


def empty() -> SAE:
    return SAE(torch.zeros(D, 8), torch.zeros(8), torch.zeros(8, D), torch.zeros(D), ReLUGate())


def task(per_class: int = 120, classes: int = 2, words: list[str] = TINY_WORDS) -> Task:
    """Texts of 10 words; each class draws from its own part of the vocabulary."""
    rng = np.random.default_rng(0)
    size = len(words) // classes
    texts = {
        f"class {i}": [" ".join(rng.choice(words[i * size : (i + 1) * size], 10)) for _ in range(per_class)]
        for i in range(classes)
    }
    return Task("tiny", texts, 0)


def test_pooled_codes_are_means_over_counted_positions(reader: Reader) -> None:
    texts = ["w1 w2 w3", "w4 w5 w6 w7 w8", "w9", "<eos> <eos> <eos>"]
    found = pooled(reader, {"sae": perfect()}, texts)
    assert found.counted.tolist() == [True, True, False, False], "the first position and specials never count"
    ids = torch.tensor([reader.tokeniser.tokenizer("w4 w5 w6 w7 w8").input_ids])
    x = reader.host.residual(ids, reader.hook)[0, 1:].float()
    np.testing.assert_allclose(found.rows["activations"].toarray()[1], x.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found.rows["sae"].toarray()[1], perfect().encode(x).mean(0).detach(), rtol=1e-4, atol=1e-5
    )
    assert found.rows["sae"][2].nnz == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_of_different_words_are_told_apart_and_an_sae_that_is_silent_tells_nothing(
    reader: Reader, classes: int
) -> None:
    found = probe(reader, {"perfect": perfect(), "empty": empty()}, [task(classes=classes)], PROTOCOL)
    one = found.tasks["tiny"]
    assert (one.train, one.test) == (160, 40)
    assert list(one.scores) == ["activations", "perfect", "empty"]
    for row in ("activations", "perfect"):
        assert one.scores[row]["probe_dense"].mean() > 0.8
        assert one.scores[row]["probe_k20"].mean() > one.scores[row]["probe_k1"].mean() - 0.05
    assert one.scores["empty"]["probe_dense"].tolist() == [0.5] * 5
    report = found.report()["tasks"]["tiny"]
    assert list(report["rows"]["perfect"]) == list(LATENTS_OF)
    low, high = report["rows"]["perfect"]["probe_k1"]["interval"]
    assert 0 <= low <= report["rows"]["perfect"]["probe_k1"]["value"] <= high <= 1


def test_the_means_over_tasks_join_a_report_with_paired_differences(reader: Reader) -> None:
    found = probe(reader, {"a": perfect(), "b": perfect(), "c": empty()}, [task()], PROTOCOL)
    rows: dict[str, dict[str, float]] = {"a": {"fvu": 0.1}, "b": {}, "c": {}}
    intervals: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
    differences: dict[str, dict[str, Any]] = {"b - a": {}, "c - a": {}, "x - a": {}}
    found.add_to(rows, intervals, differences)
    assert rows["a"]["probe_dense"] == pytest.approx(found.tasks["tiny"].scores["a"]["probe_dense"].mean())
    assert differences["b - a"]["probe_k5"] == {"value": 0.0, "interval": [0.0, 0.0]}, "equal codes, equal draws"
    assert differences["c - a"]["probe_dense"]["interval"][1] < 0
    assert differences["x - a"] == {}


def test_the_interval_is_the_corrected_t_interval_over_seeds() -> None:
    low, high = interval(np.array([0.7, 0.8, 0.9]))
    half = 4.302653 * np.sqrt(0.01 * (1 / 3 + 1 / 4))  # t(.975, 2), Nadeau and Bengio's variance
    assert [low, high] == pytest.approx([0.8 - half, 0.8 + half])
    assert interval(np.array([0.7, 0.8, 0.9]), share=True)[1] == 1.0


def test_too_few_texts_are_refused_with_the_count(reader: Reader) -> None:
    with pytest.raises(TextError, match="the task tiny has 99 usable texts labelled 'class 0', 100 are needed; add"):
        probe(reader, {"a": perfect()}, [task(per_class=99)])


def test_texts_of_special_tokens_only_are_refused(reader: Reader) -> None:
    unknown = task(words=[f"unheard{i}" for i in range(60)])
    with pytest.raises(
        TextError, match=r"reads the task tiny as special tokens only \(200 tokens looked at, .*<unk>\)"
    ):
        probe(reader, {"a": perfect()}, [unknown], PROTOCOL)


def test_texts_without_a_counted_position_are_left_out_and_counted(reader: Reader) -> None:
    mixed = task()
    mixed.texts["class 0"][:15] = [f"unheard{i}" for i in range(15)]
    found = probe(reader, {"a": perfect()}, [mixed], Protocol(train=240)).tasks["tiny"]
    assert found.dropped == 15
    assert (found.train, found.test) == (2 * 84, 2 * 21), "105 of class 0 are left, a fifth of them to test on"
