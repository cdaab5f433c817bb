"""Rebuild the tables of docs/performance.md from a benchmark.

    rsae bench --json docs/figures/bench.json      # some minutes on an idle machine
    python benchmarks/scaling.py
    python docs/performance.py

Replaces what stands between `<!-- bench -->` and `<!-- /bench -->`; the rest of the page is written by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
START, END = "<!-- bench -->\n", "<!-- /bench -->\n"

TARGETS = (
    ("dense RSAE step / dense ReLU step", "dense_over_relu", 1.10),
    ("sparse RSAE step / encoder product alone", "sparse_over_encoder_product", 2.5),
    ("sparse RSAE step / SAELens' standard step", "sparse_over_saelens_standard", 1 / 3),
    ("sparse RSAE step / SAELens' TopK step", "sparse_over_saelens_topk", None),
    ("sparse RSAE step / sparsify's TopK step", "sparse_over_sparsify_topk", 1.0),
    ("sparse RSAE step / dictionary_learning's TopK step", "sparse_over_dictionary_learning_topk", None),
    ("encode / the teacher's encode", "encode_over_teacher", 1.05),
    ("sparse step with two looks / with one", "two_looks_over_sparse", 1.35),
    ("sparse step with two looks / encoder product alone", "two_looks_over_encoder_product", 3.2),
    ("encode with two looks / with one", "encode_two_looks_over_encode", 1.3),
    ("smooth gate, forward and backward / the five dense products", "gate_over_products", None),
)
"""What is compared, its key in `rsae bench --json`, and the target, if there is one."""


def main() -> None:
    page = DOCS / "performance.md"
    found = json.loads((DOCS / "figures" / "bench.json").read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    page.write_text(before + START + tables(found) + END + after, encoding="utf-8")


def tables(found: dict[str, Any]) -> str:
    """Ratios against their targets, then medians and memory; a column a shape."""
    shapes = found["shapes"]
    heads = [f"{s['d_in']} × {s['d_sae']:,}, batch {s['batch']:,}".replace(",", " ") for s in shapes]
    lines = ["", _row("ratio", "target", *heads), _row(*["---"] * (len(shapes) + 2))]
    for label, key, limit in TARGETS:
        lines.append(_row(label, "–" if limit is None else f"≤ {limit:.2f}", *[_ratio(s, key, limit) for s in shapes]))
    for step in ("sparse", "dense"):
        peaks = [_peak(s, step) for s in shapes]
        lines.append(_row(f"peak memory of a {step} step / what the target allows", "≤ 1.00", *peaks))
    lines += ["", _row("median, ms", *heads), _row(*["---"] * (len(shapes) + 1))]
    for job in shapes[0]["medians"]:
        lines.append(
            _row(f"`{job}`", *[f"{1e3 * s['medians'][job]:.1f}" if job in s["medians"] else "–" for s in shapes])
        )
    where = ", ".join(f"{key} {value}" for key, value in found["environment"].items())
    picture = "![Step times as one factor varies](figures/scaling.png)"
    scaling = [picture, ""] if (DOCS / "figures" / "scaling.png").exists() else []
    return "\n".join([*lines, "", f"Measured on: {where}.", "", *scaling])


def _ratio(shape: dict[str, Any], key: str, limit: float | None) -> str:
    value = shape["ratios"].get(key)
    if value is None:
        return "not installed"
    return _against(value, limit)


def _peak(shape: dict[str, Any], step: str) -> str:
    peak = shape["memory"][step]
    return "–" if peak is None else _against(peak / shape["memory"]["allowed"], 1.0)


def _against(value: float, limit: float | None) -> str:
    return f"{value:.2f}" if limit is None or value <= limit else f"**{value:.2f}** (missed)"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
