"""Controls that kept their start get other learning rates before it is said of them that nothing helped.

Each is trained at lower rates for a quarter of the steps. If one of these is better than the start on validation, the
control is trained again at the best of them, as long as all rows, and that is the row.
"""

from __future__ import annotations

from dataclasses import dataclass

from rational_sae.report.rows import RSAE
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.prepare import Prepared
from rational_sae.upgrading.rows import as_candidates
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.rows import starting_saes
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.training import train

FACTORS = (0.3, 0.1, 0.03)
"""On the learning rates: lower ones alone, because a rate that is too low still moves a little the right way."""

SHARE, FEWEST_STEPS = 4, 8
"""A pilot takes one in so many of the steps, and so many at least."""


@dataclass(frozen=True)
class Pilot:
    """What was tried for one control."""

    start: float
    """What is least at the kept step (`Candidate.best_score`), of the start on validation."""
    tried: dict[float, float]
    """Factor → the same after the pilot."""
    chosen: float | None
    """The factor that the control was trained again at; None: none was better than the start."""


def pilots(
    candidates: dict[str, Candidate], prepared: Prepared, shared: Harvest, settings: Settings, clock: Clock
) -> dict[str, Pilot]:
    """Try lower rates for the controls among trained candidates that kept their start, and put in the place of each
    what was trained at one that helps. Everything that is read is read as before."""
    kept = [name for name, one in candidates.items() if name != RSAE and one.kept_step == 0]
    if not settings.pilot or not kept:
        return {}
    batches = shared.batches
    before = (batches.mean, batches.distinct_tokens, dict(shared.reader.digests))
    short = settings.model_copy(update={"steps": min(settings.steps, max(FEWEST_STEPS, settings.steps // SHARE))})
    tried = {(name, factor): one for factor in FACTORS for name, one in _made(kept, factor, prepared, short).items()}
    train({f"{name} ×{factor:g}": one for (name, factor), one in tried.items()}, prepared, shared, short, clock)
    found = {}
    for name in kept:
        scores = {factor: tried[name, factor].best_score for factor in FACTORS}
        best = min(FACTORS, key=scores.__getitem__)
        helps = tried[name, best].kept_step > 0
        found[name] = Pilot(candidates[name].best_score, scores, best if helps else None)
    again = {name: _made([name], one.chosen, prepared, settings)[name] for name, one in found.items() if one.chosen}
    if again:
        train(again, prepared, shared, settings, clock)
        candidates |= again
    batches.mean, batches.distinct_tokens, digests = before
    shared.reader.digests.clear()
    shared.reader.digests.update(digests)
    return found


def _made(names: list[str], factor: float, prepared: Prepared, settings: Settings) -> dict[str, Candidate]:
    """The rows of these names from their start, at so much of their learning rates."""
    rates = {name: factor * settings.rates.get(name, 1.0) for name in names}
    starting = starting_saes(prepared.sae, prepared.hard, settings, prepared.looks)
    changed = settings.model_copy(update={"rates": rates})
    return as_candidates({name: starting[name] for name in names}, prepared, changed)
