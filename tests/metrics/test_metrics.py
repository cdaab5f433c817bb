"""A metric is one object: what is not contradictory about it, and that one definition is enough."""

from __future__ import annotations

import doctest
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from rich.console import Console

import rational_sae.metrics
from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.evaluation import measure, results
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.metrics import (
    METRICS,
    Metric,
    PredictionColumn,
    TokenColumn,
    metric,
    prediction_columns,
    token_columns,
)
from rational_sae.metrics.metric import Column
from rational_sae.report import evaluation_report, print_table, read_report, write_report
from rational_sae.sae.model import SAE

D = 32

LARGEST = Metric(
    "largest",
    "Largest code",
    "Mean over tokens of the largest code.",
    better="higher",
    table="headline",
    sums=(TokenColumn("largest", lambda seen: seen.z.amax(-1)),),
    of=lambda sums: sums.columns["largest"] / sums.tokens,
)
REVERSE_KL = Metric(
    "reverse_kl",
    "Reverse KL",
    "KL(SAE ‖ clean) between next-token distributions, in nats. Lower is better.",
    unit="nats",
    better="lower",
    table="headline",
    sums=(PredictionColumn("reverse_kl", lambda two: (two.log_q.exp() * (two.log_q - two.log_p)).sum(-1)),),
    of=lambda sums: sums.columns["reverse_kl"] / sums.predictions,
)


def sae(threshold: float) -> SAE:
    W = torch.randn(D, 2 * D, generator=torch.Generator().manual_seed(0)) / D**0.5
    return SAE(W, torch.zeros(2 * D), W.T / 2, torch.zeros(D), ThresholdGate(torch.full((2 * D,), threshold)))


@pytest.mark.parametrize("toy", [LARGEST, REVERSE_KL], ids=lambda one: one.name)
def test_one_definition_is_measured_written_and_shown(
    toy: Metric, tiny_hosts: dict[str, Host], tiny_text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, toy.name, toy)
    host = tiny_hosts["llama"]
    reader = Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, 20))
    saes = {"teacher": sae(0.3), "rsae": sae(0.5)}
    found = results(measure(reader, saes, 300, torch.zeros(D)), [("rsae", "teacher")])
    low, high = found.intervals["rsae"][toy.name]
    assert low < found.rows["rsae"][toy.name] < high
    assert toy.name in found.differences["rsae - teacher"]

    write_report(evaluation_report(found.report(), {}), tmp_path)
    report = read_report(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["rows"]["rsae"][toy.name] == found.rows["rsae"][toy.name]
    console = Console(file=io.StringIO(), width=200)
    print_table(report, console)
    assert isinstance(console.file, io.StringIO)
    page, shown = (tmp_path / "report.html").read_text(), f"{found.rows['rsae'][toy.name]:.4f}"
    for view in (console.file.getvalue(), page):
        assert toy.label in view
        assert shown in view
    assert f"<dd>{toy.words}</dd>" in page


def test_largest_is_what_it_says(tiny_hosts: dict[str, Host], tiny_text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "largest", LARGEST)
    host = tiny_hosts["llama"]
    reader = Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, 20))
    row = results(measure(reader, {"teacher": sae(0.3)}, 300, torch.zeros(D)), []).rows["teacher"]
    with torch.no_grad():
        parts = [
            sae(0.3).encode(stream[reader.kept(stream, batch)].float())
            for batch in reader.held_out("test", 300)
            for stream in [reader.stream(batch.input_ids)]
        ]
    assert row["largest"] == pytest.approx(float(torch.cat(parts).amax(-1).double().mean()), rel=1e-6)


def test_names_labels_and_columns_are_unique() -> None:
    assert all(name == one.name for name, one in METRICS.items())
    assert max(Counter(one.label for one in METRICS.values()).values()) == 1
    columns: set[Column] = {column for one in METRICS.values() for column in one.sums}
    assert len(columns) == len(token_columns()) + len(prediction_columns()), "one name, one column"


def test_words_say_the_unit_and_do_not_contradict_the_direction() -> None:
    for one in METRICS.values():
        assert one.words.endswith(".")
        if one.unit == "nats" and not one.name.endswith("_at_l0"):
            assert "in nats" in one.words
        for direction in ("lower", "higher"):
            assert f"{direction.capitalize()} is better." not in one.words or one.better == direction


def test_what_the_answer_weighs_has_a_direction() -> None:
    assert all(one.better for one in METRICS.values() if one.weighed)


def test_an_unknown_name_stands_for_itself() -> None:
    assert metric("mine") == Metric("mine", "mine", "", decimals=None)


def test_examples() -> None:
    assert doctest.testmod(rational_sae.metrics).failed == 0


def test_importing_is_cheap() -> None:
    code = "import sys, rational_sae.metrics; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
