"""Text → documents → splits. Streams: of the documents that were read 9 bytes each are held, and sketches of the first
262 144 (see `copies`).

A document belongs to exactly one split, decided by the sha256 of its text, so that no document and no exact copy of one
is ever in two splits, whatever the order or the number of files. A near-copy of an earlier document is left out, like
an exact one. It could be given the split of the earlier one instead; but then the intervals, which resample documents,
would count one text twice, and training would read it twice.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import random
import re
import zipfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from rational_sae.data.chat import dialogue_of
from rational_sae.data.copies import REMEMBERED, Remembered, sketch
from rational_sae.data.embedded import TEXTS, embedded_path
from rational_sae.data.hub_rows import numbered_rows, open_hub
from rational_sae.data.text_files import check, json_row, open_lines, read_characters, text_of
from rational_sae.errors import TextError

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
"""A longer document is read in pieces (so that tokens of one do not fill a shuffle buffer); it stays one document of
one split, and of every interval."""

BLOCKS = 400
"""Of a long single file, about: the smallest split, 4 %, then has some 16 of them, and the test split 40, which is what
a bootstrap needs; more would only add edges, at which neighbours are parted."""
FEWEST_BLOCKS = 200
"""Of a short one: 8 in the smallest split, which is empty with probability .0003."""
BLOCK_CHARACTERS = 2_000
"""Blocks are not shorter than this while there are more than FEWEST_BLOCKS: some 450 tokens, above the 256 that are
evaluated of a document."""

_BLANK_LINE = re.compile(r"\n(?:[^\S\n]*\n)+")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Text:
    """A re-readable source of documents."""

    name: str
    """What the user called it."""
    read: Callable[[], Iterator[str]]
    """Start a new pass over the raw documents, the same ones in the same order; empty ones are passed over."""
    note: str = ""
    """What a reader of results should know of how it is split."""
    chat: bool = False
    """Whether documents are dialogues (see `chat.py`)."""
    _known: Known = field(default_factory=lambda: Known(), init=False, repr=False, compare=False)

    def documents(self, split: Split, *, seed: int | None = None) -> Iterator[str]:
        """Documents of one split that are no copies of earlier ones, long ones in pieces; shuffled in a bounded buffer
        if `seed` is given. Raises TextError if the source cannot be read, or has changed since the last pass."""
        return (piece for _, piece in self.pieces(split, seed=seed))

    def pieces(self, split: Split, *, seed: int | None = None) -> Iterator[tuple[int, str]]:
        """The same, each with the number of its document in the split."""
        chosen = self._chosen(list(SPLIT_EDGES).index(split))
        return chosen if seed is None else _shuffled(chosen, random.Random(seed))

    def warnings(self) -> list[str]:
        """What a reader of results should know of the documents that were read so far."""
        return ([self.note] if self.note else []) + self._known.warnings(self.name)

    def kept(self) -> int:
        """Documents that some split has, of those read so far."""
        return sum(self._known.count(split) for split in range(len(SPLIT_EDGES)))

    def _chosen(self, wanted: int) -> Iterator[tuple[int, str]]:
        number = 0
        for place, raw in enumerate(self.read()):
            document = raw.strip()
            if self._known.fate(place, document, self.name) != wanted:
                continue
            step = max(1, len(document)) if self.chat else MAX_DOCUMENT_CHARACTERS  # half a dialogue is no JSON
            for start in range(0, len(document), step):
                yield number, document[start : start + step]
            number += 1


EMPTY, COPY, NEAR_COPY = range(len(SPLIT_EDGES), len(SPLIT_EDGES) + 3)
"""What becomes of a document that no split has; the splits are the numbers before."""


class Known:
    """What became of each document, decided once, in the order of the source, by whichever pass is the first there."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._fates = bytearray()
        self._remembered = Remembered()
        self._remembered_keys = array("Q")

    def fate(self, place: int, document: str, name: str) -> int:
        """The split of the document at a place of the source, by number, or why it has none."""
        key = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big")
        if place < len(self._keys):
            if self._keys[place] != key:
                raise TextError(f"{name} changed while it was read, at document {place + 1}", "start again")
            return self._fates[place]
        self._keys.append(key)
        self._fates.append(self._decided(key, document) if document else EMPTY)
        return self._fates[place]

    def _decided(self, key: int, document: str) -> int:
        found = sketch(document)
        earlier = self._remembered.find(found)
        if earlier is not None:
            return COPY if self._remembered_keys[earlier] == key else NEAR_COPY
        if self._remembered.count < REMEMBERED:
            self._remembered.add(found)
            self._remembered_keys.append(key)
        return next(i for i, (_, end) in enumerate(SPLIT_EDGES.values()) if key / 2**64 < end or end == 1.0)

    def count(self, fate: int) -> int:
        return self._fates.count(fate)

    def warnings(self, name: str) -> list[str]:
        found = []
        empty, exact, near = map(self.count, (EMPTY, COPY, NEAR_COPY))
        read = len(self._fates) - empty
        if empty:
            found.append(f"{name}: {empty} of {len(self._fates)} texts are empty or null and were passed over")
        if exact + near:
            found.append(
                f"{name}: {exact + near} of {read} documents ({(exact + near) / read:.1%}) are copies or near-copies "
                f"of earlier ones and were left out ({exact} exact, {near} near)"
            )
        if read - exact - near > REMEMBERED:
            found.append(f"{name}: copies were looked for among the first {REMEMBERED} documents only")
        return found


