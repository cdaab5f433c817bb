"""May I replace my SAE? The facts for and against, each with its interval, and the answer that they give.

The rule is printed beside the answer. It reads only paired differences whose intervals are known: what was not
measured is listed as open, never counted as fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rational_sae.metrics import METRICS, metric, named
from rational_sae.report.numbers import format_share, format_value
from rational_sae.report.rows import NOT_BETTER, ROWS, RSAE, TEACHER, against, row_label, untrained
from rational_sae.report.table import Cell, Line, difference_rows

QUALITY = ("fvu", "delta_ce")
"""A gain in one of these is a reason to replace; they are drawn, too."""
AT_L0 = "_at_l0"
EQUAL_L0 = 0.01
"""Relative difference of L0 above which figures at each row's own L0 are not like for like (heuristic)."""

RULE = (
    "A difference counts when its paired 95 % interval excludes 0. Yes: FVU or ΔCE is better and nothing listed is "
    "worse. With reservations: FVU or ΔCE is better and something is worse. No: something is worse, and neither of the "
    "two is better. No clear reason: the rest. Open: the denser of two SAEs at unequal L0 has the better figures. "
    "About one listed difference in forty is called better, and one in forty worse, by chance alone."
)


@dataclass(frozen=True)
class Fact:
    """One difference in words and numbers."""

    label: str
    change: str
    """The two values, "0.2218 → 0.1782"."""
    difference: str
    interval: str
    share: str
    """The difference as a share of the base, "" where that means nothing."""
    outcome: str


@dataclass(frozen=True)
class Decision:
    """Whether one row may replace another."""

    question: str
    answer: str
    better: list[Fact]
    worse: list[Fact]
    unclear: list[Fact]
    alternatives: list[tuple[str, list[Fact]]]
    """What the row gains over each cheaper way to a better SAE."""
    cautions: list[str]


def decisions(report: Mapping[str, Any]) -> list[Decision]:
    """The rational SAE against its teacher; without one, every row that is compared with another."""
    rows = {row.name: row for row in difference_rows(report)}
    pairs = list(_pairs(report, rows))
    wanted = [pair for pair in pairs if pair == (RSAE, TEACHER)] or pairs
    return [one for row, base in wanted if (one := _decide(report, rows, row, base))]


def _pairs(report: Mapping[str, Any], rows: Mapping[str, Line]) -> Iterator[tuple[str, str]]:
    """Differences whose two sides are rows; a row's name may itself hold " - "."""
    for name in rows:
        for row in report["rows"]:
            base = name.removeprefix(f"{row} - ")
            if base != name and base in report["rows"]:
                yield row, base


def _decide(report: Mapping[str, Any], rows: Mapping[str, Line], row: str, base: str) -> Decision | None:
    quality = _quality(rows[f"{row} - {base}"])
    matched = quality != QUALITY
    weighed = [key for key, one in METRICS.items() if one.weighed]
    facts = _facts(report, rows[f"{row} - {base}"], base, [*quality, *weighed])
    if not facts:
        return None
    better, worse, unclear = ([f for f in facts if f.outcome == kind] for kind in ("better", "worse", "unclear"))
    gained = {fact.label for fact in better} & {metric(key).label for key in quality}
    ours, theirs = (report["rows"][name].get("l0") for name in (row, base))
    apart = "" if matched else _apart(ours, theirs, bool(better), bool(worse))
    subject, teacher = (_called(name) for name in (row, base))
    return Decision(
        f"May {subject} replace {teacher}?",
        _answer(teacher, bool(gained), [f.label for f in better], [f.label for f in worse], apart),
        better,
        worse,
        unclear,
        [
            (row_label(other.name, untrained(report)), found)
            for other in against()[1:]
            if other.name != base and (name := f"{row} - {other.name}") in rows
            if (found := _facts(report, rows[name], other.name, _quality(rows[name])))
        ],
        list(_cautions(report, row, base, matched=matched)),
    )


