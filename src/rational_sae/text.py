"""Text → documents → splits. Streams; the only thing held for all documents is an 8-byte hash each.

A document belongs to exactly one split, decided by the sha256 of its text, so no document and no exact
copy of one is ever in two splits, whatever the order or the number of files.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rational_sae.embedded import TEXTS, embedded_path
from rational_sae.errors import MissingExtraError, TextError

Split = Literal["train", "calibration", "validation", "test"]

SPLIT_EDGES: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.80),
    "calibration": (0.80, 0.84),
    "validation": (0.84, 0.90),
    "test": (0.90, 1.0),
}
"""Share of the hash space of each split."""

SHUFFLE_BUFFER_DOCUMENTS = 8192
"""Documents held while shuffling a stream."""

MAX_DOCUMENT_CHARACTERS = 200_000
"""A longer document is read as several of the same split (memory stays bounded, and one cannot dominate)."""


@dataclass(frozen=True)
class Text:
    """A re-readable source of documents."""

    name: str
    """What the user called it."""
    read: Callable[[], Iterator[str]]
    """Start a new pass over the raw documents."""

    def documents(self, split: Split, *, seed: int | None = None) -> Iterator[str]:
        """Distinct, non-empty documents of one split; shuffled in a bounded buffer if `seed` is given."""
        low, high = SPLIT_EDGES[split]
        chosen = (text for text, place in self._placed() if low <= place < high)
        return chosen if seed is None else _shuffled(chosen, random.Random(seed))

    def _placed(self) -> Iterator[tuple[str, float]]:
        seen: set[int] = set()
        for raw in self.read():
            document = raw.strip()
            key = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big")
            if not document or key in seen:
                continue
            seen.add(key)
            for start in range(0, len(document), MAX_DOCUMENT_CHARACTERS):
                yield document[start : start + MAX_DOCUMENT_CHARACTERS], key / 2**64


def open_text(name: str) -> Text:
    """TEXT of the command line: `.txt`, `.jsonl[.gz]`, a folder of them, `hf:NAME[:SPLIT]`, an embedded name.

    Raises TextError if there is no such text or its kind is unknown.
    """
    if name in TEXTS:
        return Text(name, lambda: _read_news(embedded_path(name, TEXTS)))
    if name.startswith("hf:"):
        return Text(name, lambda: _read_hub(name))
    path = Path(name)
    if not _is_there(path):
        raise TextError(
            f"there is no text at {name}",
            f"give a .txt, a .jsonl[.gz], a folder of them, hf:NAME[:SPLIT], or one of: {', '.join(TEXTS)}",
        )
    try:
        files = _text_files(path)
    except OSError as error:
        raise TextError(f"{path} cannot be read ({error.strerror})", "check the path") from error
    return Text(name, lambda: (document for file in files for document in _read_file(file)))


def _is_there(path: Path) -> bool:
    """Whether there is a file or folder. Raises TextError if the system cannot say (too long a name, no permission)."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise TextError(f"{path} cannot be read ({error})", "check the path") from error
    return True


def _text_files(path: Path) -> list[Path]:
    files = sorted(f for f in path.rglob("*") if f.is_file() and _kind(f)) if path.is_dir() else [path]
    if not files or not all(_kind(f) for f in files):
        raise TextError(f"no .txt or .jsonl[.gz] file in {path}", "only these kinds are read")
    return files


def _kind(path: Path) -> str:
    name = path.name.lower()
    return next((end for end in (".txt", ".jsonl", ".jsonl.gz") if name.endswith(end)), "")


def _read_file(path: Path) -> Iterator[str]:
    if _kind(path) == ".txt":
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from _paragraphs(lines)
        except OSError as error:
            raise TextError(f"{path} cannot be read ({error.strerror})", "check the file and the disk") from error
        return
    for number, line in open_lines(path):
        yield _jsonl_text(line, path, number)


def open_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-empty lines of a text file, gzipped or not, with their numbers from 1. Raises TextError if it is damaged."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise TextError(f"{path} is damaged ({error})", "write the file again") from error


def _paragraphs(lines: Iterator[str] | io.TextIOBase) -> Iterator[str]:
    """One long text splits at blank lines; a paragraph is closed early at the document limit."""
    held: list[str] = []
    size = 0
    for line in lines:
        if line.strip():
            held.append(line)
            size += len(line)
        if held and (not line.strip() or size >= MAX_DOCUMENT_CHARACTERS):
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)


def _jsonl_text(line: str, path: Path, number: int) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise TextError(f'{path} line {number} is not a JSON object with a field "text"', "mend that line") from error
    if not isinstance(text, str):
        raise TextError(f'{path} line {number}: "text" is not a string', "mend that line")
    return text.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair; UTF-8 cannot


def _read_news(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive, archive.open("NewsArticles.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", errors="replace")):
            yield row["text"] or ""


def open_hub(name: str) -> tuple[str, Any]:
    """The data set's name and its rows, streamed, of `hf:NAME[:SPLIT]`.

    Raises MissingExtraError without the package `datasets`, and TextError if there is no such data set.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError("datasets", extra="hub") from error
    _, dataset, *split = name.split(":")
    try:
        rows = load_dataset(dataset, split=split[0] if split else "train", streaming=True)
    except Exception as error:  # the hub client raises many kinds; all mean the same to a user
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TextError(f"cannot open the data set {dataset} ({first})", "check its name and the network") from error
    return dataset, rows


def _read_hub(name: str) -> Iterator[str]:
    """`hf:NAME[:SPLIT]`, streamed; the field is `text`."""
    dataset, rows = open_hub(name)
    for row in rows:
        if "text" not in row:
            raise TextError(f'the data set {dataset} has no field "text"', f"its fields are: {', '.join(row)}")
        yield row["text"]


def _shuffled(documents: Iterator[str], rng: random.Random) -> Iterator[str]:
    buffer: list[str] = []
    for document in documents:
        if len(buffer) < SHUFFLE_BUFFER_DOCUMENTS:
            buffer.append(document)
            continue
        slot = rng.randrange(SHUFFLE_BUFFER_DOCUMENTS)
        buffer[slot], document = document, buffer[slot]
        yield document
    rng.shuffle(buffer)
    yield from buffer
