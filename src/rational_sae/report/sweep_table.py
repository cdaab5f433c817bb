"""A sweep's tables, the same in terminal, page and documents: cells down, rows across."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rational_sae.metrics import metric
from rational_sae.report.decision import Decision, decisions
from rational_sae.report.numbers import ABSENT, format_interval, format_share, format_value
from rational_sae.report.rows import CONTROL, STARTS, TEACHER, UNTRAINED, row_label, shown_in_sweep, untrained

JUMPRELU = "control_jumprelu"
SHOWN = ("fvu_at_l0", "delta_ce_at_l0", "loss_recovered", "l0", "alive_fraction")


@dataclass(frozen=True)
class Field:
    """One place in a table."""

    text: str
    value: float | None = None
    """What it is sorted by."""
    interval: str = ""
    outcome: str = ""
    """Of a difference, as `decision.OUTCOMES` has them."""


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    headings: list[str]
    lines: list[list[Field]]
    """The first field of each names the line."""


def sweep_answer(found: Mapping[str, Any]) -> str:
    """What all cells come to, in a sentence: the answers of the cells counted, and the means over them."""
    kinds = Counter(one.answer.partition(":")[0].split(" from ")[0] for _, one in _decided(found))
    cells = sum(kinds.values())
    if not cells:
        return "Nothing was compared."
    yes = kinds.pop("Yes", 0)
    rest = "; ".join(f"{kind.lower()}: {count}" for kind, count in kinds.most_common())
    means = " and ".join(_means(found))
    return (
        f"Better than the control with its own gate in {yes} of {cells} cells{f' ({rest})' if rest else ''}."
        f"{f' Over the headline cells, in geometric mean: {means}.' if means else ''}"
    )


def _decided(found: Mapping[str, Any]) -> Iterator[tuple[str, Decision]]:
    for name, cell in found["cells"].items():
        data = {"test_documents": cell.get("test_documents")}
        for one in decisions({**cell, "data": data})[:1]:
            yield name, one


def _means(found: Mapping[str, Any]) -> Iterator[str]:
    ratios = (found["ratios"].get("headline") or {}).get(CONTROL) or {}
    for key, ratio in ratios.items():
        if ratio["geometric_mean"] is not None:
            yield f"{metric(key).label} {format_share(ratio['geometric_mean'] - 1)}"


def sweep_heat(found: Mapping[str, Any]) -> Sheet | None:
    """A line a cell: its answer, and what each part gave there, as shares; the first field names the cell."""
    decided = dict(_decided(found))
    columns = dict.fromkeys(
        (part.base, fact.key)
        for one in decided.values()
        for part in one.parts
        if (part.brief and part.base not in STARTS) or part.base == CONTROL
        for fact in part.facts
    )
    if not columns:
        return None
    lines = []
    for name, one in decided.items():
        facts = {(part.base, fact.key): fact for part in one.parts for fact in part.facts}
        mark = " (development)" if found["cells"][name]["development"] else ""
        line = [Field(name + mark), Field(one.answer.partition(":")[0].split(" from ")[0])]
        for column in columns:
            fact = facts.get(column)
            relative = fact.relative if fact else None
            if fact is None or relative is None:
                line.append(Field(ABSENT))
                continue
            interval = f"[{100 * relative[1]:+.1f}, {100 * relative[2]:+.1f}]"
            line.append(Field(fact.share, relative[0], interval, fact.outcome))
        lines.append(line)
    heads = [f"{metric(key).label.removesuffix(' at L0')} over {row_label(base)}" for base, key in columns]
    return Sheet("What the rational SAE gave, at the teacher's L0", ["cell", "answer", *heads], lines)


def sweep_sheets(found: Mapping[str, Any]) -> list[Sheet]:
    """What holds over all cells first, then a table a metric."""
    sheets = [_ratios(found, which) for which in ("headline", "development") if found["ratios"].get(which)]
    return sheets + ([_metric(found, key) for key in SHOWN] if found["cells"] else [])


def sweep_rows(found: Mapping[str, Any]) -> list[str]:
    """Rows of any cell that a sweep's tables show, in the order of display."""
    return shown_in_sweep(dict.fromkeys(row for cell in found["cells"].values() for row in cell["rows"]))


def same_controls(found: Mapping[str, Any]) -> list[str]:
    """Cells whose native control is the JumpReLU control, figure by figure: of a JumpReLU they may be one training."""
    pairs = {name: [cell["rows"].get(row) for row in (CONTROL, JUMPRELU)] for name, cell in found["cells"].items()}
    return [name for name, (native, jumprelu) in pairs.items() if native is not None and native == jumprelu]


def _metric(found: Mapping[str, Any], key: str) -> Sheet:
    cells, rows = found["cells"], sweep_rows(found)
    lines = []
    for name, cell in cells.items():
        mark = " (development)" if cell["development"] else ""
        start = [Field(name + mark), _field(cell, TEACHER, "l0")]
        lines.append(start + [_field(cell, row, key) for row in rows])
    return Sheet(metric(key).label, ["cell", "L0", *map(row_label, rows)], lines)


def _field(cell: Mapping[str, Any], row: str, key: str) -> Field:
    value = cell["rows"].get(row, {}).get(key)
    interval = ((cell.get("intervals") or {}).get(row) or {}).get(key)
    said = f" ({UNTRAINED})" if value is not None and row in untrained(cell) else ""
    return Field(format_value(key, value) + said, value, format_interval(key, interval))


def _ratios(found: Mapping[str, Any], which: str) -> Sheet:
    lines = []
    for base, keys in found["ratios"][which].items():
        for key, ratio in keys.items():
            mean, cells = ratio["geometric_mean"], ratio["cells"]
            kept = ratio.get(UNTRAINED)
            said = f" ({UNTRAINED} in {kept} of {cells})" if kept else ""
            lines.append(
                [
                    Field(f"{metric(key).label} against {row_label(base)}{said}"),
                    Field(ABSENT if mean is None else f"{mean:.4f}", mean),
                    Field(f"{ratio['worst']:.4f}", ratio["worst"]),
                    Field(ratio["worst_cell"]),
                    Field(f"{ratio['clearly_better']} of {cells}", ratio["clearly_better"]),
                    Field(f"{ratio['clearly_worse']} of {cells}", ratio["clearly_worse"]),
                ]
            )
    headings = ["ratio, below 1 is a gain", "geometric mean", "worst", "worst cell", "clearly better", "clearly worse"]
    return Sheet(f"The rational SAE over all {which} cells", headings, lines)
