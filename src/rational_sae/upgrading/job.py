"""The main job, in memory: load, verify, initialise, fine-tune beside the controls, measure. See `write.py`."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rational_sae.check.verify import Verification, reconstruction, verify
from rational_sae.data.activations import Reader, TrainingBatches
from rational_sae.data.text import Split
from rational_sae.errors import ProcessLostError, RationalSAEError, SettingsError
from rational_sae.evaluation import (
    Measurements,
    Protocol,
    Results,
    add_probes,
    features,
    measure,
    open_probes,
    results,
)
from rational_sae.formats import load
from rational_sae.gates.gate import SMOOTH_EPSILON, SUPPORT_POINTS, RationalGate, ReLUGate, ThresholdGate, TopKGate
from rational_sae.gates.safe_pade import SafePadeGate
from rational_sae.gates.transition import rectangle
from rational_sae.sae.match_l0 import can_match, can_shift, solve_shift
from rational_sae.sae.model import SAE
from rational_sae.support import distributed
from rational_sae.support.digests import digest
from rational_sae.support.progress import Progress, Silent
from rational_sae.upgrading.labels import label_flags
from rational_sae.upgrading.run.keeper import Keeper, Training
from rational_sae.upgrading.run.state import agree
from rational_sae.upgrading.settings import DEFAULT_TYPE, Settings
from rational_sae.upgrading.start.calibrate import Calibration, calibrate
from rational_sae.upgrading.start.closed_form import rescaled, solve_shape_
from rational_sae.upgrading.start.initialise import (
    Start,
    Units,
    canonical,
    identity_gate,
    rational_start,
    threshold_start,
)
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.train.finetune import finetune

REFIT_TOKENS = 1 << 18
"""Training tokens that decoders are fitted again on, at most. A quarter is too few for 1 536 latents: nothing is better
on validation than the decoder that is there (docs/method.md)."""

TOKEN_SPREAD = 0.4
"""Divided by √tokens: about the relative standard error of a mean L0 under thresholds. One token's L0 spreads by .2 to
.35 of the mean (measured on the grid's teachers), and tokens of a document are alike."""

MISSED_L0 = 0.01
"""Relative. Thresholds are solved to one code in all of the validation tokens, far within this; and from one sample of
tokens to the next the mean L0 moves by about as much (TOKEN_SPREAD over √tokens at 1 600 tokens)."""


@dataclass
class Upgrade:
    """A finished upgrade, in memory."""

    settings: Settings
    """With every default resolved."""
    saes: dict[str, SAE]
    """All rows, in the teacher's units, `rsae` among them."""
    start: Start
    calibration: Calibration
    verification: Verification
    candidates: dict[str, Candidate]
    sums: Measurements
    results: Results
    units: Units
    target_l0: float
    distinct_tokens: int
    calibration_x: Tensor
    """[n, d_in] activations of the calibration split, as the model gives them."""
    timing: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    digests: dict[tuple[Split, int | None], str] = field(default_factory=dict)
    """sha256 of the sequences that were read, by split and seed."""


class Clock:
    """Seconds per stage, told to the progress display as well."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.timing = progress, {}
        self._name, self._since = "", 0.0

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        """Go over to a stage, if it is not the present one."""
        if name == self._name:
            return
        self.stop()
        self._name, self._since = name, time.perf_counter()
        self.progress.stage(name, total, done)

    def advance(self, amount: int = 1) -> None:
        self.progress.advance(amount)

    def stop(self) -> None:
        if self._name:
            self.timing[self._name] = self.timing.get(self._name, 0.0) + time.perf_counter() - self._since
        self._name = ""


@dataclass(frozen=True)
class Harvest:
    """The model and the activations of one hook, which upgrades that read alike can share."""

    reader: Reader
    calibration_x: Tensor
    """[n, d_in] activations of the calibration split, as the model gives them."""
    validation_x: Tensor
    """[n, d_in], the same of the validation split."""
    batches: TrainingBatches


def harvest(settings: Settings, teacher: SAE) -> Harvest:
    """Open model and text, and read what calibration and validation need; training tokens are read when asked for.

    settings: resolved. Raises RationalSAEError if the model or the text cannot be used.
    """
    reader = settings.open(teacher)
    half = max(1, settings.eval_tokens // 2)
    calibration_x, validation_x = (
        distributed.leaders(reader.sample(split, half)) for split in ("calibration", "validation")
    )
    batches = TrainingBatches(reader, settings.tokens_to_harvest, settings.batch_tokens, settings.seed)
    return Harvest(reader, calibration_x, validation_x, batches)


@dataclass(frozen=True)
class Prepared:
    """A teacher in canonical units and the gates that it starts from."""

    teacher: SAE
    sae: SAE
    """The teacher in canonical units."""
    units: Units
    verification: Verification
    x: Tensor
    """[n, d_in] calibration activations in canonical units."""
    validation: Tensor
    """[n, d_in], the same of the validation split."""
    target_l0: float
    start: Start
    """The row `init`."""
    hard: Start
    """What is trained; element-wise for a TopK."""
    calibration: Calibration


def prepare(settings: Settings, teacher: SAE, shared: Harvest, *, accept_implausible: bool = False) -> Prepared:
    """Verify the teacher and design its gates. settings: resolved."""
    verification = verify(teacher, shared.calibration_x, accept_implausible=accept_implausible)
    seen, validation = teacher.seen(shared.calibration_x), teacher.seen(shared.validation_x)
    sae, units = canonical(teacher, seen)
    x, validation = seen * units.input, validation * units.input
    target_l0 = settings.target_l0 or _at_most(reconstruction(teacher, shared.validation_x)[1], len(validation))
    start, hard, calibration = _starts(sae, x, settings)
    return Prepared(teacher, sae, units, verification, x, validation, target_l0, start, hard, calibration)


def _at_most(l0: float, tokens: int) -> float:
    """The L0 to hold on so many validation tokens, so that on other tokens it is rarely above the teacher's."""
    return l0 * (1 - TOKEN_SPREAD / tokens**0.5)


def train(
    candidates: dict[str, Candidate],
    prepared: Prepared,
    shared: Harvest,
    settings: Settings,
    clock: Clock,
    keeper: Keeper | None = None,
) -> None:
    """Harvest and fine-tune all candidates in lockstep, from where the keeper says."""
    batches, keeper = shared.batches, keeper or Keeper()
    batches.cursor = batches.beginning()
    done = keeper.begin(Training(candidates, batches, clock.timing, _inputs(candidates, prepared, shared)))
    done = agree(Training(candidates, batches, clock.timing, {}), done)
    tuning = "fine-tune " + ", ".join(candidates)

    def harvested(tokens: int) -> None:
        clock.stage("harvest")  # again, where the training tokens do not fit in one window
        clock.advance(tokens)

    def scaled() -> Iterator[Tensor]:
        for number, x in enumerate(batches.following(batches.cursor), done):
            clock.stage(tuning, settings.steps, number)
            yield x.to(prepared.x.device) * prepared.units.input

    try:
        clock.stage("harvest", batches.train_tokens)
        batches.progress, parts = harvested, scaled()
        first = list(itertools.islice(parts, min(1, settings.steps - done)))
        finetune(
            list(candidates.values()),
            itertools.chain(first, parts),
            prepared.validation,
            settings.steps,
            done=done,
            progress=lambda _step: clock.advance(),
            stepped=keeper.stepped,
        )
    except ProcessLostError:
        raise  # in the middle of a step, so that there is nothing whole to keep
    except (KeyboardInterrupt, RationalSAEError) as error:
        clock.stop()
        keeper.stopped(error)
        raise


def refit_decoders(candidates: dict[str, Candidate], prepared: Prepared, shared: Harvest, clock: Clock) -> None:
    """Fit every row's decoder again, on the same training tokens for all."""
    clock.stage("refit decoders", len(candidates))
    x = shared.batches.sample(REFIT_TOKENS).to(prepared.validation.device) * prepared.units.input
    for candidate in candidates.values():
        candidate.refit_decoder(x, prepared.validation)
        clock.advance()


def _inputs(candidates: dict[str, Candidate], prepared: Prepared, shared: Harvest) -> dict[str, str]:
    """What training starts from, by sha256; the message that refuses a difference uses these names."""
    return {
        "the teacher's weights": digest(prepared.teacher.state_dict()),
        "the calibration activations (text, model, hook or this machine's arithmetic)": digest(shared.calibration_x),
        "the validation activations (text, model, hook or this machine's arithmetic)": digest(shared.validation_x),
        "the calibrated start": digest(*(candidate.sae.state_dict() for candidate in candidates.values())),
    }


def upgrade(
    settings: Settings,
    *,
    shared: Harvest | None = None,
    accept_implausible: bool = False,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
) -> Upgrade:
    """Run the whole job. Nothing is written, except by the keeper; see `write.py` and `folder.py`.

    With several processes (see `distributed`) all train and the first measures; the others leave by LeaderGoesOn.

    shared: a harvest with the same reading options, token counts and seed, from another upgrade at this hook.
    Raises RationalSAEError with a one-line reason if an input cannot be used.
    """
    clock, keeper = Clock(progress or Silent()), keeper or Keeper()
    torch.manual_seed(settings.seed)
    probes = open_probes(settings.probes, Protocol(settings.probe_train))
    clock.stage("load teacher and model")
    teacher = load(settings.teacher)
    settings = settings.resolved(teacher)
    if settings.batch_tokens < distributed.world():
        raise SettingsError(
            f"a batch of {settings.batch_tokens} tokens has no part for each of {distributed.world()} processes",
            "raise --batch-tokens",
        )
    keeper.check(settings.to_store())
    shared = shared or harvest(settings, teacher)
    teacher.to(shared.calibration_x.device)
    clock.stage("calibrate")
    prepared = prepare(
        settings, teacher, shared, accept_implausible=accept_implausible or distributed.leaders_json(keeper.goes_on)
    )
    candidates = as_candidates(starting_saes(prepared, settings), prepared, settings)
    train(candidates, prepared, shared, settings, clock, keeper)
    if settings.refit_decoder:
        refit_decoders(candidates, prepared, shared, clock)
    distributed.leader_goes_on()

    clock.stage("measure")
    saes = _rows(prepared, candidates)
    batches = shared.batches
    sums = measure(
        shared.reader, saes, settings.eval_tokens, batches.mean, progress=lambda _d, _t: clock.progress.advance()
    )
    compare = [("rsae", base) for base in saes if base != "rsae"]
    found = results(sums, compare, seed=settings.seed)
    clock.stage("features")
    found.further["features"] = features(
        shared.reader,
        {name: saes[name] for name in ("teacher", "rsae")},
        settings.eval_tokens,
        seed=settings.seed,
        progress=lambda _d, _t: clock.progress.advance(),
    )
    probed = {name: sae for name, sae in saes.items() if name == "teacher" or name in candidates}
    add_probes(found, shared.reader, probed, probes, seed=settings.seed, progress=clock)
    clock.stop()
    return Upgrade(
        settings,
        saes,
        prepared.hard,
        prepared.calibration,
        prepared.verification,
        candidates,
        sums,
        found,
        prepared.units,
        prepared.target_l0,
        batches.distinct_tokens,
        shared.calibration_x,
        clock.timing,
        [
            *teacher.metadata.warnings,
            *prepared.verification.warnings,
            *keeper.warnings,
            *_skips(candidates),
            *_missed(candidates, prepared, settings),
            *_revivals(candidates),
            *_smooth(settings),
            *shared.reader.warnings(),
        ],
        dict(shared.reader.digests),
    )


def _smooth(settings: Settings) -> list[str]:
    """What a reader of a smooth gate's figures must know."""
    if settings.gate != "smooth":
        return []
    return [
        f"a smooth gate is never exactly 0: l0_eps counts |z| > {SMOOTH_EPSILON:g}·s, and figures at the teacher's L0 "
        "are of as many codes, those of the largest |z|/s, with all others dropped"
    ]


def _missed(candidates: dict[str, Candidate], prepared: Prepared, settings: Settings) -> list[str]:
    """One warning for each row whose kept step is not of the L0 that was to be held, on the validation tokens that its
    thresholds were solved on: there the two agree but for ties and for what a gate cannot do."""
    if not settings.hold_l0:
        return []
    missed = []
    for name, candidate in candidates.items():
        reached = dict(zip(candidate.validation["step"], candidate.validation["l0"], strict=True))[candidate.kept_step]
        if can_match(candidate.sae) and abs(reached / prepared.target_l0 - 1) > MISSED_L0:
            missed.append(f"{name}: L0 is {reached:.1f} on validation, {prepared.target_l0:.1f} was to be held")
    return missed


def _skips(candidates: dict[str, Candidate]) -> list[str]:
    """One warning for each candidate that skipped steps."""
    return [
        f"{name}: {candidate.skipped} steps were skipped, because something was NaN or infinite "
        f"({', '.join(sorted(set(candidate.curve.reason)))})"
        for name, candidate in candidates.items()
        if candidate.skipped
    ]


def _revivals(candidates: dict[str, Candidate]) -> list[str]:
    """What the RSAE's reader should know of latents that mean something else now."""
    count = len(candidates["rsae"].kept_revived)
    if not count:
        return []
    return [f"latents that were silent early in training and got new directions: {count}; their old labels are void"]


def _starts(sae: SAE, x: Tensor, settings: Settings) -> tuple[Start, Start, Calibration]:
    """The row `init`, and the start that is trained: element-wise for a TopK."""
    mode, degrees = settings.gate, settings.type or DEFAULT_TYPE
    l0 = settings.target_l0 or reconstruction(sae, x)[1]
    start = rational_start(sae, x, degrees, mode)
    hard, element_wise = start, sae
    if isinstance(sae.gate, TopKGate) and mode != "topk":
        threshold = torch.full((sae.d_sae,), solve_shift(sae.with_gate(ReLUGate()), x, l0), device=x.device)
        element_wise = sae.with_gate(ThresholdGate(threshold))
        hard = threshold_start(threshold, element_wise, x, degrees, mode)
    calibration = calibrate(hard.init, element_wise, x, seed=settings.seed, apply=settings.calibrate != "none")
    if mode != "smooth" and settings.calibrate == "reconstruction":
        solve_shape_(hard.init, sae, x)
    if settings.form == "safe_pade":
        converted = replace(hard, init=SafePadeGate.of(hard.init))
        start, hard = (converted if start is hard else start), converted
    return start, hard, calibration


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
