"""How often the answer of a report is Yes, or No, where two SAEs are equal: A/A rows from real documents.

    python benchmarks/wrong_yes.py TEACHER RATIONAL --out docs/data/wrong-yes.json

The sums of two SAEs are measured document by document. A simulated report draws documents with replacement, and in
each of them tosses a coin for which of the two is called `rsae` and which `control_native`: so the two rows are equal
in distribution, whatever the SAEs are. Each report then goes through `evaluation.results` and `report.decisions` as any
other. The share of answers Yes is the wrong-yes rate. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rational_sae.data.reading import Reading
from rational_sae.evaluation import Measurements, measure, results
from rational_sae.evaluation.measure import RowSums
from rational_sae.formats import load
from rational_sae.report import decision, decisions

A, B = "rsae", "control_native"
DOCUMENTS = (5, 10, 20, 30, 60)
LEAST = (0.0, 0.01)


def measured(teacher: str, rational: str, tokens: int) -> Measurements:
    """Sums of both by document; of the rational one those with its thresholds moved to the other's L0."""
    first = load(teacher)
    reader = Reading(text="news").open(first)
    saes = {B: first, A: load(rational)}
    for sae in saes.values():
        sae.to(reader.host.device)
    mean = reader.sample("train", 2048).mean(0)
    sums = measure(reader, saes, tokens, mean, reference=B, progress=lambda done, total: print(done, total, flush=True))
    return replace(sums, rows={B: sums.rows[B], A: sums.at_l0.get(A, sums.rows[A])}, at_l0={})


def drawn(sums: Measurements, documents: int, generator: torch.Generator) -> Measurements:
    """As many documents, drawn with replacement, the rows changed over in half of them."""
    some = sums.of(torch.randint(len(sums.tokens), (documents,), generator=generator))
    turned = torch.rand(documents, generator=generator) < 0.5
    one, other = some.rows[A], some.rows[B]
    l0 = (one.columns["l0"] + other.columns["l0"]) / 2  # the same for both: at equal L0 is what is asked

    def mixed(a: RowSums, b: RowSums) -> RowSums:
        columns = {name: torch.where(turned, b.columns[name], a.columns[name]) for name in a.columns}
        return RowSums(columns | {"l0": l0}, torch.where(turned, b.ce_everywhere, a.ce_everywhere), one.fired)

    return replace(some, rows={B: mixed(other, one), A: mixed(one, other)}, reference=B)


def rates(sums: Measurements, documents: int, least: float, reports: int, seed: int = 0) -> dict[str, Any]:
    """Shares of the answers, by their first word, over so many reports."""
    generator = torch.Generator().manual_seed(seed)
    answers: Counter[str] = Counter()
    for number in range(reports):
        found = results(drawn(sums, documents, generator), [(A, B)], seed=number)
        report = found.report() | {"settings": {"least_effect": least}}
        answers.update(one.answer.split(":")[0].split(" from ")[0] for one in decisions(report))
    gained = answers["Yes"] + answers["With reservations"]
    return {
        "documents": documents,
        "least_effect": least,
        "reports": reports,
        "yes": gained / reports,
        "no": answers["No"] / reports,
        "yes_error": math.sqrt(max(gained, 1) * (reports - gained)) / reports**1.5,
        "answers": dict(answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("rational")
    parser.add_argument("--eval-tokens", type=int, default=12288)
    parser.add_argument("--reports", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    sums = measured(asked.teacher, asked.rational, asked.eval_tokens)
    decision.FEWEST_DOCUMENTS = 0  # what the rule would say of fewer, too
    found = {
        "teacher": asked.teacher,
        "pool": {"documents": len(sums.tokens), "tokens": int(sums.tokens.sum())},
        "rates": [rates(sums, n, least, asked.reports) for least in LEAST for n in DOCUMENTS],
    }
    for one in found["rates"]:
        print({key: value for key, value in one.items() if key != "answers"}, flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
