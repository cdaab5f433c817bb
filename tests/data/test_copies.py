"""Near-copies: the estimate against sets of words, both sides of the bound, bounded memory."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from rational_sae.data import copies
from rational_sae.data.copies import HASHES, SHINGLE, SIMILAR, Remembered, similarity, sketch


def words(rng: random.Random, count: int) -> list[str]:
    return [f"w{rng.randrange(3000)}" for _ in range(count)]


def jaccard(one: list[str], other: list[str]) -> float:
    """By the definition."""
    a, b = ({tuple(text[i : i + SHINGLE]) for i in range(max(1, len(text) - SHINGLE + 1))} for text in (one, other))
    return len(a & b) / len(a | b)


def pair(rng: random.Random, share: float) -> tuple[list[str], list[str]]:
    """Two texts whose first part is the same."""
    size = rng.randrange(60, 600)
    common = words(rng, int(share * size))
    return common + words(rng, size - len(common)), common + words(rng, size - len(common))


def test_the_estimate_is_the_share_of_runs_in_common() -> None:
    rng = random.Random(0)
    pairs = [pair(rng, rng.random()) for _ in range(400)]
    true = np.array([jaccard(*both) for both in pairs])
    found = np.array([similarity(sketch(" ".join(a)), sketch(" ".join(b))[None])[0] for a, b in pairs])
    expected = np.sqrt(true * (1 - true) / HASHES)
    scaled = (found - true)[expected > 0.01] / expected[expected > 0.01]
    assert abs(scaled.mean()) < 0.2  # four standard errors
    assert 0.8 < scaled.std() < 1.2


def test_what_is_found_and_what_is_not() -> None:
    """Away from the bound by more than three standard errors nearly all, and nearly none."""
    rng = random.Random(1)
    wrong = near = far = 0
    remembered = Remembered()
    for _ in range(1500):
        first, second = pair(rng, rng.random())
        true = jaccard(first, second)
        number = remembered.count
        remembered.add(sketch(" ".join(first)))
        found = remembered.find(sketch(" ".join(second)))
        if true > SIMILAR + 0.15:
            near += 1
            wrong += found != number
        elif true < SIMILAR - 0.15:
            far += 1
            wrong += found is not None
    assert min(near, far) > 200
    assert wrong <= 3


def test_short_texts_are_copies_only_if_their_words_are_the_same() -> None:
    remembered = Remembered()
    texts = ["", "!", "?", "one", "two", "one two", "two one", "one two three four", "谢谢", "谢谢你", "…"]
    for text in texts:
        assert remembered.find(sketch(text)) is None, text
        remembered.add(sketch(text))
    assert remembered.find(sketch("Two, ONE")) == texts.index("two one")


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    rng = random.Random(2)
    text = [chr(0x4E00 + rng.randrange(2000)) for _ in range(300)]
    other = [*text[:100], "变", *text[101:200], "化", *text[200:]]
    remembered = Remembered()
    remembered.add(sketch("".join(text)))
    assert remembered.find(sketch("".join(other))) == 0
    assert remembered.find(sketch("".join(text[::-1]))) is None


def test_memory_grows_to_a_bound_and_the_first_documents_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "REMEMBERED", 4096)
    rng = random.Random(3)
    texts = [words(rng, 30) for _ in range(6000)]
    remembered = Remembered()
    for text in texts:
        remembered.add(sketch(" ".join(text)))
    assert remembered.count == 4096
    assert remembered._sketches.nbytes + remembered._tables.nbytes <= 4096 * 500
    found = [remembered.find(sketch(" ".join([*text[:-1], "changed"]))) for text in texts]
    assert found[:4096] == list(range(4096))
    assert found[4096:] == [None] * (6000 - 4096)


def test_a_sketch_is_the_same_in_every_process() -> None:
    """Python's own hash of a text is not."""
    told = "print(sketch('the same in every process, is it not?').tobytes().hex())"
    code = f"from rational_sae.data.copies import sketch; {told}"
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert found == {sketch("the same in every process, is it not?").tobytes().hex().encode() + b"\n"}