def _called(name: str) -> str:
    return (ROWS[name].called if name in ROWS else "") or row_label(name)


def _quality(row: Line) -> tuple[str, ...]:
    """FVU and ΔCE at equal L0 where that was measured, else at each row's own."""
    return tuple(f"{key}{AT_L0}" if _known(row, f"{key}{AT_L0}") else key for key in QUALITY)


def _known(row: Line, key: str) -> bool:
    """Whether the difference has an interval."""
    return key in row.cells and bool(row.cells[key].outcome)


def _answer(base: str, gained: bool, better: list[str], worse: list[str], apart: str) -> str:
    """apart: how L0 differs where that forbids an answer, "" where figures are comparable."""
    if apart:
        found = f"better in {_listed(better)}" if better else f"worse in {_listed(worse)}"
        return f"Open: {found}, but {apart}."
    if worse and gained:
        return f"With reservations: better than {base} in {_listed(better)}, worse in {_listed(worse)}."
    if worse:
        only = f"better only in {_listed(better)}" if better else "better in nothing"
        return f"No: worse than {base} in {_listed(worse)}, {only}."
    if gained:
        return f"Yes, by what was measured: better than {base} in {_listed(better)}, and worse in nothing."
    if better:
        return f"No clear reason: better than {base} only in {_listed(better)}."
    return f"No clear reason: no clear difference from {base}."


def _apart(ours: float | None, theirs: float | None, better: bool, worse: bool) -> str:
    """Figures at unequal L0 say nothing when the denser SAE has the better ones: density alone gives that."""
    if ours is None or not theirs or abs(ours / theirs - 1) <= EQUAL_L0:
        return ""
    denser = ours > theirs
    if (denser and better and not worse) or (not denser and worse and not better):
        return (
            f"at {'higher' if denser else 'lower'} L0 ({format_value('l0', ours)} against {format_value('l0', theirs)})"
        )
    return ""


def _facts(report: Mapping[str, Any], row: Line, base: str, keys: Sequence[str]) -> list[Fact]:
    return [_fact(report, row.name, base, row.cells[key]) for key in keys if _known(row, key)]


def _fact(report: Mapping[str, Any], name: str, base: str, cell: Cell) -> Fact:
    before = report["rows"][base].get(cell.key)
    after = report["rows"][name.removesuffix(f" - {base}")].get(cell.key)
    share = ""
    if metric(cell.key).relative and before and before > 0 and cell.value is not None:
        share = format_share(cell.value / before)
    change = f"{format_value(cell.key, before)} → {format_value(cell.key, after)}"
    return Fact(metric(cell.key).label, change, cell.text, cell.interval, share, cell.outcome)


def _cautions(report: Mapping[str, Any], row: str, base: str, *, matched: bool) -> Iterator[str]:
    """What a reader must know before believing the answer."""
    data = report.get("data") or {}
    tokens, documents = data.get("test_tokens"), data.get("test_documents")
    if tokens and documents:
        yield f"Measured on {tokens:,} test tokens of {documents:,} documents; intervals say how far that carries."
    ours, theirs = (report["rows"][name].get("l0") for name in (row, base))
    if ours is not None and theirs and abs(ours / theirs - 1) > EQUAL_L0:
        held = " FVU and ΔCE above are at equal L0, the others are not." if matched else ""
        yield (
            f"L0 differs: {format_value('l0', ours)} against {format_value('l0', theirs)} "
            f"({format_share(ours / theirs - 1)}).{held}"
        )
    compared = (name for name in (row, *(other.name for other in against(row))) if name in untrained(report))
    for name in compared:
        yield f"{row_label(name, untrained(report))}: {NOT_BETTER}."
    found = (report.get("differences") or {}).get(f"{row} - {base}") or {}
    if not any(key in found for key in named("probing")):
        yield "Sparse probing was not measured: whether latents mean as much as before is open."


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
