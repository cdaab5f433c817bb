"""The main job, in memory: load, verify, initialise, fine-tune beside the controls, measure. Nothing is written here.

Each stage is a function of its own, from values to a value: `harvest`, `prepare`, `train`, `measure_rows`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rational_sae.errors import SettingsError
from rational_sae.evaluation import Protocol, open_probes
from rational_sae.formats import load
from rational_sae.sae.model import SAE
from rational_sae.support import distributed
from rational_sae.support.progress import Progress, Silent
from rational_sae.upgrading import warnings
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import Harvest, harvest
from rational_sae.upgrading.measure import measure_rows
from rational_sae.upgrading.pilots import pilots
from rational_sae.upgrading.prepare import prepare
from rational_sae.upgrading.result import Upgrade
from rational_sae.upgrading.rows import as_candidates, finished_rows
from rational_sae.upgrading.run.keeper import Keeper
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.rows import starting_saes
from rational_sae.upgrading.training import refit_decoders, train


@dataclass(frozen=True)
class Opened:
    """A job's inputs."""

    settings: Settings
    """Resolved."""
    teacher: SAE
    """On the model's device."""
    shared: Harvest


def run(
    settings: Settings,
    *,
    teacher: SAE | None = None,
    shared: Harvest | None = None,
    accept_implausible: bool = False,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
) -> Upgrade:
    """Run the whole job. Nothing is written, except by the keeper; see `run/write.py` and `run/folder.py`.

    With several processes (see `distributed`) all train and the first measures; the others leave by LeaderGoesOn.

    teacher: already loaded, for which `settings.teacher` is then a name alone; it is changed, so give a copy. shared: a
    harvest with the same reading options, token counts and seed, from another upgrade at this hook.
    Raises RationalSAEError with a one-line reason if an input cannot be used.
    """
    clock, keeper = Clock(progress or Silent()), keeper or Keeper()
    torch.manual_seed(settings.seed)
    probes = open_probes(settings.probes, Protocol(settings.probe_train))

    clock.stage("load teacher and model")
    inputs = _open(settings, teacher, shared, keeper)
    settings, shared = inputs.settings, inputs.shared

    clock.stage("calibrate")
    accepted = accept_implausible or distributed.leaders_json(keeper.goes_on)
    prepared = prepare(settings, inputs.teacher, shared, accept_implausible=accepted)

    starting = starting_saes(prepared.sae, prepared.hard, settings, prepared.looks)
    candidates = as_candidates(starting, prepared, settings)
    sequences = train(candidates, prepared, shared, settings, clock, keeper)
    found = pilots(candidates, prepared, shared, settings, clock)
    if settings.refit_decoder:
        refit_decoders(candidates, prepared, shared, clock)
    distributed.leader_goes_on()

    clock.stage("measure")
    saes = finished_rows(prepared, candidates, shared.reader)
    measured = measure_rows(saes, candidates, shared, settings, probes, clock)
    clock.stop()
    return Upgrade(
        settings=settings,
        saes=saes,
        results=measured.results,
        warnings=[
            *inputs.teacher.metadata.warnings,
            *prepared.verification.warnings,
            *keeper.warnings,
            *warnings.of_pilots(found),
            *warnings.of_training(candidates, prepared.target_l0, settings),
            *shared.reader.warnings(),
        ],
        prepared=prepared,
        candidates=candidates,
        sums=measured.sums,
        calibration_x=shared.calibration_x,
        distinct_tokens=shared.batches.distinct_tokens,
        sequences=sequences,
        pilots=found,
        digests=dict(shared.reader.digests),
        timing=clock.timing | measured.encoding,
    )


def _open(settings: Settings, teacher: SAE | None, shared: Harvest | None, keeper: Keeper) -> Opened:
    """The teacher, settings with every default filled from it, and the harvest; the keeper hears before any work."""
    teacher = load(settings.teacher) if teacher is None else teacher
    settings = settings.resolved(teacher)
    if settings.batch_tokens < distributed.world():
        raise SettingsError(
            f"a batch of {settings.batch_tokens} tokens has no part for each of {distributed.world()} processes",
            "raise --batch-tokens",
        )
    if settings.kl_steps and settings.sequences_each < distributed.world():
        raise SettingsError(
            f"a batch of {settings.sequences_each} sequences has none for each of {distributed.world()} processes",
            "raise --batch-tokens, or give --objective mse",
        )
    keeper.check(settings.to_store())
    shared = shared or harvest(settings, teacher)
    teacher.to(shared.calibration_x.device)
    return Opened(settings, teacher, shared)
