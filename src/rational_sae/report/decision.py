"""Is one SAE better than another at the same sparsity? One question a pair, answered from two figures alone.

The rule is printed beside the answer, and how often it says Yes of two equal SAEs is measured
(`benchmarks/wrong_yes.py`). What was not measured is listed as open, never counted as fine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rational_sae.metrics import METRICS, metric, named
from rational_sae.report.numbers import format_difference, format_share, format_value
from rational_sae.report.rows import (
    CONTROL,
    NOT_BETTER,
    ROWS,
    RSAE,
    STARTS,
    TEACHER,
    UNTRAINED,
    against,
    parts_of,
    row_label,
    untrained,
)
from rational_sae.report.schema import COUNTED, ENCODE, nouns
from rational_sae.report.table import Line, difference_rows

QUALITY = ("fvu", "delta_ce")
"""The two figures that decide; they are drawn, too."""
AT_L0 = "_at_l0"
ALIVE = "alive_fraction"
EQUAL_L0 = 0.01
"""Relative difference of L0 above which figures at each row's own L0 are not like for like (heuristic)."""

LEVEL = 0.05
"""Of all wrong answers Yes and No together, where two SAEs are equal."""
LEAST_EFFECT = 0.01
"""Share of the base below which a difference does not matter, unless the settings say otherwise."""
FEWEST_DOCUMENTS = 20
"""With fewer, a bootstrap over documents is too narrow, and nothing is answered (benchmarks/wrong_yes.py)."""
HALF_WIDTHS = 1.959964
"""Standard errors in half a 95 % interval."""

Outcome = Literal["better", "worse", "same", "slight", "unclear"]

OUTCOMES: dict[str, str] = {
    "better": "better",
    "worse": "worse",
    "same": "no difference that matters",
    "slight": "too small to matter",
    "unclear": "not clear",
}
"""In words."""

RULE = (
    "{deciding} A difference counts if it is clear and at least {least} of the base. "
    "Clear: the chance of it between equal SAEs is under 5 %, over both figures and all SAEs that are asked about "
    "(Holm's correction; Student's t over {documents}). "
    "Yes: one of the two is better, and nothing is worse. With reservations: something is worse as well. Worse may be "
    "loss recovered, KL, top-1 agreement or a probe, where L0 is equal, and {least} fewer latents alive. "
    "No: FVU or ΔCE is worse, and neither better. No difference that matters: both intervals lie within {least} of the "
    "base, or what is clear is smaller than that. Too little text: fewer than {fewest} test {of}."
)
"""What is in braces is filled in."""
BOTH, ONE = "Two figures decide: FVU and ΔCE at equal L0.", "FVU at equal L0 decides alone: ΔCE was not measured."


@dataclass(frozen=True)
class Fact:
    """One difference in words and numbers."""

    key: str
    label: str
    change: str
    """The two values, "0.2218 → 0.1782"."""
    value: float
    difference: str
    """The same, written."""
    interval: str
    share: str
    """The difference as a share of the base, "" where that means nothing."""
    outcome: Outcome
    p: float = 1.0
    """Chance of so large a difference between equal SAEs."""
    relative: tuple[float, float, float] | None = None
    """Value, low and high as shares of the base, where that means something."""


@dataclass(frozen=True)
class Part:
    """What one part of an SAE gave: its difference from the same SAE without it."""

    words: str
    base: str
    """The row without it."""
    facts: list[Fact]
    brief: bool
    """Whether it is told where there is room for a few lines alone."""


@dataclass(frozen=True)
class Decision:
    """Whether one row is better than another."""

    row: str
    base: str
    """Labels of the two."""
    question: str
    answer: str
    primary: list[Fact]
    """FVU and ΔCE, which decide."""
    against: list[Fact]
    """What else is worse."""
    others: list[Fact]
    """What else was measured."""
    parts: list[Part]
    cautions: list[str]
    rule: str
    """How the answer is reached."""


