"""The suite on a real (tiny, random) Llama and a tiny wheel: codes at the last token, paired differences, time told."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from suite_wheel import easy_rows, write_wheel
from tiny import TINY_WORDS

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import TextError
from rational_sae.evaluation.random_sae import random_sae
from rational_sae.evaluation.suite.codes import last_codes
from rational_sae.evaluation.suite.run import Suite, probe_suite
from rational_sae.evaluation.suite.tasks import Archive, Size, SuiteTask
from rational_sae.gates.relu import ReLUGate
from rational_sae.metrics.probes import AUC_OF
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Silent

D = 32


@pytest.fixture(scope="module")
def reader(tiny_hosts: dict[str, Host], tiny_text: Text) -> Reader:
    host = tiny_hosts["llama"]
    return Reader(host, host.hook("model.layers.0"), tiny_text, Tokeniser(host.tokenizer, 20))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    tasks = {
        "1_easy": easy_rows(),
        "2_again": easy_rows(seed=1),
        "3_few": easy_rows(70),
        "4_long": easy_rows(longest=40),
    }
    return Archive(write_wheel(tmp_path_factory.mktemp("suite") / "tiny.whl", tasks, {"1_easy": easy_rows(seed=2)}))


class Told(Silent):
    """Keeps the stages that it is told of."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        self.stages.append(name)


def suite_of(archive: Archive, *names: str) -> list[SuiteTask]:
    return [SuiteTask(name, archive, 150) for name in names]


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def found(reader: Reader, archive: Archive, told: Told) -> Suite:
    """Three tasks, of an SAE that keeps x whole and of one that is silent."""
    saes = {"perfect": perfect(), "empty": empty()}
    return probe_suite(reader, saes, suite_of(archive, "1_easy", "2_again", "4_long"), Size(), progress=told)


def perfect() -> SAE:
    eye = torch.eye(D)
    return SAE(torch.cat([eye, -eye], 1), torch.zeros(2 * D), torch.cat([eye, -eye]), torch.zeros(D), ReLUGate())


def empty() -> SAE:
    return SAE(torch.zeros(D, 8), torch.zeros(8), torch.zeros(8, D), torch.zeros(D), ReLUGate())


def test_codes_are_those_of_the_last_token_and_a_long_text_keeps_its_end(reader: Reader) -> None:
    texts = ["w1 w2 w3", " ".join(TINY_WORDS[:30]), "w9", "w1 <eos>"]
    ends = dict(zip(texts, reader.tokeniser.ends(texts), strict=True))
    assert [len(ids) for ids in ends.values()] == [3, 20, 0, 0], "a first position and a special token never count"
    found = last_codes(reader, {"sae": perfect()}, {text: ids for text, ids in ends.items() if ids})
    assert list(found.place) == texts[:2]
    for text in texts[:2]:
        ids = torch.tensor([reader.tokeniser.tokenizer(text).input_ids[-20:]])
        x = reader.host.residual(ids, reader.hook)[0, -1].float()
        np.testing.assert_allclose(found.of("activations", [text])[0], x, rtol=1e-4, atol=1e-5)
        z = found.of("sae", [text]).toarray()[0]
        np.testing.assert_allclose(z, perfect().encode(x).detach(), rtol=1e-4, atol=1e-5)


def test_a_silent_sae_loses_every_task_and_the_differences_are_paired(found: Suite) -> None:
    report = found.report([("empty", "perfect"), ("perfect", "absent")])
    assert list(report["tasks"]) == ["1_easy", "2_again", "4_long"]
    mean = report["test"]["mean"]
    assert mean["activations"]["auc_all"]["value"] > 0.9
    assert mean["perfect"]["auc_k16"]["value"] > 0.8
    assert mean["empty"]["auc_k16"]["value"] == 0.5
    (change,) = (one["auc_k16"] for one in report["test"]["differences"].values())
    assert change["value"] == pytest.approx(0.5 - mean["perfect"]["auc_k16"]["value"])
    assert (change["wins"], change["losses"]) == (0, 3)
    assert change["interval"][0] < change["value"] < change["interval"][1] < 0
    assert report["elsewhere"]["tasks"] == 1
    assert report["elsewhere"]["mean"]["perfect"]["auc_k16"]["value"] > 0.8
    assert "interval" not in report["elsewhere"]["mean"]["perfect"]["auc_k1"], "one task has no spread over tasks"


