"""log.jsonl: one line a step and row, in the order in which steps are taken."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from rational_sae.errors import OutputError
from rational_sae.support.files import write_whole
from rational_sae.upgrading.train.candidate import Candidate


def step_lines(candidates: dict[str, Candidate], number: int) -> Iterator[str]:
    """The lines of the latest step."""
    for name, candidate in candidates.items():
        curve = candidate.curve
        if curve.skipped and curve.skipped[-1] == number:
            yield _line(name, number, {"skipped": curve.reason[-1]})
        else:
            yield _taken(name, candidate, -1)


def whole_log(candidates: dict[str, Candidate], steps: int) -> Iterator[str]:
    """All lines up to a step, from what the candidates remember: the same that were written step by step."""
    places = {name: {step: i for i, step in enumerate(c.curve.step)} for name, c in candidates.items()}
    skipped = {name: dict(zip(c.curve.skipped, c.curve.reason, strict=True)) for name, c in candidates.items()}
    for number in range(1, steps + 1):
        for name, candidate in candidates.items():
            if number in skipped[name]:
                yield _line(name, number, {"skipped": skipped[name][number]})
            elif number in places[name]:
                yield _taken(name, candidate, places[name][number])


def _taken(name: str, candidate: Candidate, place: int) -> str:
    return _line(name, candidate.curve.step[place], candidate.curve.at(place))


def _line(name: str, number: int, values: dict[str, Any]) -> str:
    return json.dumps({"row": name, "step": number, **values}) + "\n"


class LogFile:
    """log.jsonl while a job runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def begin(self, lines: Iterable[str] = ()) -> None:
        """A new file that holds these lines. Raises OSError."""
        write_whole(self.path, "".join(lines))  # not into the old one, which may have another name somewhere
        self._file = self.path.open("a", encoding="utf-8")

    def add(self, lines: Iterable[str]) -> None:
        """More lines, which others can read at once. Raises OutputError."""
        assert self._file is not None
        try:
            self._file.write("".join(lines))
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written ({error.strerror})", "free some space, then --resume"
            ) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