def open_text(name: str, *, chat: bool = False) -> Text:
    """TEXT of the command line: `.txt`, `.jsonl[.gz]`, a folder of them, `hf:NAME[/CONFIG][:SPLIT]`, an embedded name.

    A row of a `.jsonl` or a data set is a document; so is a `.txt` in a folder. A `.txt` by itself is read in blocks of
    neighbouring paragraphs. Files are read first, as far as that is cheap. Raises TextError if there is no such text,
    its kind is unknown or it is damaged.

    chat: rows are read by their field `messages`, and are dialogues; blocks of a `.txt` and embedded texts stay as they
    are.
    """
    read_row = dialogue_of if chat else text_of
    if name in TEXTS:
        return Text(name, lambda: _read_news(embedded_path(name, TEXTS)))
    if name.startswith("hf:"):
        return Text(name, lambda: _read_hub(name, read_row), chat=chat)
    path = Path(name)
    if not _is_there(path):
        raise TextError(
            f"there is no text at {name}",
            f"give a .txt, a .jsonl[.gz], a folder of them, hf:NAME[/CONFIG][:SPLIT], or one of: {', '.join(TEXTS)}",
        )
    try:
        files = _text_files(path)
    except OSError as error:
        raise TextError(f"{path} cannot be read ({error.strerror})", "check the path") from error
    check(files, read_row)
    if _kind(path) == ".txt" and path.is_file():
        size = block_size(path.stat().st_size)
        note = (
            f"{name} is one file: blocks of neighbouring paragraphs, of about {size} characters, stand for documents. "
            "A block next to another may be in another split, and intervals take blocks for independent"
        )
        return Text(name, lambda: blocks(read_characters(path), size), note)
    if chat and any(_kind(file) == ".txt" for file in files):
        raise TextError(f"{name} holds .txt files, which have no messages", "give a .jsonl[.gz] of messages alone")
    return Text(name, lambda: (document for file in files for document in _read_file(file, read_row)), chat=chat)


def _is_there(path: Path) -> bool:
    """Whether there is a file or folder; none has a name that is too long. Raises TextError if the system cannot say
    (no permission, a loop of links)."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            return False
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


def _read_file(path: Path, read_row: Callable[[Mapping[str, Any], str], str]) -> Iterator[str]:
    if _kind(path) == ".txt":
        yield "".join(read_characters(path))
        return
    for number, line in open_lines(path):
        where = f"{path} line {number}"
        yield read_row(json_row(line, where), where)


def block_size(size: int) -> int:
    """Characters of a block of a file of so many bytes."""
    return min(max(size // BLOCKS, min(BLOCK_CHARACTERS, size // FEWEST_BLOCKS), 1), MAX_DOCUMENT_CHARACTERS // 2)


def blocks(parts: Iterator[str], size: int) -> Iterator[str]:
    """A text cut at the first blank line after every `size` characters; failing one soon, at the first end of a line or
    the first space. parts: the text, in pieces of any length."""
    most = max(2 * size, BLOCK_CHARACTERS)
    held, ended = "", False
    while not ended or held:
        while not ended and len(held) <= most:
            part = next(parts, None)
            ended, held = part is None, held + (part or "")
        end = _end_of_block(held, size, most)
        if held[:end].strip():
            yield held[:end]
        held = held[end:]


def _end_of_block(held: str, size: int, most: int) -> int:
    if len(held) <= size:
        return len(held)
    if blank := _BLANK_LINE.search(held, size - 1, most):
        return blank.end()
    for mark in ("\n", " "):
        if (place := held.find(mark, size, most)) >= 0:
            return place + 1
    return min(len(held), most)


def _read_news(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive, archive.open("NewsArticles.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8")):
            yield row["text"] or ""


def _read_hub(name: str, read_row: Callable[[Mapping[str, Any], str], str]) -> Iterator[str]:
    """Rows of `hf:NAME[/CONFIG][:SPLIT]`, streamed."""
    for where, row in numbered_rows(*open_hub(name)):
        yield read_row(row, where)


def _shuffled(items: Iterator[Item], rng: random.Random) -> Iterator[Item]:
    buffer: list[Item] = []
    for item in items:
        if len(buffer) < SHUFFLE_BUFFER_DOCUMENTS:
            buffer.append(item)
            continue
        slot = rng.randrange(SHUFFLE_BUFFER_DOCUMENTS)
        buffer[slot], item = item, buffer[slot]
        yield item
    rng.shuffle(buffer)
    yield from buffer
