"""What a report is: its sections and their types, and the check that a dictionary is one.

Only `schema`, `title`, `verdict` and `rows` are required. Numbers may be null: "not measured", or not finite.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from rational_sae.errors import OutputError

SCHEMA = 1

ENCODE = "encode 1,000 tokens, "
"""Followed by a row: its key in `timing`."""

PUBLIC = "https://www.neuronpedia.org/"
PUBLIC_PAGE = re.compile(re.escape(PUBLIC) + r"([\w.-]+/[\w.-]+/)?")
"""The only addresses that a page links to."""

NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]\d+)?")

Number = float | None
Interval = tuple[Number, Number]


class Difference(TypedDict):
    value: Number
    interval: NotRequired[Interval | None]


class Histogram(TypedDict):
    edges: list[float]
    """n + 1 of them, in t = h / scale."""
    density: list[Number]


class Gate(TypedDict):
    """Gate values against t = h / scale."""

    description: str
    threshold: NotRequired[Number]
    t: list[float]
    teacher: list[Number]
    initial: list[Number]
    final: list[Number]
    histogram: NotRequired[Histogram | None]


class TrainCurve(TypedDict):
    step: list[float]
    mse: NotRequired[list[Number]]
    l0: NotRequired[list[Number]]
    sparsity_weight: NotRequired[list[Number]]
    kl: NotRequired[list[Number]]


class ValidationCurve(TypedDict):
    step: list[float]
    fvu: NotRequired[list[Number]]
    l0: NotRequired[list[Number]]
    kl: NotRequired[list[Number]]
    kept_step: NotRequired[Number]


class Curves(TypedDict):
    train: NotRequired[dict[str, TrainCurve]]
    validation: NotRequired[dict[str, ValidationCurve]]
    target_l0: NotRequired[Number]


class Firing(TypedDict):
    edges_log10: list[float]
    """n + 1 of them: log10 of the share of tokens on which a latent is active."""
    counts: dict[str, list[Number]]
    dead: NotRequired[dict[str, int]]


class Measured(TypedDict):
    value: Number
    interval: NotRequired[Interval | None]


class Task(TypedDict):
    """One probing task: a row's accuracies are keyed `probe_k1` … `probe_dense`."""

    classes: NotRequired[list[str]]
    train: NotRequired[int]
    test: NotRequired[int]
    rows: dict[str, dict[str, Measured]]


class Probing(TypedDict):
    protocol: NotRequired[dict[str, Any] | None]
    tasks: dict[str, Task]


class Example(TypedDict):
    """A latent's values on consecutive tokens, as versions before 0.1 wrote them."""

    tokens: list[str]
    values: list[Number]
    peak: int
    """Index of the token for which the example was chosen."""


class Latent(TypedDict):
    latent: int
    status: Literal["kept", "newly_alive", "newly_dead", "dead"]
    change: NotRequired[Number]
    """1 − cos_decoder."""
    cos_decoder: NotRequired[Number]
    cos_encoder: NotRequired[Number]
    correlation: NotRequired[Number]
    overlap: NotRequired[Number]
    """Jaccard index of the tokens on which the latent and its teacher's fire."""
    tokens_kept: NotRequired[Number]
    """Share of the tokens that the teacher's latent promotes most which this one does, too."""
    density: NotRequired[dict[str, Number]]
    """Row → share of tokens on which the latent is active."""
    fired: NotRequired[dict[str, int]]
    """Row → tokens on which the latent is active, of the summary's."""
    largest: NotRequired[dict[str, Number]]
    """Row → its largest value."""
    histogram: NotRequired[dict[str, str]]
    """Row → how many values fall in each of equal parts of 0 to the largest, zeros left out."""
    logits: NotRequired[dict[str, Logits]]
    examples: dict[str, list[Example | str]]
    """The strongest. A text is "sequence start size peak offset:value …", of `Features.text`."""
    weaker: NotRequired[dict[str, list[str]]]
    """Drawn from tokens on which the latent is weaker, one each of three bands."""


class Logits(TypedDict):
    """Direct effects on logits, above their mean: "token:value …", tokens by their place in `Features.text`."""

    promoted: str
    suppressed: str