def decisions(report: Mapping[str, Any]) -> list[Decision]:
    """The rational SAE against its teacher's own fine-tuning; without these, every compared SAE."""
    rows = {row.name: row for row in difference_rows(report)}
    asked = [(row, base, facts) for row, base in _asked(report, rows) if (facts := _primary(report, rows, row, base))]
    clear = _holm([(place, i, f.p) for place, one in enumerate(asked) for i, f in enumerate(one[2])])
    return [
        _decide(report, rows, row, base, [_judged(report, f, (place, i) in clear) for i, f in enumerate(facts)])
        for place, (row, base, facts) in enumerate(asked)
    ]


def verdict_of(report: Mapping[str, Any]) -> str:
    """The answers as one text."""
    return " ".join(answers(report)) or "Nothing was compared."


def answers(report: Mapping[str, Any]) -> list[str]:
    """One each; of several SAEs each answer begins with the name of its own."""
    found = decisions(report)
    return [one.answer if len(found) == 1 else f"{one.row}: {one.answer}" for one in found]


def least_effect(report: Mapping[str, Any]) -> float:
    """Share of the base from which a difference matters."""
    found = (report.get("settings") or {}).get("least_effect")
    return float(found) if isinstance(found, (int, float)) else LEAST_EFFECT


def _asked(report: Mapping[str, Any], rows: Mapping[str, Line]) -> list[tuple[str, str]]:
    """Pairs (row, base) that are asked about."""
    pairs = list(_pairs(report, rows))
    main = [(RSAE, base) for base in (CONTROL, TEACHER) if (RSAE, base) in pairs and _quality(rows, RSAE, base)]
    return main[:1] or [pair for pair in pairs if pair[0] not in ROWS]


def _pairs(report: Mapping[str, Any], rows: Mapping[str, Line]) -> Iterator[tuple[str, str]]:
    """Differences whose two sides are rows; a row's name may itself hold " - "."""
    for name in rows:
        for row in report["rows"]:
            base = name.removeprefix(f"{row} - ")
            if base != name and base in report["rows"]:
                yield row, base


def _primary(report: Mapping[str, Any], rows: Mapping[str, Line], row: str, base: str) -> list[Fact]:
    return _facts(report, rows, row, base, _quality(rows, row, base))


def _quality(rows: Mapping[str, Line], row: str, base: str) -> list[str]:
    """FVU and ΔCE at equal L0 where that was measured, else at each row's own; nothing without an interval."""
    line = rows[f"{row} - {base}"]
    at_l0 = [f"{key}{AT_L0}" for key in QUALITY if _known(line, f"{key}{AT_L0}")]
    return at_l0 or [key for key in QUALITY if _known(line, key)]


def _known(row: Line, key: str) -> bool:
    """Whether the difference has an interval."""
    return key in row.cells and bool(row.cells[key].outcome)


def _decide(report: Mapping[str, Any], rows: Mapping[str, Line], row: str, base: str, primary: list[Fact]) -> Decision:
    matched = primary[0].key.endswith(AT_L0)
    ours, theirs = (report["rows"][name].get("l0") for name in (row, base))
    like = ours is None or not theirs or abs(ours / theirs - 1) <= EQUAL_L0
    rest = [_judged(report, fact, clear) for fact, clear in _rest(report, rows, row, base)]
    against = [fact for fact in rest if fact.outcome == "worse" and like] + _lost(report, row, base)
    told = _told(base)
    apart = "" if matched or ours is None or like else _apart(ours, theirs, primary)
    return Decision(
        row_label(row),
        row_label(base),
        f"Is {_called(row)} better than {told}, at the same sparsity?",
        _answer(report, told, primary, against, apart) + _untrained(report, row, base) + _unmeasured(report, primary),
        primary,
        against,
        [fact for fact in rest if fact not in against],
        _parts(report, rows, row, base),
        list(_cautions(report, row, base, primary, like=like, matched=matched)),
        _rule(report, primary),
    )


