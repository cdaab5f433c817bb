"""The main job: load, verify, initialise, fine-tune beside the controls, measure, report, write."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rational_sae.activations import TrainingBatches
from rational_sae.errors import OutputError
from rational_sae.evaluate import Measurements, Results, measure, results
from rational_sae.export import save
from rational_sae.gate import SUPPORT_POINTS, RationalGate, ReLUGate, ThresholdGate, TopKGate
from rational_sae.matched import can_shift, solve_shift
from rational_sae.progress import Progress, Silent
from rational_sae.sae import SAE
from rational_sae.sources import load
from rational_sae.sources.verify import Verification, verify
from rational_sae.transition import rectangle
from rational_sae.upgrade.calibrate import Calibration, calibrate
from rational_sae.upgrade.candidate import Candidate
from rational_sae.upgrade.closed_form import rescaled, solve_shape_
from rational_sae.upgrade.finetune import finetune
from rational_sae.upgrade.initialise import Start, Units, canonical, rational_start, threshold_start
from rational_sae.upgrade.settings import Settings


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


class _Clock:
    """Seconds per stage, told to the progress display as well."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.timing = progress, {}
        self._name, self._since = "", 0.0

    def stage(self, name: str, total: int | None = None) -> None:
        self.stop()
        self._name, self._since = name, time.perf_counter()
        self.progress.stage(name, total)

    def stop(self) -> None:
        if self._name:
            self.timing[self._name] = self.timing.get(self._name, 0.0) + time.perf_counter() - self._since
        self._name = ""


