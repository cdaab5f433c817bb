"""After training: every row on the test tokens, its features and its probes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rational_sae.data.vectors import GivenVectors
from rational_sae.evaluation import (
    Measurements,
    Probes,
    Results,
    features,
    measure,
    measure_vectors,
    results,
    with_probes,
)
from rational_sae.evaluation.run import with_second_text
from rational_sae.report.schema import ENCODE
from rational_sae.sae.model import SAE
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.settings import Settings


@dataclass(frozen=True)
class Measured:
    """What the test tokens say."""

    sums: Measurements
    results: Results
    """With `features`, and what was probed, where there are tokens."""
    encoding: dict[str, float]
    """Seconds that 1,000 tokens take to encode, of the teacher and of the rational SAE, as `timing` has them."""


ENCODED, REPEATED = 1000, 5
"""Tokens, and how often; the shortest time counts, since others only add to it."""


def measure_rows(
    saes: dict[str, SAE],
    trained: Collection[str],
    shared: Harvest,
    settings: Settings,
    probes: Probes,
    clock: Clock,
) -> Measured:
    """Measure all rows, compare `rsae` with each other one, and probe the teacher and the trained rows.

    saes: in the teacher's units; `teacher` and `rsae` are among them. settings: resolved.
    """
    reader = shared.reader

    def advance(_done: int, total: int) -> None:
        clock.advance(total=total)

    if isinstance(reader, GivenVectors):
        x = reader.sample("test", settings.eval_tokens)
        sums = measure_vectors(saes, x, reader.owners("test")[: len(x)], progress=advance)
    else:
        sums = measure(
            reader, saes, settings.eval_tokens, shared.batches.mean, everywhere={"teacher", *trained}, progress=advance
        )
    found = results(sums, [("rsae", base) for base in saes if base != "rsae"], seed=settings.seed)
    encoding = encoding_seconds({name: saes[name] for name in ("teacher", "rsae")}, shared.validation_x)
    if isinstance(reader, GivenVectors):
        return Measured(sums, found, encoding)
    found = with_second_text(
        found,
        settings.elsewhere(reader),
        saes,
        [("rsae", base) for base in saes if base != "rsae"],
        eval_tokens=settings.eval_tokens,
        seed=settings.seed,
        progress=clock,
    )
    clock.stage("features")
    labelled = features(
        reader,
        {name: saes[name] for name in ("teacher", "rsae")},
        settings.eval_tokens,
        seed=settings.seed,
        progress=advance,
    )
    found = replace(found, further=found.further | {"features": labelled})
    probed = {name: sae for name, sae in saes.items() if name == "teacher" or name in trained}
    found = with_probes(found, reader, probed, probes, seed=settings.seed, progress=clock)
    return Measured(sums, found, encoding)


@torch.no_grad()
def encoding_seconds(saes: Mapping[str, SAE], x: Tensor) -> dict[str, float]:
    """Seconds that 1,000 tokens take to encode, by SAE, in turn. x: [n, d_in]."""
    few = x[:ENCODED]
    best = dict.fromkeys(saes, float("inf"))
    for _ in range(REPEATED):
        for name, sae in saes.items():
            began = time.perf_counter()
            sae.encode(few).sum().item()  # .item() waits for an accelerator
            best[name] = min(best[name], time.perf_counter() - began)
    return {ENCODE + name: seconds * 1000 / len(few) for name, seconds in best.items()}