def _called(name: str) -> str:
    return (ROWS[name].called if name in ROWS else "") or row_label(name)


def _told(base: str) -> str:
    return (ROWS[base].as_base if base in ROWS else "") or _called(base)


def _facts(report: Mapping[str, Any], rows: Mapping[str, Line], row: str, base: str, keys: Iterable[str]) -> list[Fact]:
    line = rows[f"{row} - {base}"]
    return [_fact(report, line, row, base, key) for key in keys if _known(line, key)]


def _fact(report: Mapping[str, Any], line: Line, row: str, base: str, key: str) -> Fact:
    cell, found = line.cells[key], report["differences"][line.name][key]
    before, after = (report["rows"][name].get(key) for name in (base, row))
    numbers = [float(number) for number in (found["value"], *found["interval"])]
    relative = None
    if metric(key).relative and before and before > 0:
        relative = (numbers[0] / before, numbers[1] / before, numbers[2] / before)
    return Fact(
        key,
        metric(key).label,
        f"{format_value(key, before)} → {format_value(key, after)}",
        numbers[0],
        cell.text,
        cell.interval,
        format_share(relative[0]) if relative else "",
        "unclear",
        _chance(numbers[0], (numbers[1], numbers[2]), _documents(report)),
        relative,
    )


def _chance(value: float, interval: tuple[float, float], documents: int | None) -> float:
    """Two-sided, of Student's t: a bootstrap's spread is too small by √((n − 1)/n), and its tails are a normal's."""
    from scipy.special import stdtr

    error = (interval[1] - interval[0]) / (2 * HALF_WIDTHS)
    if not value:
        return 1.0
    if error <= 0 or (documents is not None and documents < 2):
        return 0.0 if error <= 0 else 1.0
    if documents is None:
        return math.erfc(abs(value) / error / math.sqrt(2))
    error *= math.sqrt(documents / (documents - 1))
    return float(2 * stdtr(documents - 1, -abs(value) / error))


def _documents(report: Mapping[str, Any]) -> int | None:
    found = (report.get("data") or {}).get("test_documents")
    return int(found) if isinstance(found, (int, float)) and found > 0 else None


def _holm(chances: Sequence[tuple[int, int, float]]) -> set[tuple[int, int]]:
    """Places whose chance is under LEVEL after Holm's correction: the least is held against LEVEL / n, and so on.

    >>> sorted(_holm([(0, 0, 0.01), (0, 1, 0.04)])), sorted(_holm([(0, 0, 0.03), (0, 1, 0.04)]))
    ([(0, 0), (0, 1)], [])
    """
    clear: set[tuple[int, int]] = set()
    for done, (place, i, chance) in enumerate(sorted(chances, key=lambda one: one[2])):
        if chance > LEVEL / (len(chances) - done):
            break
        clear.add((place, i))
    return clear


def _judged(report: Mapping[str, Any], fact: Fact, clear: bool) -> Fact:
    """The fact with its outcome."""
    least = least_effect(report)
    found: Outcome = "unclear"
    if fact.relative is not None and all(abs(end) < least for end in fact.relative[1:]):
        found = "same"
    elif clear and fact.relative is not None and abs(fact.relative[0]) < least:
        found = "slight"
    elif clear:
        found = "better" if (fact.value < 0) == (metric(fact.key).better == "lower") else "worse"
    return replace(fact, outcome=found)


def _rest(report: Mapping[str, Any], rows: Mapping[str, Line], row: str, base: str) -> list[tuple[Fact, bool]]:
    """Of the other figures, each with whether it is clear among them."""
    facts = _facts(report, rows, row, base, [key for key, one in METRICS.items() if one.weighed])
    clear = _holm([(0, i, fact.p) for i, fact in enumerate(facts)])
    return [(fact, (0, i) in clear) for i, fact in enumerate(facts)]