def upgrade(settings: Settings, *, force: bool = False, progress: Progress | None = None) -> Upgrade:
    """Run the whole job. Nothing is written; see `write`.

    Raises RationalSAEError with a one-line reason if an input cannot be used.
    """
    progress = progress or Silent()
    clock = _Clock(progress)
    torch.manual_seed(settings.seed)
    clock.stage("load teacher and model")
    teacher = load(settings.teacher)
    settings = settings.resolved(teacher)
    reader = settings.open(teacher)

    half = max(1, settings.eval_tokens // 2)
    clock.stage("calibrate")
    calibration_x = reader.sample("calibration", half)
    validation_x = reader.sample("validation", half)
    verification = verify(teacher, calibration_x, force=force)
    sae, units = canonical(teacher, calibration_x)
    x, validation = calibration_x * units.input, validation_x * units.input
    target_l0 = settings.target_l0 or verify(teacher, validation_x, force=force).l0
    start, hard, calibration = _starts(sae, x, settings)

    candidates = _candidates(sae, hard, settings, x, target_l0)
    batches = TrainingBatches(
        reader,
        settings.train_tokens or settings.steps * settings.batch_tokens,
        settings.batch_tokens,
        settings.seed,
        progress=progress.advance,
    )
    clock.stage("harvest", batches.train_tokens)
    scaled = (part * units.input for part in batches)
    first = next(scaled)
    clock.stage("fine-tune " + ", ".join(candidates), settings.steps)
    finetune(
        list(candidates.values()),
        itertools.chain([first], scaled),
        validation,
        settings.steps,
        progress=lambda _step: progress.advance(),
    )

    clock.stage("measure")
    saes = _rows(teacher, sae, start, hard, candidates, units, x, validation, target_l0)
    sums = measure(reader, saes, settings.eval_tokens, batches.mean, progress=lambda _d, _t: progress.advance())
    compare = [("rsae", base) for base in saes if base != "rsae"]
    found = results(sums, compare, seed=settings.seed)
    clock.stop()
    return Upgrade(
        settings,
        saes,
        start if hard is start else hard,
        calibration,
        verification,
        candidates,
        sums,
        found,
        units,
        target_l0,
        batches.distinct_tokens,
        calibration_x,
        clock.timing,
        list(verification.warnings),
    )


def _starts(sae: SAE, x: Tensor, settings: Settings) -> tuple[Start, Start, Calibration]:
    """The row `init`, and the start that is trained: element-wise for a TopK under the default gate."""
    mode = settings.gate
    start = rational_start(sae, x, settings.type, mode)
    if not isinstance(sae.gate, TopKGate) or mode == "topk":
        calibration = _calibrated(start, sae, x, settings)
        return start, start, calibration
    separating = solve_shift(sae.with_gate(ReLUGate()), x, verify(sae, x, force=True).l0)
    threshold = torch.full((sae.d_sae,), separating, device=x.device)
    element_wise = sae.with_gate(ThresholdGate(threshold))
    hard = threshold_start(threshold, element_wise, x, settings.type, mode)
    return start, hard, _calibrated(hard, element_wise, x, settings)


def _calibrated(start: Start, sae: SAE, x: Tensor, settings: Settings) -> Calibration:
    """Calibrate a start in place, to the teacher's gate and then to x if the settings say so."""
    calibration = calibrate(start.init, sae, x, seed=settings.seed)
    if settings.calibrate == "reconstruction" and start.mode != "smooth":
        solve_shape_(start.init, sae, x)
    return calibration


def _candidates(sae: SAE, hard: Start, settings: Settings, x: Tensor, target_l0: float) -> dict[str, Candidate]:
    """The RSAE and its controls, all from the same weights."""
    saes = {"rsae": sae.with_gate(copy.deepcopy(hard.init))}
    for control in settings.controls:
        if control == "identity":
            saes["identity"] = sae.with_gate(ThresholdGate(hard.threshold, hard.transition))
        elif control == "jumprelu":
            transition = rectangle(hard.transition.half_width)
            saes["control_jumprelu"] = sae.with_gate(ThresholdGate(hard.threshold, transition))
        else:
            native = copy.deepcopy(sae.gate)
            if isinstance(native, ThresholdGate):
                native.transition = rectangle(hard.transition.half_width)
            saes["control_native"] = sae.with_gate(native)
    return {name: Candidate(name, one, settings, x, target_l0) for name, one in saes.items()}


def _rows(
    teacher: SAE,
    sae: SAE,
    start: Start,
    hard: Start,
    candidates: dict[str, Candidate],
    units: Units,
    x: Tensor,
    validation: Tensor,
    target_l0: float,
) -> dict[str, SAE]:
    """Every row of the report as an SAE in the teacher's units."""
    rows = {"teacher": teacher, "teacher_rescaled": rescaled(teacher, x / units.input)}
    rows["init"] = units.undo_(sae.with_gate(copy.deepcopy(start.init)))
    if hard is not start:
        rows["init_hard"] = units.undo_(sae.with_gate(copy.deepcopy(hard.init)))
    for name, candidate in candidates.items():
        finished = candidate.finish()
        if can_shift(finished):
            finished.gate.shift_(solve_shift(finished, validation, target_l0))
        if isinstance(finished.gate, RationalGate):
            finished.gate.project_(SUPPORT_POINTS)
        rows[name] = units.undo_(finished)
        rows[name].metadata.family = "rational" if name == "rsae" else finished.metadata.family
    return rows


def write(done: Upgrade, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write `--out`: SAEs, report.json, report.html, settings.yaml, log.jsonl; all of it or nothing.

    Returns the report. Raises OutputError if `out` holds something already (unless `force`) or cannot be written.
    """
    import json

    import yaml

    from rational_sae.report import write_report
    from rational_sae.upgrade.summary import report_of

    check_out(out, force=force)
    partial = out.with_name(out.name + ".partial")
    report = report_of(done)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, sae in done.saes.items():
            if name in done.candidates:
                save(sae, partial / ("sae" if name == "rsae" else name.replace("_", "-")))
        write_report(report, partial)
        (partial / "settings.yaml").write_text(yaml.safe_dump(done.settings.model_dump(mode="json"), sort_keys=False))
        with (partial / "log.jsonl").open("w") as log:
            for name, candidate in done.candidates.items():
                curve = candidate.curve
                for step, mse, l0, weight in zip(curve.step, curve.mse, curve.l0, curve.sparsity_weight, strict=True):
                    row = {"row": name, "step": step, "mse": mse, "l0": l0, "sparsity_weight": weight}
                    log.write(json.dumps(row) + "\n")
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    except OSError as error:
        raise OutputError(
            f"cannot write {out} ({error.strerror or error})", "free space or choose another --out"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def check_out(out: Path, *, force: bool = False) -> None:
    """Raise OutputError early if `out` cannot take a result."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise OutputError(f"{out} exists and is not empty", "choose another --out, or give --force to replace it")
    parent = next(p for p in [out.absolute(), *out.absolute().parents] if p.exists())
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{parent} is not writable", "choose another --out")