def test_a_task_gives_the_same_alone_and_again(found: Suite, reader: Reader, archive: Archive) -> None:
    again = probe_suite(reader, {"perfect": perfect()}, suite_of(archive, "2_again"), Size())
    for key, one in again.tasks["2_again"].scores["test"]["perfect"].items():
        assert one == found.tasks["2_again"].scores["test"]["perfect"][key]


def test_means_and_differences_join_the_other_metrics_of_a_report(found: Suite) -> None:
    rows: dict[str, dict[str, float]] = {"perfect": {"fvu": 0.1}, "empty": {}}
    intervals: dict[str, dict[str, list[float]]] = {"perfect": {}, "empty": {}}
    differences: dict[str, dict[str, dict[str, float | list[float]]]] = {"empty - perfect": {}, "x - perfect": {}}
    found.add_to(rows, intervals, differences)
    assert set(rows["perfect"]) == {"fvu", *AUC_OF}
    assert intervals["perfect"]["auc_k1"][0] <= rows["perfect"]["auc_k1"]
    change = rows["empty"]["auc_k16"] - rows["perfect"]["auc_k16"]
    assert differences["empty - perfect"]["auc_k16"]["value"] == pytest.approx(change)
    assert differences["x - perfect"] == {}


@pytest.mark.usefixtures("found")
def test_the_time_is_told_after_one_task_and_before_the_rest(told: Told) -> None:
    assert told.stages[:3] == [
        f"sae-probes: {what}" for what in ("texts of 3 tasks", "time one task", "probe 1 of 3 tasks")
    ]
    assert re.fullmatch(r"sae-probes: read \d+ tokens of 2 tasks; all of it takes about \d+ s", told.stages[3])


def test_a_task_of_too_few_texts_is_left_out_and_said_and_alone_it_is_refused(
    reader: Reader, archive: Archive, tmp_path: Path
) -> None:
    unknown = [(f"{text} unheard", label) for text, label in easy_rows(80)]
    mixed = Archive(write_wheel(tmp_path / "mixed.whl", {"1_easy": easy_rows(), "2_unknown": unknown}))
    found = probe_suite(reader, {"a": perfect()}, suite_of(mixed, "1_easy", "2_unknown"), Size())
    assert list(found.tasks) == ["1_easy"]
    assert found.left_out == {"2_unknown": "the task sae-probes:2_unknown has 0 usable texts of a class, 75 are needed"}
    with pytest.raises(TextError, match="2_unknown has 0 usable texts of a class, 75 are needed; raise --probe-texts"):
        probe_suite(reader, {"a": perfect()}, suite_of(mixed, "2_unknown"), Size())
    with pytest.raises(TextError, match="3_few has 70 usable texts"):
        probe_suite(reader, {"a": perfect()}, suite_of(archive, "3_few"), Size())


def test_random_weights_are_as_wide_and_as_sparse_and_the_same_for_a_seed(reader: Reader) -> None:
    found = random_sae(reader, perfect(), 5.4, seed=3)
    x = reader.sample("train", 200, needed=1)
    z = found.encode(x)
    assert z.shape == (len(x), 2 * D)
    assert 4 < float((z != 0).sum(-1).float().mean()) <= 5
    assert torch.equal(found.W_dec.norm(dim=-1).round(decimals=4), torch.ones(2 * D))
    assert torch.equal(found.W_enc, random_sae(reader, perfect(), 5.4, seed=3).W_enc)
