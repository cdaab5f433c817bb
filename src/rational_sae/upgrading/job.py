"""The main job, in memory: load, verify, initialise, fine-tune beside the controls, measure. Nothing is written here.

Each stage is a function of its own, from values to a value: `harvest`, `prepare`, `train`, `measure_rows`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rational_sae.check.verify import reconstruction
from rational_sae.errors import SettingsError
from rational_sae.evaluation import Protocol, open_probes
from rational_sae.formats import load
from rational_sae.gates.gate import SUPPORT_POINTS, RationalGate, ReLUGate, ThresholdGate, TopKGate
from rational_sae.gates.safe_pade import SafePadeGate
from rational_sae.gates.transition import rectangle
from rational_sae.sae.match_l0 import can_shift, solve_shift
from rational_sae.sae.model import SAE
from rational_sae.support import distributed
from rational_sae.support.progress import Progress, Silent
from rational_sae.upgrading import warnings
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import Harvest, harvest
from rational_sae.upgrading.labels import label_flags
from rational_sae.upgrading.measure import measure_rows
from rational_sae.upgrading.prepare import Prepared, prepare
from rational_sae.upgrading.result import Upgrade
from rational_sae.upgrading.run.keeper import Keeper
from rational_sae.upgrading.settings import DEFAULT_TYPE, Settings
from rational_sae.upgrading.start.calibrate import Calibration, calibrate
from rational_sae.upgrading.start.closed_form import rescaled, solve_shape_
from rational_sae.upgrading.start.initialise import (
    Start,
    identity_gate,
    rational_start,
    threshold_start,
    with_token_scale,
)
from rational_sae.upgrading.train.candidate import Candidate
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

    candidates = as_candidates(starting_saes(prepared, settings), prepared, settings)
    train(candidates, prepared, shared, settings, clock, keeper)
    if settings.refit_decoder:
        refit_decoders(candidates, prepared, shared, clock)
    distributed.leader_goes_on()

    clock.stage("measure")
    saes = _rows(prepared, candidates)
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
            *warnings.of_training(candidates, prepared.target_l0, settings),
            *shared.reader.warnings(),
        ],
        prepared=prepared,
        candidates=candidates,
        sums=measured.sums,
        calibration_x=shared.calibration_x,
        distinct_tokens=shared.batches.distinct_tokens,
        digests=dict(shared.reader.digests),
        timing=dict(clock.timing),
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
    keeper.check(settings.to_store())
    shared = shared or harvest(settings, teacher)
    teacher.to(shared.calibration_x.device)
    return Opened(settings, teacher, shared)


def _starts(sae: SAE, x: Tensor, settings: Settings) -> tuple[Start, Start, Calibration]:
    """The row `init`, and the start that is trained: under the default gate with a scale for each token, and
    element-wise for a TopK."""
    mode, degrees = settings.gate, settings.type or DEFAULT_TYPE
    l0 = settings.target_l0 or reconstruction(sae, x)[1]
    start = _with_options(rational_start(sae, x, degrees, mode), settings)
    hard, element_wise = start, sae
    if isinstance(sae.gate, TopKGate) and mode != "topk":
        threshold = torch.full((sae.d_sae,), solve_shift(sae.with_gate(ReLUGate()), x, l0), device=x.device)
        element_wise = sae.with_gate(ThresholdGate(threshold))
        hard = _with_options(threshold_start(threshold, element_wise, x, degrees, mode), settings)
    calibration = calibrate(hard.init, element_wise, x, seed=settings.seed, apply=settings.calibrate != "none")
    if mode == "hard" and settings.token_scale:
        hard = with_token_scale(hard, sae, x, settings.token_scale, l0)
    if mode != "smooth" and settings.calibrate == "reconstruction":
        solve_shape_(hard.init, sae, x)
    if settings.form == "safe_pade":
        converted = replace(hard, init=SafePadeGate.of(hard.init))
        start, hard = (converted if start is hard else start), converted
    return start, hard, calibration


def _with_options(start: Start, settings: Settings) -> Start:
    """The start with one scale for all latents and a one-sided band, where the settings say so."""
    gate = start.init
    if settings.scales == "one":
        with torch.no_grad():
            gate.log_scale.fill_(float(gate.log_scale.median()))
    if settings.band == "above":
        gate.transition = start.transition.above()
    return replace(start, transition=gate.transition)


def starting_saes(prepared: Prepared, settings: Settings) -> dict[str, SAE]:
    """The RSAE and its controls before training, all from the same weights."""
    sae, hard = prepared.sae, prepared.hard
    saes = {"rsae": sae.with_gate(copy.deepcopy(hard.init))}
    for control in settings.controls:
        if control == "identity":
            saes["identity"] = sae.with_gate(identity_gate(hard.init))
        elif control == "jumprelu":
            transition = rectangle(hard.transition.half_width)
            saes["control_jumprelu"] = sae.with_gate(ThresholdGate(hard.threshold, transition))
        else:
            native = copy.deepcopy(sae.gate)
            if isinstance(native, ThresholdGate):
                native.transition = rectangle(hard.transition.half_width)
            saes["control_native"] = sae.with_gate(native)
    return saes


def as_candidates(saes: dict[str, SAE], prepared: Prepared, settings: Settings) -> dict[str, Candidate]:
    """Rows made ready for `train`, each with its own factor on the learning rates."""
    return {
        name: Candidate(name, sae, settings, prepared.x, prepared.target_l0, settings.rates.get(name, 1.0))
        for name, sae in saes.items()
    }


def _rows(prepared: Prepared, candidates: dict[str, Candidate]) -> dict[str, SAE]:
    """Every row of the report as an SAE in the teacher's units."""
    teacher, sae, units = prepared.teacher, prepared.sae, prepared.units
    rows = {"teacher": teacher, "teacher_rescaled": rescaled(teacher, prepared.x / units.input)}
    rows["init"] = units.undo_(sae.with_gate(copy.deepcopy(prepared.start.init)))
    if prepared.hard is not prepared.start:
        rows["init_hard"] = units.undo_(sae.with_gate(copy.deepcopy(prepared.hard.init)))
    for name, candidate in candidates.items():
        finished = candidate.finish()
        if can_shift(finished):
            finished.gate.shift_(solve_shift(finished, prepared.validation, prepared.target_l0))
        if isinstance(finished.gate, RationalGate):
            finished.gate.project_(SUPPORT_POINTS)
        rows[name] = units.undo_(finished)
        rows[name].metadata.extra["labels"] = label_flags(rows[name], teacher)
    return rows
