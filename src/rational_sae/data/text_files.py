"""Text files read as what they are: encodings by their marks, damage named by file, line and byte.

A file without a mark is UTF-8. Nothing is guessed and nothing is replaced: bytes that are no text in the file's
encoding are refused.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rational_sae.errors import TextError

MARK = "\ufeff"
"""What a file may begin with to say its encoding, and what each file of several that were joined then begins with."""

ENCODINGS = ("utf-8", "utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
"""Told apart by their marks, in this order: UTF-16's begins one of UTF-32's."""

CHUNK = 1 << 20
"""Characters or bytes read at a time."""

CHECK_BYTES = 1 << 29
"""Read to the end before any model is loaded: three seconds of JSON lines, seven of gzipped ones (170 and 70 MB/s on a
laptop's core). A harvest of as much text takes a GPU a quarter of an hour."""

TAIL_BYTES = 1 << 20
"""Looked at for the last line of a file that is too long to be read first."""


def open_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-empty lines of a text file, gzipped or not, with their numbers from 1.

    Raises TextError if it cannot be read or is damaged, with the line, and the byte where one is to blame.
    """
    for number, line in enumerate(_parts(path, lines=True), 1):
        text = line.lstrip(MARK)
        if text.strip():
            yield number, text


def read_characters(path: Path) -> Iterator[str]:
    """A text file in parts of at most CHUNK characters. Raises as `open_lines` does."""
    return (part.replace(MARK, "") for part in _parts(path, lines=False))


def _parts(path: Path, *, lines: bool) -> Iterator[str]:
    """Lines, or parts of CHUNK characters."""
    before = 0
    try:
        with _opened(path, "rt", encoding_of(path)) as text:
            for part in text if lines else iter(lambda: text.read(CHUNK), ""):
                if "\0" in part:
                    raise _not_text(path)
                before += part.count("\n")
                yield part
    except UnicodeDecodeError as error:
        raise _not_text(path) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TextError(f"{path} is damaged after line {before} ({error})", "write the file again") from error
    except OSError as error:
        raise TextError(f"{path} cannot be read ({error.strerror or error})", "check the file") from error


def encoding_of(path: Path) -> str:
    """What a file's mark says; UTF-8 without one."""
    with _opened(path, "rb") as content:
        head = content.read(4)
    return next((one for one in ENCODINGS if head.startswith(MARK.encode(one))), "utf-8")


def _opened(path: Path, mode: str, encoding: str | None = None) -> IO[Any]:
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, mode, encoding=encoding)


def _not_text(path: Path) -> TextError:
    """Where a file stops being text in its encoding: found by a second look, so that the first is quick."""
    encoding = encoding_of(path)
    decoder = codecs.getincrementaldecoder(encoding)()
    line, fed, decoded, chunk = 1, 0, 0, b"-"
    with _opened(path, "rb") as content:
        while chunk:
            try:
                chunk = content.read(CHUNK)
            except (OSError, EOFError, zlib.error) as error:  # damaged as well, a little further on
                return TextError(f"{path} is damaged after line {line} ({error})", "write the file again")
            fed += len(chunk)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(encoding, "ignore").count("\n")
                at, value = fed - len(error.object) + error.start, error.object[error.start]
                return TextError(
                    f"{path} line {line}, byte {at}: 0x{value:02x} is not {encoding.upper()}",
                    "save the file as UTF-8 (from Latin-1: iconv -f latin1 -t utf-8)",
                )
            before, zero, _ = text.partition("\0")
            line += before.count("\n")
            if zero:
                return TextError(
                    f"{path} line {line}, byte {decoded + len(before.encode(encoding))}: 0x00, which no text holds",
                    "save the file as UTF-8 (UTF-16 without its mark looks so)",
                )
            decoded += len(text.encode(encoding))
    return TextError(f"{path} changed while it was read", "start again")


def json_row(line: str, where: str) -> Mapping[str, Any]:
    """The object on a line. where: what messages call it. Raises TextError if it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise TextError(f"{where} is not JSON ({reason})", "mend that line") from error
    if not isinstance(row, Mapping):
        raise TextError(f"{where} is {kind_of(row)}, not an object", "mend that line")
    return row


def text_of(row: Mapping[str, Any], where: str) -> str:
    """The field `text` of a row, empty where it is null. Raises TextError if there is none, or it is not a string."""
    if "text" not in row:
        chat = "; --chat reads messages" if "messages" in row else ""
        raise TextError(f'{where} has no field "text"', f"its fields are: {field_names(row)}{chat}")
    text = row["text"]
    if text is not None and not isinstance(text, str):
        inner = f" with the fields {field_names(text)}" if isinstance(text, Mapping) else ""
        raise TextError(f'{where}: "text" is {kind_of(text)}{inner}, not a string', 'put the text itself under "text"')
    return (text or "").encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair; UTF-8 cannot


def kind_of(value: object) -> str:
    """What JSON calls a value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "an object"
    return "a string" if isinstance(value, str) else "a list"


def field_names(row: Mapping[str, Any]) -> str:
    """The fields of a row, those inside others by a dotted path.

    >>> field_names({"id": 1, "meta": {"lang": "en", "text": "x"}})
    'id, meta.lang, meta.text'
    """
    names: list[str] = []
    for name, value in row.items():
        inner = field_names(value).split(", ") if isinstance(value, Mapping) and value else []
        names += [f"{name}.{one}" for one in inner] or [str(name)]
    return ", ".join(names)[:300] or "none"


def check(paths: Sequence[Path], document: Callable[[Mapping[str, Any], str], str] = text_of) -> None:
    """Read files as far as CHECK_BYTES in all, and the last line of longer ones, so that damage is named before a job
    starts. document: what a row is read by. Raises TextError, with file and line."""
    left = CHECK_BYTES
    for path in paths:
        lines = ".jsonl" in path.name.lower()
        for number, part in open_lines(path) if lines else enumerate(read_characters(path)):
            if lines:
                where = f"{path} line {number}"
                document(json_row(part, where), where)
            left -= len(part)
            if left < 0:
                _check_last_line(path, document)
                break


def _check_last_line(path: Path, document: Callable[[Mapping[str, Any], str], str]) -> None:
    """A writer that was killed leaves half a line."""
    if not path.name.lower().endswith(".jsonl") or not encoding_of(path).startswith("utf-8"):
        return
    with path.open("rb") as content:
        content.seek(max(0, path.stat().st_size - TAIL_BYTES))
        _, whole, last = content.read().rstrip().rpartition(b"\n")
    if whole:  # a line longer than that is left to the pass that reaches it
        where = f"{path}, its last line"
        document(json_row(last.decode("utf-8", "replace"), where), where)
