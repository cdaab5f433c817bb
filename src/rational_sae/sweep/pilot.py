"""Which learning rate each row gets: the best of one list for all, on validation, in one cell a model and family."""

from __future__ import annotations

import torch

from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.prepare import prepare
from rational_sae.upgrading.run.keeper import Keeper
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.rows import starting_saes
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.training import train


def pilot(
    settings: Settings,
    teacher: SAE,
    shared: Harvest,
    rates: tuple[float, ...],
    progress: Progress,
    keeper: Keeper | None = None,
) -> dict[str, dict[float, float]]:
    """Fine-tune every row at every factor on its learning rates, all on the same batches. settings: resolved.

    Returns row → factor → what is least at the kept step on validation, at the target L0: FVU, or √(FVU·KL).
    """
    torch.manual_seed(settings.seed)
    clock, keeper = Clock(progress), keeper or Keeper()
    keeper.check({**settings.to_store(), "tried_rates": list(rates)})
    prepared = prepare(settings, teacher, shared, accept_implausible=keeper.goes_on)
    candidates = {
        f"{row} ×{rate:g}": Candidate(row, sae, settings, prepared.x, prepared.target_l0, rate)
        for rate in rates
        for row, sae in starting_saes(prepared.sae, prepared.hard, settings, prepared.looks).items()
    }
    train(candidates, prepared, shared, settings, clock, keeper)
    clock.stop()
    found: dict[str, dict[float, float]] = {}
    for key, candidate in candidates.items():
        found.setdefault(candidate.name, {})[float(key.rpartition("×")[2])] = candidate.best_score
    return found


def best_rates(tried: dict[str, dict[float, float]]) -> dict[str, float]:
    """The factor with the lowest FVU for each row; of equals the one nearest to 1."""
    return {row: min(found, key=lambda rate: (found[rate], abs(rate - 1))) for row, found in tried.items()}
