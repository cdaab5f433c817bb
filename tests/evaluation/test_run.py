"""`evaluate` from files to rows, on a tiny Llama in a folder: what is compared, what is probed, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from tiny import TINY_WORDS

from rational_sae.data.reading import Reading
from rational_sae.errors import SourceError, TextError
from rational_sae.evaluation import Protocol, evaluate
from rational_sae.formats.save import save
from rational_sae.gates.base import Gate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.report import evaluation_report
from rational_sae.report.schema import check_report
from rational_sae.sae.model import SAE, Metadata

D, D_SAE = 32, 128


@pytest.fixture
def reading(tiny_folders: dict[str, Path], tmp_path: Path) -> Reading:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(TINY_WORDS), (300, 30), generator=generator).tolist()
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": " ".join(TINY_WORDS[i] for i in row)}) + "\n" for row in rows))
    return Reading(text=str(text), model=str(tiny_folders["llama"]), context=20)


@pytest.fixture
def task(tmp_path: Path) -> str:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(30, (260, 8), generator=generator).tolist()
    path = tmp_path / "task.jsonl"
    lines = [
        {
            "text": " ".join(TINY_WORDS[i + 30 * (n % 2)] for i in row) + f" {chr(97 + n % 26)}{chr(97 + n // 26)}",
            "label": n % 2,
        }
        for n, row in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def saved(folder: Path, gate: Gate, hook: str = "model.layers.1", width: int = D) -> str:
    W = torch.randn(width, D_SAE, generator=torch.Generator().manual_seed(0)) / width**0.5
    metadata = Metadata(hook_name=hook, context_size=20)
    save(SAE(W, torch.zeros(D_SAE), W.T / 2, torch.zeros(width), gate, metadata=metadata), folder)
    return str(folder)


def threshold(value: float) -> Gate:
    return ThresholdGate(torch.full((D_SAE,), value))


def test_what_is_to_know_of_the_text_is_in_the_report(reading: Reading, tmp_path: Path) -> None:
    """Copies, empty texts and blocks of a single file: in the results, and so in report.json."""
    lines = Path(reading.text).read_text().splitlines()
    Path(reading.text).write_text("\n".join(['{"text": null}', lines[0], *lines]))
    sae = saved(tmp_path / "a", threshold(0.3))
    report = evaluation_report(evaluate([sae], reading, eval_tokens=500).report(), {})
    empty, copies = check_report(report)["warnings"]  # of those read until there were enough tokens
    assert re.fullmatch(rf"{reading.text}: 1 of \d+ texts are empty or null and were passed over", empty)
    left_out = r"1 of \d+ documents \(0.\d%\) are copies or near-copies of earlier ones and were left out"
    assert re.fullmatch(rf"{reading.text}: {left_out} \(1 exact, 0 near\)", copies)
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(json.loads(line)["text"] for line in lines))
    (warning,) = evaluate([sae], reading.model_copy(update={"text": str(book)}), eval_tokens=300).report()["warnings"]
    assert warning.startswith(f"{book} is one file: blocks of neighbouring paragraphs")


def test_rows_are_compared_with_the_first_at_its_l0(reading: Reading, tmp_path: Path) -> None:
    names = [
        saved(tmp_path / "a", threshold(0.3)),
        saved(tmp_path / "b", threshold(0.5)),
        saved(tmp_path / "c", TopKGate(4)),
    ]
    found = evaluate(names, reading, eval_tokens=200)
    a, b, c = (found.rows[name] for name in names)
    assert list(found.differences) == [f"{name} - {names[0]}" for name in names[1:]]
    assert b["l0"] < 0.9 * a["l0"]
    assert b["fvu_at_l0"] == pytest.approx(a["fvu"], rel=1e-3), "the same weights at the same L0"
    assert "fvu_at_l0" not in c, "a TopK's L0 cannot be moved to that of the first"
    assert all(0 <= row["top1_agreement"] <= 1 for row in (a, b, c))
    assert set(found.report()["firing"]["counts"]) == set(names)


def test_probes_join_rows_intervals_and_differences(reading: Reading, task: str, tmp_path: Path) -> None:
    names = [saved(tmp_path / "a", threshold(0.3)), saved(tmp_path / "b", threshold(0.5))]
    report = evaluate(names, reading, eval_tokens=100, probes=[task], protocol=Protocol(train=160)).report()
    for name in names:
        low, high = report["intervals"][name]["probe_k5"]
        assert low <= report["rows"][name]["probe_k5"] <= high
        assert report["probing"]["mean"][name]["probe_k5"]["value"] == report["rows"][name]["probe_k5"]
    assert "probe_dense" in report["differences"][f"{names[1]} - {names[0]}"]
    assert set(report["probing"]["tasks"][task]["rows"]) == {"activations", *names}
    json.dumps(report)


def test_a_faulty_task_is_refused_before_any_work(reading: Reading, task: str, tmp_path: Path) -> None:
    short = tmp_path / "short.jsonl"
    short.write_text("".join(Path(task).read_text().splitlines(keepends=True)[:60]))
    with pytest.raises(TextError, match=r"has 30 usable texts labelled '0', 100 are needed"):
        evaluate(["nowhere"], reading, probes=[str(short)])


def test_saes_of_another_hook_or_width_are_refused(reading: Reading, tmp_path: Path) -> None:
    first = saved(tmp_path / "a", threshold(0.3))
    with pytest.raises(SourceError, match=r"was trained at model\.layers\.0, the first SAE at model\.layers\.1"):
        evaluate([first, saved(tmp_path / "b", threshold(0.3), hook="model.layers.0")], reading, eval_tokens=50)
    with pytest.raises(SourceError, match=r"reads width 16, .* has width 32"):
        evaluate([first, saved(tmp_path / "c", threshold(0.3), width=16)], reading, eval_tokens=50)
    same_place = saved(tmp_path / "d", threshold(0.3), hook="blocks.1.hook_resid_post")
    assert len(evaluate([first, same_place], reading, eval_tokens=50).rows) == 2
