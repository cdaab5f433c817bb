"""Feature absorption by the first-letter task: does the latent of a letter keep quiet on words that it should mark?

After SAEBench 0.6.0 (evals/absorption; Chanin et al., A is for Absorption, arXiv 2409.14507), whose definition of an
absorbed word is kept as it is. Simplified: two worked examples before a word, not ten; words of small letters only;
logistic regression for the letter's direction; latents of a letter ranked by difference of means, not by an L1 probe;
a latent's share of the direction is measured with its own decoder norm, so that no norm has to be folded first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rational_sae.data.activations import Reader
from rational_sae.errors import SourceError, TextError
from rational_sae.evaluation.words import FEWEST_LETTERS, Words, read_words
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress, Silent

LEAST_F1 = 0.6
"""A letter counts if its probe on the residual vectors reaches this F1 on test words."""

MOST_MAIN_LATENTS, F1_JUMP = 5, 0.03
"""A letter has one main latent; the next is added while it lifts the F1 of a probe on them by so much."""

LEAST_COSINE, MOST_ABSORBERS, LEAST_SHARE = 0.1, 3, 0.4
"""Absorbing latents are aligned with the letter's direction at least so well, are so many at most, and together
carry at least this share of the word's projection on it."""

LEAST_COSINE_FULL = 0.025
"""The same of the one latent that absorbs a word fully."""

RESAMPLES = 2000

LEAST_PARAMETERS, LEAST_LATENTS = 10**9, 1 << 14
"""Of model and SAE, from which on SAEBench's authors advise the task; below it is a test that something runs."""


@dataclass(frozen=True)
class Letter:
    """What can be read of one letter from the residual vectors alone."""

    name: str
    direction: Tensor
    """[d_in] unit vector of its probe."""
    f1: float
    found: NDArray[np.int64]
    """Test words of this letter that the probe finds."""


def absorption(
    reader: Reader, saes: dict[str, SAE], *, seed: int = 0, progress: Progress | None = None
) -> dict[str, dict[str, Any]]:
    """`report["absorption"]`: for each SAE the mean share of a letter's direction that other latents have taken over.

    Raises TextError if the tokenizer has too few words, or the residual stream does not tell letters apart.
    """
    if any(sae.transcodes for sae in saes.values()):
        raise SourceError("absorption is of SAEs: a transcoder's decoder is of another place", "omit first-letter")
    progress = progress or Silent()
    progress.stage("read words")
    words = read_words(reader, seed=seed)
    progress.stage("first-letter probes")
    letters = _letters(words)
    found = {}
    progress.stage("absorption", len(saes))
    for name, sae in saes.items():
        found[name] = _of_sae(sae, words, letters, seed)
        progress.advance()
    return found


def smoke_test(parameters: int, d_sae: int) -> str:
    """Why figures of this model and SAE are a smoke test alone, "" if they are not.

    >>> smoke_test(2 * 10**9, 1 << 14)
    ''
    """
    if parameters >= LEAST_PARAMETERS and d_sae >= LEAST_LATENTS:
        return ""
    return (
        f"a smoke test: the model has {parameters / 1e6:,.0f}M parameters and the SAE {d_sae:,} latents, where the "
        "task's authors advise 1B and 16k or more"
    )


def _letters(words: Words) -> list[Letter]:
    x = words.x.cpu().numpy()
    unit = x / np.sqrt((x**2).mean())
    found = []
    for name in np.unique(words.letter):
        own = words.letter == name
        probe = _probe(unit[~words.test], own[~words.test])
        guessed = probe.decision_function(unit) > 0
        f1 = _f1(own[words.test], guessed[words.test])
        direction = torch.from_numpy(probe.coef_[0] / np.linalg.norm(probe.coef_[0])).to(words.x)
        found.append(Letter(str(name), direction, f1, np.flatnonzero(own & guessed & words.test)))
    good = [letter for letter in found if letter.f1 >= LEAST_F1]
    if len(good) < FEWEST_LETTERS:
        raise TextError(
            f"the residual stream tells {len(good)} first letters apart, {FEWEST_LETTERS} are needed",
            "leave out --probe first-letter for this model and hook",
        )
    return good


