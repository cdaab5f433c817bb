"""A tiny wheel in the layout of sae-probes, on words of the tiny vocabulary."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import zstandard
from tiny import TINY_WORDS

from rational_sae.evaluation.suite.tasks import FOLDER, MASTER

Rows = Iterable[tuple[str, str]]
"""Of (text, label)."""


def write_wheel(path: Path, tasks: Mapping[str, Rows], elsewhere: Mapping[str, Rows] | None = None) -> Path:
    """tasks: numbered name → rows; elsewhere: the same, of texts of another source."""
    master = [("Dataset save name", "Data type"), ("cleaned_data/3_years.csv", "Continuous")]
    master += [(f"cleaned_data/{name}.csv", "Binary Classification") for name in tasks]
    files = {MASTER: master}
    files |= {f"cleaned_data/{name}.csv.zst": [("prompt", "target"), *rows] for name, rows in tasks.items()}
    for name, rows in (elsewhere or {}).items():
        files[f"OOD data/{name}_OOD.csv.zst"] = [("prompt", "target"), *rows]
    with zipfile.ZipFile(path, "w") as wheel:
        for name, rows in files.items():
            text = io.StringIO()
            csv.writer(text).writerows(rows)
            wheel.writestr(FOLDER + name, zstandard.ZstdCompressor().compress(text.getvalue().encode()))
    return path


def easy_rows(per_class: int = 115, seed: int = 0, longest: int = 9) -> list[tuple[str, str]]:
    """Texts of up to so many words, of which the last says the label: one of two words, or one of two others."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(2 * per_class):
        words = rng.choice(TINY_WORDS, rng.integers(4, longest)).tolist()
        last = TINY_WORDS[2 * (number % 2) + int(rng.integers(2))]
        found.append((" ".join([*words, last]), ("no", "yes")[number % 2]))
    return found