def _lost(report: Mapping[str, Any], row: str, base: str) -> list[Fact]:
    """Latents that are alive in the base, or in the teacher, and are no more."""
    alive = {name: one.get(ALIVE) for name, one in report["rows"].items()}
    before = max((value for name in (base, TEACHER) if (value := alive.get(name))), default=None)
    after = alive.get(row)
    if before is None or after is None or before - after <= max(least_effect(report) * before, 0):
        return []
    change = after - before
    return [
        Fact(
            ALIVE,
            metric(ALIVE).label,
            f"{format_value(ALIVE, before)} → {format_value(ALIVE, after)}",
            change,
            format_difference(ALIVE, change),
            "",
            format_share(change / before),
            "worse",
        )
    ]


def _answer(report: Mapping[str, Any], base: str, primary: list[Fact], against: list[Fact], apart: str) -> str:
    """apart: how L0 differs where that forbids an answer, "" where figures are comparable."""
    documents = _documents(report)
    if documents is not None and documents < FEWEST_DOCUMENTS:
        return (
            f"Too little {'text' if nouns(report)[1] == 'documents' else 'data'} to say: {documents} test "
            f"{nouns(report)[1]}, and {FEWEST_DOCUMENTS} are needed (eval_tokens). "
            f"So far, beside {base}: {_listed([_moved(fact) for fact in primary])}."
        )
    better, worse = ([fact for fact in primary if fact.outcome == kind] for kind in ("better", "worse"))
    if apart:
        return f"Open: {_listed([_moved(fact) for fact in primary])} beside {base}, but {apart}."
    if better and (worse or against):
        bad = [*(_moved(fact) for fact in worse), *(_harm(fact) for fact in against)]
        return f"With reservations: {_listed([_moved(fact) for fact in better])} than {base}, but {_listed(bad)}."
    if better:
        rest = [fact for fact in primary if fact not in better]
        open_ = f"; {_listed([_name(fact) for fact in rest])}: {_still(rest)}" if rest else ""
        return f"Yes: {_listed([_moved(fact) for fact in better])} than {base}{open_}."
    if worse:
        return f"No: {_listed([_moved(fact) for fact in worse])} than {base}."
    found = _listed([_moved(fact) for fact in primary])
    bad = f" And {_listed([_harm(fact) for fact in against])}." if against else ""
    if all(fact.outcome in ("same", "slight") for fact in primary):
        return f"No difference that matters from {base}: {found}, where {_percent(report)} would.{bad}"
    return f"No clear difference from {base}: {found}.{bad}"


def _still(rest: list[Fact]) -> str:
    return ", ".join("no difference that matters" if f.outcome == "same" else f"no clear one ({f.share})" for f in rest)


def _name(fact: Fact) -> str:
    """In the answer, where the question has said that sparsity is the same."""
    return fact.label.removesuffix(" at L0")


def _moved(fact: Fact) -> str:
    if fact.relative is None:
        return f"{_name(fact)} {fact.difference}"
    moved = f"{abs(fact.relative[0]):.1%}"
    if moved == "0.0%":
        return f"{_name(fact)} the same within .05%"
    return f"{_name(fact)} {moved} {'higher' if fact.relative[0] > 0 else 'lower'}"


def _harm(fact: Fact) -> str:
    if fact.key == ALIVE:
        return f"{fact.share.lstrip('-')} fewer latents are alive"
    return f"{fact.label} is worse ({fact.share or fact.difference})"


def _untrained(report: Mapping[str, Any], row: str, base: str) -> str:
    """Of rows whose fine-tuning was never better than their start, so that the start was kept."""
    kept = untrained(report)
    said = ""
    if base in kept:
        said += f" {NOT_BETTER.capitalize()}: this is a comparison with the {UNTRAINED} teacher."
    if row in kept:
        said += f" {_called(row).capitalize()} is {UNTRAINED}: {NOT_BETTER}."
    return said


def _unmeasured(report: Mapping[str, Any], primary: Sequence[Fact]) -> str:
    """Of an SAE without a language model, so that the answer does not stand for more than it is of."""
    without = COUNTED in (report.get("data") or {}) and not _has_delta_ce(primary)
    return " ΔCE was not measured." if without else ""


