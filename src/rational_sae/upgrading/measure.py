"""After training: every row on the test tokens, its features and its probes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from rational_sae.evaluation import Measurements, Probes, Results, features, measure, results, with_probes
from rational_sae.sae.model import SAE
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.settings import Settings


@dataclass(frozen=True)
class Measured:
    """What the test tokens say."""

    sums: Measurements
    results: Results
    """With `features`, and what was probed."""


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
    sums = measure(reader, saes, settings.eval_tokens, shared.batches.mean, progress=lambda _d, _t: clock.advance())
    found = results(sums, [("rsae", base) for base in saes if base != "rsae"], seed=settings.seed)
    clock.stage("features")
    labelled = features(
        reader,
        {name: saes[name] for name in ("teacher", "rsae")},
        settings.eval_tokens,
        seed=settings.seed,
        progress=lambda _d, _t: clock.advance(),
    )
    found = replace(found, further=found.further | {"features": labelled})
    probed = {name: sae for name, sae in saes.items() if name == "teacher" or name in trained}
    return Measured(sums, with_probes(found, reader, probed, probes, seed=settings.seed, progress=clock))
