"""What every trained row starts from: the teacher's weights under a gate of its own."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rational_sae.check.verify import reconstruction
from rational_sae.gates.registry import TRAINED
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.safe_pade import SafePadeGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.transition import rectangle
from rational_sae.sae.looks import Looks
from rational_sae.sae.match_l0 import solve_shift
from rational_sae.sae.model import SAE
from rational_sae.upgrading.settings import DEFAULT_TYPE, Settings
from rational_sae.upgrading.start.adapted import adapted
from rational_sae.upgrading.start.calibrate import Calibration, calibrate
from rational_sae.upgrading.start.closed_form import solve_shape_
from rational_sae.upgrading.start.initialise import Start, rational_start, threshold_start
from rational_sae.upgrading.start.looks import designed_looks, hard_looks


def design(sae: SAE, x: Tensor, settings: Settings) -> tuple[Start, Start, Calibration]:
    """The row `init`, and the start that is trained, element-wise for a TopK unless the gate keeps its quota.

    sae: the teacher in canonical units; x: [n, d_in] calibration activations in the same units. Raises SourceError if
    the teacher is rational already, SettingsError if it cannot have the gate that is asked for.
    """
    kind, degrees = TRAINED[settings.gate], settings.type or DEFAULT_TYPE
    start = rational_start(sae, x, degrees, kind)
    trained, element_wise = start, sae
    if not sae.gate.elementwise and kind.elementwise:
        l0 = settings.target_l0 or reconstruction(sae, x)[1]
        threshold = torch.full((sae.d_sae,), solve_shift(sae.with_gate(ReLUGate()), x, l0), device=x.device)
        element_wise = sae.with_gate(ThresholdGate(threshold))
        trained = threshold_start(threshold, element_wise, x, degrees, kind)
    calibration = calibrate(trained.init, element_wise, x, seed=settings.seed, apply=settings.calibrate != "none")
    if kind.lists_entries and settings.calibrate == "reconstruction":
        solve_shape_(trained.init, sae, x)
    if settings.form == "safe_pade":
        converted = replace(trained, init=SafePadeGate.of(trained.init))
        start, trained = (converted if trained is start else start), converted
    return start, trained, calibration


@dataclass(frozen=True)
class StartingLooks:
    """Looks before the last, for the rows that have any."""

    rational: Looks
    hard: Looks
    """For `identity`: r(t) = t behind a hard cut."""


def starting_looks(sae: SAE, trained: Start, x: Tensor, target_l0: float, settings: Settings) -> StartingLooks | None:
    """None for one look. sae: the teacher in canonical units; x: [n, d_in] calibration activations."""
    if settings.looks == 1:
        return None
    degrees = settings.type or DEFAULT_TYPE
    rational = designed_looks(sae.with_gate(copy.deepcopy(trained.init)), x, settings.looks, target_l0, degrees)
    if "identity" not in settings.controls:
        return StartingLooks(rational.looks, rational.looks)
    hard = hard_looks(sae.with_gate(trained.init.with_line()), x, settings.looks, target_l0)
    return StartingLooks(rational.looks, hard.looks)


def starting_saes(sae: SAE, trained: Start, settings: Settings, looks: StartingLooks | None = None) -> dict[str, SAE]:
    """The RSAE and its controls before training, all from the same weights. sae: the teacher in canonical units."""
    further, hard = (None, None) if looks is None else (copy.deepcopy(looks.rational), copy.deepcopy(looks.hard))
    saes = {"rsae": sae.with_gate(copy.deepcopy(trained.init), further)}
    for control in settings.controls:
        if control == "identity":
            saes["identity"] = sae.with_gate(trained.init.with_line(), hard)
        elif control == "one_look":
            saes["one_look"] = sae.with_gate(copy.deepcopy(trained.init))
        elif control == "adapted":
            saes["teacher_adapted"] = adapted(sae, settings.adapter_rank, settings.seed)
        elif control == "jumprelu":
            transition = replace(rectangle(trained.transition.half_width), to_input=settings.jumprelu_input)
            saes["control_jumprelu"] = sae.with_gate(ThresholdGate(trained.threshold, transition))
        else:
            native = copy.deepcopy(sae.gate)
            if native.transition is not None:
                native.transition = rectangle(trained.transition.half_width)
            saes["control_native"] = sae.with_gate(native)
    return saes
