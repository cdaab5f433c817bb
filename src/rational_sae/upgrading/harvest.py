"""The model, and the activations of one hook."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rational_sae.data.activations import Reader, TrainingBatches
from rational_sae.sae.model import SAE
from rational_sae.support import distributed
from rational_sae.upgrading.settings import Settings


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
