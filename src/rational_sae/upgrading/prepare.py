"""Before training: the teacher verified and in canonical units, the L0 to hold, the gates that training starts from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rational_sae.check.verify import CHECK, CHECK_VECTORS, Verification, reconstruction, verify
from rational_sae.sae.model import SAE
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.calibrate import Calibration
from rational_sae.upgrading.start.initialise import Start, Units, canonical
from rational_sae.upgrading.start.rows import StartingLooks, design, starting_looks

TOKEN_SPREAD = 0.4
"""Divided by √tokens: about the relative standard error of a mean L0 under thresholds. One token's L0 spreads by .2 to
.35 of the mean (measured on the grid's teachers), and tokens of a document are alike."""


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
    looks: StartingLooks | None
    """Before the last, for rows that look more than once."""


def prepare(settings: Settings, teacher: SAE, shared: Harvest, *, accept_implausible: bool = False) -> Prepared:
    """Verify the teacher and design its gates. settings: resolved.

    Raises ImplausibleSAEError if the teacher does not explain the calibration activations.
    """
    verification = verify(
        teacher,
        shared.calibration_x,
        accept_implausible=accept_implausible,
        remedy=CHECK if settings.vectors is None else CHECK_VECTORS,
    )
    seen, validation = teacher.seen(shared.calibration_x), teacher.seen(shared.validation_x)
    sae, units = canonical(teacher, seen)
    x, validation = units.of(seen), units.of(validation)
    target_l0 = settings.target_l0 or _at_most(reconstruction(teacher, shared.validation_x)[1], len(validation))
    start, hard, calibration = design(sae, x, settings)
    return Prepared(
        teacher=teacher,
        sae=sae,
        units=units,
        verification=verification,
        x=x,
        validation=validation,
        target_l0=target_l0,
        start=start,
        hard=hard,
        calibration=calibration,
        looks=starting_looks(sae, hard, x, target_l0, settings),
    )


def _at_most(l0: float, tokens: int) -> float:
    """The L0 to hold on so many validation tokens, so that on other tokens it is rarely above the teacher's."""
    return l0 * (1 - TOKEN_SPREAD / tokens**0.5)
