"""Words that are one token each, by first letter, and the residual vectors where a model reads them."""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rational_sae.data.activations import Reader
from rational_sae.errors import TextError

PREFIX = "tree has the first letter: T\nlamp has the first letter: L\n"
"""Two solved examples before each word (SAEBench has ten); the vector is read at the word itself."""

FEWEST_WORDS, MOST_WORDS = 20, 120
"""Words of a letter below which the letter is left out, and the most that are used."""

FEWEST_LETTERS = 10
"""Letters below which the task is refused (heuristic: their mean would rest on too few)."""

TEST_SHARE = 0.25
"""Of the words of each letter."""


@dataclass(frozen=True)
class Words:
    """Residual vectors of words."""

    x: Tensor
    """[words, d_in] float32."""
    letter: NDArray[np.str_]
    """[words]."""
    test: NDArray[np.bool_]
    """[words] whether a word is in the test part."""


def read_words(reader: Reader, *, seed: int = 0) -> Words:
    """Vectors of the tokenizer's own words. Raises TextError if it has too few of them."""
    by_letter = _vocabulary(reader)
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    letters: list[str] = []
    test: list[bool] = []
    for letter, tokens in by_letter.items():
        chosen = rng.permutation(tokens)[:MOST_WORDS]
        ids += chosen.tolist()
        letters += [letter] * len(chosen)
        test += [i < TEST_SHARE * len(chosen) for i in range(len(chosen))]
    return Words(_residual(reader, torch.tensor(ids)), np.array(letters), np.array(test))


def _vocabulary(reader: Reader) -> dict[str, list[int]]:
    """Token ids of words in small letters with a space before them, of each letter that has enough."""
    tokenizer = reader.tokeniser.tokenizer
    found: dict[str, list[int]] = {}
    for piece, token in sorted(tokenizer.get_vocab().items()):
        word = piece[1:]
        if piece[:1] in ("Ġ", "▁") and len(word) > 2 and set(word) <= set(string.ascii_lowercase):
            found.setdefault(word[0], []).append(token)
    enough = {letter: tokens for letter, tokens in found.items() if len(tokens) >= FEWEST_WORDS}
    if len(enough) < FEWEST_LETTERS:
        raise TextError(
            f"the tokenizer has {FEWEST_WORDS} one-token words for {len(enough)} letters, "
            f"{FEWEST_LETTERS} letters are needed",
            "leave out --probe first-letter for this model",
        )
    return enough


@torch.no_grad()
def _residual(reader: Reader, words: Tensor) -> Tensor:
    tokeniser = reader.tokeniser
    start = [tokeniser.tokenizer.bos_token_id] if tokeniser.bos else []
    start += tokeniser.tokenizer(PREFIX, add_special_tokens=False).input_ids
    parts = []
    for chunk in words.split(32):
        prefix = torch.tensor(start).expand(len(chunk), -1)
        input_ids = torch.cat([prefix, chunk[:, None]], 1)
        parts.append(reader.stream(input_ids)[:, -1].float())
    return torch.cat(parts)
