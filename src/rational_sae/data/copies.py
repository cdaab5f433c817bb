"""Near-copies among documents: one pass, in order, in bounded memory, the same in every process.

A document counts as a near-copy of an earlier one if the two share at least SIMILAR of the runs of SHINGLE words that
either holds (Jaccard similarity), whatever their case, punctuation and spacing. So an article with a changed headline,
a corrected word or another agency's byline is found, down to about one word in fifteen changed, and one that is printed
again with up to as much text added; two reports on one template whose names and figures differ every few words are not.

The share is estimated by MinHash: equal entries of two sketches are as frequent as shared runs. Sketches of which some
BAND_HASHES in a row are equal are compared in full. At a similarity of .65 all but about one in a thousand are found,
at SIMILAR itself half. A document inside one of more than twice its length is not looked for.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
from numpy.typing import NDArray

SIMILAR = 0.5
"""The lowest bound in use for training text (.5 to .8): a copy that is missed can flatter a figure, a document that is
left out for nothing costs a document."""

SHINGLE = 5
"""Words in a run, as most others take them: shorter runs are shared by articles on one subject."""

HASHES = 120
"""Of a sketch: a similarity of .5 is estimated with a standard error of .046."""

BAND_HASHES = 3
"""Two documents of similarity s are compared with probability 1 − (1 − s³)^40: .995 at .5, so that the estimate
decides, and .04 at .1."""

REMEMBERED = 1 << 18
"""Documents that later ones are compared with, the first so many: at most 130 MB. Those that are measured are among
them, for held-out documents are read from the start."""

_BANDS = HASHES // BAND_HASHES
_EACH_BAND = np.arange(_BANDS)
_BYTES = np.arange(0, 8 * BAND_HASHES, 8, dtype=np.uint64)
_PART = 512
"""Runs hashed at a time: half a megabyte, which stays in a core's cache."""

_WORDS_HELD = 1 << 16
"""Hashes of words held: 10 MB. Most words of a text are among its commonest."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
"""A word, or one character of a script that puts no spaces between words (Chinese, Japanese)."""

_RNG = np.random.default_rng(0)
_SLOPES = _RNG.integers(1 << 63, size=(HASHES, 1), dtype=np.uint64) * 2 + 1
"""One order of all runs for each hash: by slope·h modulo 2⁶⁴, odd so that it is one to one."""
_PLACES = _RNG.integers(1 << 63, size=SHINGLE, dtype=np.uint64) * 2 + 1
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio, odd: multiplied by it, near numbers lie far apart."""


class _WordHashes(dict[str, int]):
    """64 bits of each word, the same in every process."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _WORDS_HELD:
            self.clear()
        found = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
        self[word] = value = int.from_bytes(found, "little")
        return value


_word_hashes = _WordHashes()


def sketch(document: str) -> NDArray[np.uint8]:
    """[HASHES]: for each of as many orders of all runs of words, a byte of the first run that the document holds."""
    found = _WORD.findall(document.casefold()) or [document]
    words = np.fromiter(map(_word_hashes.__getitem__, found), dtype=np.uint64, count=len(found))
    runs = np.zeros(max(1, len(words) - SHINGLE + 1), dtype=np.uint64)
    for place, factor in enumerate(_PLACES):  # of a document shorter than a run, the only one is all its words
        part = words[place : place + len(runs)]
        runs[: len(part)] += part * factor
    runs = _mixed(runs)
    least = np.full(HASHES, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(runs), _PART):
        np.minimum(least, (_SLOPES * runs[start : start + _PART]).min(1), out=least)
    return (_mixed(least) >> np.uint64(56)).astype(np.uint8)


def similarity(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The estimated share of runs in common. one: [HASHES] and others: [n, HASHES], sketches. Returns [n]."""
    by_chance = 1 / 256
    return ((one == others).mean(-1) - by_chance) / (1 - by_chance)


class Remembered:
    """The sketches of the first REMEMBERED documents.

    Each band has a table of slots that hold the latest document there; a document that has lost its slot in one band is
    found by another. Tables hold twice as many slots as there are documents, or more.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sketches = np.empty((1 << 10, HASHES), dtype=np.uint8)
        self._tables = self._empty_tables()

    def find(self, found: NDArray[np.uint8]) -> int | None:
        """The earliest document of which this is a near-copy. found: [HASHES], its sketch."""
        candidates = np.unique(self._tables[_EACH_BAND, self._slots(found[None])[0]])
        candidates = candidates[candidates >= 0]
        alike = candidates[similarity(found, self._sketches[candidates]) >= SIMILAR]
        return int(alike[0]) if len(alike) else None

    def add(self, new: NDArray[np.uint8]) -> None:
        """The next document, if there is room. new: [HASHES], its sketch."""
        if self.count == REMEMBERED:
            return
        if self.count == len(self._sketches):
            self._sketches = np.concatenate([self._sketches, np.empty_like(self._sketches)])
            self._tables = self._empty_tables()
            for start in range(0, self.count, 1 << 10):
                numbers = np.arange(start, min(start + (1 << 10), self.count))
                self._tables[_EACH_BAND, self._slots(self._sketches[numbers])] = numbers[:, None]
        self._sketches[self.count] = new
        self._tables[_EACH_BAND, self._slots(new[None])[0]] = self.count
        self.count += 1

    def _empty_tables(self) -> NDArray[np.int32]:
        return np.full((_BANDS, 2 * len(self._sketches)), -1, dtype=np.int32)

    def _slots(self, sketches: NDArray[np.uint8]) -> NDArray[np.int64]:
        """[n, bands]: where each band of these sketches [n, HASHES] belongs."""
        parts = sketches.reshape(len(sketches), _BANDS, BAND_HASHES).astype(np.uint64)
        keys = (parts << _BYTES).sum(-1, dtype=np.uint64)
        bits = self._tables.shape[1].bit_length() - 1
        return (keys * _SPREAD >> np.uint64(64 - bits)).astype(np.int64)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number spread over all 64 bits (the finaliser of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