def _apart(ours: float, theirs: float, primary: list[Fact]) -> str:
    """Figures at unequal L0 say nothing when the denser SAE has the better ones: density alone gives that."""
    denser = ours > theirs
    kinds = {fact.outcome for fact in primary}
    better, worse = "better" in kinds, "worse" in kinds
    if (denser and better and not worse) or (not denser and worse and not better):
        return (
            f"at {'higher' if denser else 'lower'} L0 ({format_value('l0', ours)} against {format_value('l0', theirs)})"
        )
    return ""


def _parts(report: Mapping[str, Any], rows: Mapping[str, Line], row: str, asked: str) -> list[Part]:
    """What a row differs by from the rows that lack one thing each. asked: the row that the question is about."""
    found = []
    for base, words in parts_of(report["rows"], row):
        name = f"{row} - {base}"
        if name in rows and (keys := _quality(rows, row, base)):
            facts = _facts(report, rows, row, base, keys)
            words += f" ({UNTRAINED})" if base in untrained(report) else ""
            brief = base != asked and (bool(ROWS[base].as_base) or base in STARTS)
            found.append(Part(words, base, [_judged(report, fact, fact.p <= LEVEL) for fact in facts], brief))
    return found


def _cautions(
    report: Mapping[str, Any], row: str, base: str, primary: Sequence[Fact], *, like: bool, matched: bool
) -> Iterator[str]:
    """What a reader must know before believing the answer."""
    data, (of, owners) = report.get("data") or {}, nouns(report)
    tokens, documents = data.get("test_tokens"), _documents(report)
    measured = f"Measured on {tokens:,} test {of} of {documents:,} {owners}." if tokens and documents else ""
    if line := " ".join(filter(None, (measured, _cost(report, row)))):
        yield line
    ours, theirs = (report["rows"][name].get("l0") for name in (row, base))
    if not like and ours is not None and theirs:
        held = " FVU and ΔCE above are at equal L0, the other figures are not and do not count." if matched else ""
        yield (
            f"L0 differs: {format_value('l0', ours)} against {format_value('l0', theirs)} "
            f"({format_share(ours / theirs - 1)}).{held}"
        )
    compared = (name for name in (row, *(other.name for other in against(row))) if name in untrained(report))
    for name in compared:
        yield f"{row_label(name, untrained(report))}: {NOT_BETTER}."
    if COUNTED in data and not _has_delta_ce(primary):
        yield (
            "There was no language model, so ΔCE, KL and probes were not measured: what x̂ in place of x does to the "
            "network's own predictions is open."
        )
        return
    found = (report.get("differences") or {}).get(f"{row} - {base}") or {}
    if not any(key in found for key in named("probing", "suite")):
        yield "Sparse probing was not measured: whether latents mean as much as before is open."


def _cost(report: Mapping[str, Any], row: str) -> str:
    """What an encode takes, beside the teacher's on the same tokens."""
    timing = report.get("timing") or {}
    ours, teacher = (timing.get(ENCODE + name) for name in (row, TEACHER))
    if not ours or not teacher:
        return ""
    times = f"{ours / teacher:.2g}"
    return f"Encoding takes {'' if times == '1' else f'{times} times '}as long as with {_called(TEACHER)}."


def _rule(report: Mapping[str, Any], primary: Sequence[Fact]) -> str:
    documents, owners = _documents(report), nouns(report)[1]
    return RULE.format(
        deciding=BOTH if _has_delta_ce(primary) else ONE,
        least=_percent(report),
        documents=f"{documents:,} {owners}" if documents else owners,
        fewest=FEWEST_DOCUMENTS,
        of=owners,
    )


def _has_delta_ce(primary: Sequence[Fact]) -> bool:
    return any(fact.key.startswith(QUALITY[1]) for fact in primary)


def _percent(report: Mapping[str, Any]) -> str:
    return f"{100 * least_effect(report):g} %"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