@torch.no_grad()
def _of_sae(sae: SAE, words: Words, letters: list[Letter], seed: int) -> dict[str, Any]:
    z = torch.cat([sae.encode(part) for part in words.x.split(1024)])
    z_numpy = z.cpu().numpy()
    fraction, full, mains = [], [], {}
    for letter in letters:
        main = main_latents(z_numpy, words.letter == letter.name, words.test)
        mains[letter.name] = main
        shares = [
            absorbed(z[word], sae.W_dec, letter.direction, float(words.x[word] @ letter.direction), main)
            for word in letter.found
        ]
        fraction.append(np.mean([share for share, _ in shares]))
        full.append(np.mean([whole for _, whole in shares]))
    return {
        "absorption_fraction": _over_letters(np.array(fraction), seed),
        "full_absorption": _over_letters(np.array(full), seed),
        "letters": len(letters),
        "words": sum(len(letter.found) for letter in letters),
        "probe_f1": float(np.mean([letter.f1 for letter in letters])),
        "main_latents": mains,
    }


def main_latents(z: NDArray[np.float32], own: NDArray[np.bool_], test: NDArray[np.bool_]) -> list[int]:
    """Latents that stand for a letter. z: [words, d_sae]; own: [words] bool, words of the letter."""
    difference = z[own & ~test].mean(0) - z[~own & ~test].mean(0)
    order = np.argsort(-difference, kind="stable")[:MOST_MAIN_LATENTS]
    best, chosen = 0.0, [int(order[0])]
    for size in range(1, len(order) + 1):
        codes = z[:, order[:size]]
        f1 = _f1(own[test], _probe(codes[~test], own[~test]).predict(codes[test]).astype(bool))
        if size > 1 and f1 <= best + F1_JUMP:
            break
        best, chosen = f1, order[:size].tolist()
    return chosen


def absorbed(z: Tensor, W_dec: Tensor, direction: Tensor, projection: float, main: list[int]) -> tuple[float, bool]:
    """One word: the share absorbed in [0, 1], and whether one latent absorbed it fully.

    z: [d_sae]; W_dec: [d_sae, d_in]; direction: [d_in], a unit vector; projection: of the word's residual vector on
    it; main: the letter's latents. FeatureAbsorptionCalculator.calculate_absorption of SAEBench.
    """
    along = W_dec @ direction
    cosine = along / W_dec.norm(dim=-1).clamp(min=1e-12)
    parts = z * along
    is_main = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    is_main[main] = True
    own = float(parts[is_main].sum())
    others = parts[~is_main & (cosine >= LEAST_COSINE) & (parts > 0)]
    taken = float(others.topk(min(MOST_ABSORBERS, len(others))).values.sum())
    top = int(parts.argmax())
    full = (
        projection > 0
        and bool((z[is_main] == 0).all())
        and float(cosine[top]) >= LEAST_COSINE_FULL
        and float(parts[top]) / projection >= LEAST_SHARE
    )
    if projection <= 0 or own >= projection or taken / projection < LEAST_SHARE:
        return 0.0, full
    if own <= 0:
        return 1.0, full
    taken = min(taken, projection - own)
    return taken / (taken + own), full


def _probe(x: NDArray[np.float32], own: NDArray[np.bool_]) -> Any:
    """Logistic regression with balanced classes, as SAEBench's k-sparse probes."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # only the direction matters, and it has settled
        return LogisticRegression(max_iter=500, class_weight="balanced").fit(x, own)


def _f1(truth: NDArray[np.bool_], guess: NDArray[np.bool_]) -> float:
    hits = float((truth & guess).sum())
    return 2 * hits / max(1.0, float(truth.sum() + guess.sum()))


def _over_letters(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Mean over letters and its 95 % bootstrap interval over letters."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(values.mean()), "interval": [float(low), float(high)]}
