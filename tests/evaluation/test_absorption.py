"""Feature absorption: SAEBench's definition on hand-made words, and the whole on the embedded model's vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rational_sae.evaluation.absorption as absorption
from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import TextError
from rational_sae.evaluation.absorption import absorbed, main_latents
from rational_sae.evaluation.words import Words
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE

MAIN, ABSORBER, OTHER = 0, 1, 2
DIRECTION = torch.tensor([1.0, 0.0, 0.0])
W_DEC = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
"""The main latent writes the direction twice per unit, the absorber writes it among others, the last not at all."""


@pytest.mark.parametrize(
    ("z", "projection", "share", "full"),
    [
        ([5.0, 0.0, 3.0], 10.0, 0.0, False),  # the main latent carries all of it
        ([0.0, 9.0, 3.0], 10.0, 1.0, True),  # silent, and one latent carries 90 %
        ([0.0, 3.0, 3.0], 10.0, 0.0, False),  # silent, but 30 % is below the least share
        ([2.0, 6.0, 3.0], 10.0, 0.6, False),  # 4 of 10 are its own, 6 are taken
        ([2.0, 9.0, 3.0], 10.0, 0.6, False),  # no more is taken than is missing
        ([0.0, 9.0, 3.0], -1.0, 0.0, False),  # the word is not along the direction at all
    ],
)
def test_the_share_of_a_word(z: list[float], projection: float, share: float, full: bool) -> None:
    found = absorbed(torch.tensor(z), W_DEC, DIRECTION, projection, [MAIN])
    assert found == (pytest.approx(share), full)


def test_a_letter_gets_a_second_latent_only_if_that_helps() -> None:
    own = np.arange(400) % 4 == 0
    test = np.arange(400) >= 200
    rng = np.random.default_rng(0)
    z = 0.01 * rng.random((400, 6)).astype(np.float32)
    z[own, 3] += 1
    assert main_latents(z, own, test) == [3]
    half = own & (np.arange(400) % 8 == 0)
    z[half, 3] = 0
    z[half, 4] += 1
    assert sorted(main_latents(z, own, test)) == [3, 4]


def test_an_sae_with_a_latent_for_each_letter_absorbs_nothing_and_one_that_splits_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twelve letters along the axes; every fiftieth word also lies along an axis that all share."""
    letters, each = 12, 100
    label = np.repeat([chr(97 + i) for i in range(letters)], each)
    place = np.tile(np.arange(each), letters)
    special = place % 50 == 0
    x = torch.zeros(letters * each, letters + 1)
    x[torch.arange(len(x)), torch.from_numpy(np.repeat(np.arange(letters), each))] = 1
    x[torch.from_numpy(special), letters] = 1
    x += 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    words = Words(x, label, place % 4 == 0)
    monkeypatch.setattr(absorption, "read_words", lambda *_args, **_options: words)
    eye = torch.eye(letters + 1)
    plain = SAE(2 * eye, torch.full((letters + 1,), -0.4), eye, torch.zeros(letters + 1), ReLUGate())
    # Latent j now keeps quiet on special words; latent 13 + j marks those of letter j and writes the letter too.
    enc = torch.cat([2 * eye - 8 * torch.outer(eye[letters], torch.ones(letters + 1)), 2 * eye[:, :letters]], 1)
    enc[letters] = torch.cat([torch.full((letters,), -8.0), torch.tensor([2.0]), torch.full((letters,), 2.0)])
    bias = torch.cat([torch.full((letters + 1,), -0.4), torch.full((letters,), -2.4)])
    split = SAE(enc, bias, torch.cat([eye, eye[:letters]]), torch.zeros(letters + 1), ReLUGate())
    found = absorption.absorption(None, {"plain": plain, "split": split})  # type: ignore[arg-type]
    assert found["plain"]["absorption_fraction"]["value"] == pytest.approx(0, abs=0.01)
    assert found["split"]["letters"] == letters
    assert found["split"]["probe_f1"] > 0.95
    assert found["split"]["absorption_fraction"]["value"] == pytest.approx(1 / 25, abs=0.01), "one test word in 25"
    assert found["split"]["full_absorption"]["value"] == pytest.approx(1 / 25, abs=0.01)
    low, high = found["split"]["absorption_fraction"]["interval"]
    assert low <= found["split"]["absorption_fraction"]["value"] <= high


def test_a_tokenizer_without_words_is_refused_with_the_count(tiny_hosts: dict[str, Host], tiny_text: Text) -> None:
    host = tiny_hosts["llama"]
    reader = Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, 20))
    with pytest.raises(TextError, match="has 20 one-token words for 0 letters, 10 letters are needed"):
        absorption.absorption(reader, {})
