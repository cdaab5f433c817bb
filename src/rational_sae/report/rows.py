"""The rows of a report, in the order of display: one table of their names, words and strokes, and of what each is
compared with.

A new row is one entry of `ROWS`; every table, chart, sentence and glossary reads it from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rational_sae.report.strokes import DIAMOND, DOWN, SQUARE, UP, Stroke

TEACHER, RSAE, ACTIVATIONS, CONTROL, RANDOM = "teacher", "rsae", "activations", "control_native", "random"
"""Names of the rows that views single out."""

FINE_TUNING = "Fine-tuning, over the untrained start"
STARTS = ("init_looks", "init_hard", "init")
"""What the rational SAE may have started from; the first that a report has is it."""


@dataclass(frozen=True)
class Row:
    """One kind of SAE in a report."""

    name: str
    """Its key in report.json."""
    words: str
    """What it is, in the glossary."""
    stroke: Stroke
    called: str = ""
    """In the question and the answer at the top, where its label would not do."""
    as_base: str = ""
    """In the verdict, as what another is compared with; "" keeps it out of the verdict, and of a sweep's ratios."""
    compared_with: tuple[str, ...] = ()
    """Rows that it has to beat, the one that it replaces first."""
    part: str = ""
    """What the rational SAE has and this row lacks, where its difference shows what that part gave."""
    in_sweep: bool = True
    """Whether a sweep's tables and charts show it, or a cell's own report alone."""


_ALL = (
    Row(
        TEACHER,
        "The SAE as it was given.",
        Stroke("#808080"),
        called="its teacher",
        as_base="the teacher",
        part="All together, over the teacher",
    ),
    Row(
        "teacher_rescaled",
        "The teacher with the best output scale, in closed form. It undoes shrinkage, "
        "which is not the rational's merit.",
        Stroke("#808080", (2, 3), SQUARE),
        part="Beyond one output scale for the teacher",
        in_sweep=False,
    ),
    Row(
        "teacher_adapted",
        "The teacher with a trained linear map on its output, which a stock file holds in W_dec and b_dec: what the "
        "objective gives without new codes.",
        Stroke("#808080", (8, 3), DIAMOND),
        as_base="the teacher with an adapted output",
    ),
    Row(
        "shape",
        "The teacher with the best shared shape of magnitudes, in closed form, on the same support.",
        Stroke("#c2478f", (4, 2), SQUARE),
        in_sweep=False,
    ),
    Row(
        "floor",
        "The teacher's dictionary with codes by gradient pursuit, at most as many a token as the teacher has: what a "
        "search finds, and no encoder is expected to reach.",
        Stroke("#6b7fd7", (1, 2), UP),
        in_sweep=False,
    ),
    Row(
        "init",
        "The rational SAE before fine-tuning: the teacher's weights, the fitted and calibrated rational.",
        Stroke("#a06cc8", (6, 3), DIAMOND),
        part=FINE_TUNING,
    ),
    Row(
        "init_hard",
        "The same initialisation under the hard gate: exact zeros below the threshold.",
        Stroke("#a06cc8", (2, 3), DOWN),
        in_sweep=False,
        part=FINE_TUNING,
    ),
    Row(
        "init_looks",
        "The rational SAE with all its looks, calibrated and not trained.",
        Stroke("#a06cc8", (4, 2), UP),
        in_sweep=False,
        part=FINE_TUNING,
    ),
    Row(
        RSAE,
        "The rational SAE, fine-tuned, at the step that validation kept.",
        Stroke("#e0561b"),
        called="the rational SAE",
        compared_with=(
            *(TEACHER, "control_native", "control_jumprelu", "one_look", "identity"),
            *("teacher_adapted", "teacher_rescaled"),
        ),
    ),
    Row(
        "one_look",
        "The rational SAE with one look, fine-tuned as long: what all but the further looks gives.",
        Stroke("#c2478f", (8, 3), SQUARE),
        as_base="the rational SAE with one look",
        part="Further looks (which latents are active), over one look",
    ),
    Row(
        "identity",
        "The same gate, scales, band and controller with r(t) = t: what the machinery gives without the rational.",
        Stroke("#2e9b5b", (8, 3), DIAMOND),
        as_base="the same machinery without the rational",
        part="The rational shape, over a straight line",
    ),
    Row(
        "control_native",
        "The teacher with its own gate, fine-tuned on the same tokens for the same steps.",
        Stroke("#2f86d6", (4, 2), SQUARE),
        as_base="the teacher fine-tuned the same way with its own gate",
        part="Beyond the same fine-tuning of the teacher",
    ),
    Row(
        "control_jumprelu",
        "The teacher with JumpReLU thresholds trained by straight-through gradients, on the same tokens, with silent "
        "latents revived.",
        Stroke("#b98a14", (8, 3, 2, 3), UP),
        as_base="JumpReLU fine-tuning",
        part="Beyond JumpReLU fine-tuning",
    ),
    Row(
        ACTIVATIONS,
        "The residual vectors themselves, without any SAE: a reference for probing.",
        Stroke("#6b7fd7", (2, 2), DOWN),
    ),
    Row(
        RANDOM,
        "An SAE of random directions, as wide and as sparse as the first: what probes reach with nothing learned.",
        Stroke("#7a8b2a", (2, 2), UP),
        in_sweep=False,
    ),
)