class FeatureText(TypedDict):
    """What examples and logits are of."""

    tokens: list[str]
    """As people read them."""
    sequences: list[str]
    """Places in `tokens`, a space between."""


class Features(TypedDict):
    rows: list[str]
    """The teacher first."""
    summary: NotRequired[dict[str, Any] | None]
    text: NotRequired[FeatureText]
    public_page: NotRequired[str]
    """Address of the teacher's latents, without the number of the latent."""
    latents: list[Latent]


class Report(TypedDict):
    """The contents of report.json."""

    schema: int
    title: str
    verdict: str
    rows: dict[str, dict[str, Number]]
    warnings: NotRequired[list[str]]
    intervals: NotRequired[dict[str, dict[str, Interval | None]]]
    differences: NotRequired[dict[str, dict[str, Difference]]]
    gate: NotRequired[Gate | None]
    curves: NotRequired[Curves | None]
    pilots: NotRequired[dict[str, dict[str, Any]] | None]
    """Control that kept its start → what other learning rates gave."""
    firing: NotRequired[Firing | None]
    probing: NotRequired[Probing | None]
    features: NotRequired[Features | None]
    absorption: NotRequired[dict[str, dict[str, Any]] | None]
    """Row → what the first-letter task measured."""
    fit: NotRequired[dict[str, Any] | None]
    teacher: NotRequired[dict[str, Any] | None]
    data: NotRequired[dict[str, Any] | None]
    settings: NotRequired[dict[str, Any] | None]
    environment: NotRequired[dict[str, Any] | None]
    timing: NotRequired[dict[str, Number] | None]


class SweepCell(TypedDict):
    model: str | None
    hook: str | None
    family: str
    d_sae: int
    development: bool
    rows: dict[str, dict[str, Number]]
    intervals: NotRequired[dict[str, dict[str, Interval | None]] | None]
    differences: NotRequired[dict[str, dict[str, Difference]] | None]
    test_documents: NotRequired[int | None]
    verdict: str
    untrained: NotRequired[list[str]]
    """Rows that were fine-tuned and kept their start."""
    seconds: Number


class Ratio(TypedDict):
    geometric_mean: Number
    worst: float
    worst_cell: str
    cells: int
    clearly_better: int
    clearly_worse: int
    untrained: NotRequired[int]
    """Cells in which the other row kept its start."""


class Sweep(TypedDict):
    """The contents of sweep.json."""

    cells: dict[str, SweepCell]
    ratios: dict[str, dict[str, dict[str, Ratio]]]
    rates: dict[str, Any]
    failed: dict[str, str]
    missing: list[str]


def to_plain(value: Any) -> Any:
    """The same value in JSON's own types: arrays as lists, non-finite numbers as None, the rest as text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [to_plain(item) for item in value]
    if not isinstance(value, bytes) and hasattr(value, "tolist"):  # numpy and torch, scalars and arrays alike
        return to_plain(value.tolist())
    return value.as_posix() if isinstance(value, PurePath) else str(value)


def check_report(report: Any, name: str = "report") -> dict[str, Any]:
    """The report in JSON's own types, or an OutputError that says what is wrong with it."""
    plain = to_plain(report)
    if not isinstance(plain, dict) or "schema" not in plain:
        raise OutputError(f"{name} is not a report (no schema number)", "rerun the job that wrote it")
    if plain["schema"] != SCHEMA or isinstance(plain["schema"], bool):
        raise OutputError(
            f"{name} has schema {plain['schema']!r}, this version reads schema {SCHEMA}",
            "rebuild it with the version of rational-sae that wrote it",
        )
    fault = _type_fault(plain, Report) or next(_length_faults(plain), "") or next(_example_faults(plain), "")
    if fault:
        raise OutputError(f"{name} is malformed: {fault}", "rerun the job that wrote it")
    return plain


def check_sweep(found: Any, name: str) -> dict[str, Any]:
    """The contents of a sweep.json, or an OutputError that says what is wrong with it."""
    if not isinstance(found, dict) or not Sweep.__required_keys__ <= found.keys():
        raise OutputError(f"{name} is not a sweep's summary", "run the sweep again with --resume")
    if fault := _type_fault(found, Sweep):
        raise OutputError(f"{name} is malformed: {fault}", "run the sweep again with --resume")
    return found


