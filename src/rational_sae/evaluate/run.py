"""`evaluate`: any number of SAEs on the same held-out tokens."""

from __future__ import annotations

from collections.abc import Sequence

from rational_sae.activations import Reader
from rational_sae.evaluate.measure import measure
from rational_sae.evaluate.metrics import Results, results
from rational_sae.progress import Progress, Silent
from rational_sae.reading import Reading
from rational_sae.sae import SAE
from rational_sae.sources import load


def evaluate(
    saes: Sequence[str],
    reading: Reading | None = None,
    *,
    eval_tokens: int = 16384,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Measure SAEs of one hook. saes: their folders; the first is what the others are compared with.

    reading: the model, hook and text; by default what the first SAE's config says, on the embedded text. The rows of
    the result are keyed by the names given. Raises RationalSAEError with a one-line reason if an input cannot be used.
    """
    progress = progress or Silent()
    progress.stage("load SAEs and model")
    loaded = {name: load(name) for name in saes}
    first = loaded[saes[0]]
    reader = (reading or Reading()).open(first)
    for sae in loaded.values():
        sae.to(reader.host.device)
    compare = [(name, saes[0]) for name in saes[1:]]
    return evaluate_loaded(reader, loaded, compare, eval_tokens=eval_tokens, seed=seed, progress=progress)


def evaluate_loaded(
    reader: Reader,
    saes: dict[str, SAE],
    compare: list[tuple[str, str]],
    *,
    eval_tokens: int,
    seed: int,
    progress: Progress,
) -> Results:
    """The same for SAEs in memory, on the reader's device. compare: pairs (row, baseline)."""
    progress.stage("mean of the train split")
    mean = reader.sample("train", eval_tokens).mean(0)
    progress.stage("measure")
    sums = measure(reader, saes, eval_tokens, mean, progress=lambda _done, _total: progress.advance())
    return results(sums, compare, seed=seed)