ROWS: dict[str, Row] = {row.name: row for row in _ALL}

OTHERS = (
    Stroke("#c2478f"),
    Stroke("#2a9d9d", shape=SQUARE),
    Stroke("#7a8b2a", (4, 2), DIAMOND),
    Stroke("#6b7fd7", (2, 2), UP),
    Stroke("#b98a14", (8, 3), DOWN),
)
"""Of rows that are not in the table, say folders that were evaluated, in turn."""


def in_order(names: Iterable[str], order: Iterable[str] | None = None) -> list[str]:
    """Known names in their own order, by default that of the rows, then the unknown ones as they came.

    >>> in_order(["mine", "rsae", "teacher"])
    ['teacher', 'rsae', 'mine']
    """
    names, order = list(names), list(ROWS if order is None else order)
    return [name for name in order if name in names] + [name for name in names if name not in order]


UNTRAINED = "untrained"
"""What a row is called that was fine-tuned and kept its start."""

NOT_BETTER = "no step of its fine-tuning was better than its start"
"""Why, wherever there is room for it."""


def untrained(report: Mapping[str, Any]) -> frozenset[str]:
    """Rows that were fine-tuned and kept step 0: a report's by its validation curves, a sweep's cell says them."""
    if UNTRAINED in report:
        return frozenset(report[UNTRAINED] or ())
    curves = (report.get("curves") or {}).get("validation") or {}
    return frozenset(name for name, curve in curves.items() if curve.get("kept_step") == 0)


def row_label(name: str, untrained: Collection[str] = ()) -> str:
    """A row's name, or a difference's, as people read it; an unknown one, say a path, as it is.

    untrained: rows that are called so.

    >>> row_label("rsae - control_native"), row_label("runs/my_sae"), row_label("rsae - identity", {"identity"})
    ('rsae − control native', 'runs/my_sae', 'rsae − identity (untrained)')
    """
    parts = name.split(" - ")
    said = (f" ({UNTRAINED})" if part in untrained else "" for part in parts)
    words = (part.replace("_", " ") if part in ROWS else part for part in parts)
    return " − ".join(map("".join, zip(words, said, strict=True)))


def strokes(names: Iterable[str]) -> dict[str, Stroke]:
    """A stroke for every row; a known row looks the same in every chart of every report."""
    unknown = 0
    chosen: dict[str, Stroke] = {}
    for name in names:
        if name in ROWS:
            chosen[name] = ROWS[name].stroke
        else:
            chosen[name] = OTHERS[unknown % len(OTHERS)]
            unknown += 1
    return chosen


def against(row: str = RSAE) -> list[Row]:
    """What a row has to beat, in the order of the verdict; nothing for an unknown one.

    >>> [base.name for base in against()][:2]
    ['teacher', 'control_native']
    """
    return [ROWS[name] for name in (ROWS[row].compared_with if row in ROWS else ())]


def parts_of(rows: Iterable[str], row: str = RSAE) -> list[tuple[str, str]]:
    """(row without it, words) of each part that a report's rows can tell; nothing for a row that is none of ours.

    >>> [base for base, _ in parts_of(["teacher", "init", "init_hard", "rsae", "identity"])]
    ['teacher', 'identity', 'init_hard']
    """
    rows = list(rows)
    if row != RSAE:
        return []
    start = [name for name in STARTS if name in rows][:1]
    return [(name, ROWS[name].part) for name in (*ROWS[RSAE].compared_with, *start) if name in rows]


def shown_in_sweep(names: Iterable[str]) -> list[str]:
    """Rows that a sweep's tables and charts show, in the order of display.

    >>> shown_in_sweep(["rsae", "init_hard", "teacher"])
    ['teacher', 'rsae']
    """
    return [name for name in in_order(names) if name not in ROWS or ROWS[name].in_sweep]