def _type_fault(plain: dict[str, Any], kind: Any) -> str:
    """The first value of a wrong type, or the empty string."""
    from pydantic import TypeAdapter, ValidationError

    try:
        # From JSON, where a two-item list may stand for a pair even in strict mode.
        TypeAdapter(kind).validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return " ".join(f"{place}: {first['msg'].lower()}".split())
    return ""


def _length_faults(plain: dict[str, Any]) -> Iterator[str]:
    """Lists that are drawn against each other and differ in length."""
    gate = plain.get("gate") or {}
    curves = plain.get("curves") or {}
    firing = plain.get("firing") or {}
    pairs = [(f"gate.{key}", gate.get("t"), gate.get(key), 0) for key in ("teacher", "initial", "final")]
    histogram = gate.get("histogram") or {}
    pairs.append(("gate.histogram.density", histogram.get("edges"), histogram.get("density"), 1))
    for part, keys in (("train", ("mse", "l0", "sparsity_weight", "kl")), ("validation", ("fvu", "l0", "kl"))):
        for row, curve in (curves.get(part) or {}).items():
            pairs += [(f"curves.{part}.{row}.{key}", curve["step"], curve.get(key), 0) for key in keys]
    pairs += [
        (f"firing.counts.{row}", firing["edges_log10"], counts, 1)
        for row, counts in (firing.get("counts") or {}).items()
    ]
    for place, along, values, extra in pairs:
        if along is not None and values is not None and len(along) != len(values) + extra:
            yield f"{place} has {len(values)} values for {len(along) - extra} places"


def _example_faults(plain: dict[str, Any]) -> Iterator[str]:
    """Examples whose values do not belong to their tokens."""
    features = plain.get("features") or {}
    text = features.get("text") or {"tokens": [], "sequences": []}
    lengths, known = [len(line.split()) for line in text["sequences"]], len(text["tokens"])
    for number, line in enumerate(text["sequences"]):
        if not all(token.isdecimal() and int(token) < known for token in line.split()):
            yield f"features: sequence {number} has a token that is not in the table"
    if not PUBLIC_PAGE.fullmatch(features.get("public_page") or PUBLIC):
        yield f"features: {features['public_page']!r:.80} is no page of Neuronpedia"
    for latent in features.get("latents") or []:
        for row, ends in (latent.get("logits") or {}).items():
            if not all(_is_entry(entry, known) for end in ends.values() for entry in end.split()):
                yield f"features: latent {latent['latent']}, {row} has logits of no token"
        for row, counts in (latent.get("histogram") or {}).items():
            if not all(count.isdecimal() for count in counts.split()):
                yield f"features: latent {latent['latent']}, {row} has a histogram of no counts"
        for row in latent["examples"]:
            place = f"features: latent {latent['latent']}, {row}"
            for example in [*latent["examples"][row], *(latent.get("weaker") or {}).get(row, [])]:
                if isinstance(example, str):
                    if not _is_example(example, lengths):
                        yield f"{place} has an example of no tokens"
                    continue
                tokens = len(example["tokens"])
                if len(example["values"]) != tokens:
                    yield f"{place} has {len(example['values'])} values for {tokens} tokens"
                if not 0 <= example["peak"] < tokens:
                    yield f"{place} has its peak at {example['peak']} of {tokens} tokens"


def _is_example(text: str, lengths: list[int]) -> bool:
    """Whether a written example lies within its sequence. lengths: of all sequences."""
    *places, values = [*text.split(" ", 4), ""][:5] if text.count(" ") >= 3 else [""] * 5
    if not all(place.isdecimal() for place in places):
        return False
    sequence, start, size, peak = map(int, places)
    within = sequence < len(lengths) and start + size <= lengths[sequence] and peak < size
    return within and all(_is_entry(entry, size) for entry in values.split())


def _is_entry(text: str, count: int) -> bool:
    """Whether a text is "place:value" of a place below count."""
    place, _, value = text.partition(":")
    return place.isdecimal() and int(place) < count and NUMBER.fullmatch(value) is not None
