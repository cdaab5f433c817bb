"""The model, and the activations of one hook; or the vectors that a user gave in their place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rational_sae.data.activations import Reader, TrainingBatches
from rational_sae.data.vectors import Given, GivenVectors, read_vectors
from rational_sae.errors import SettingsError
from rational_sae.sae.model import SAE
from rational_sae.support import distributed
from rational_sae.upgrading.settings import Settings


@dataclass(frozen=True)
class Harvest:
    """The model and the activations of one hook, which upgrades that read alike can share."""

    reader: Reader | GivenVectors
    calibration_x: Tensor
    """[n, d_in] activations of the calibration split, as the model gives them."""
    validation_x: Tensor
    """[n, d_in], the same of the validation split."""
    batches: TrainingBatches

    @property
    def language(self) -> Reader:
        """The reader with its model. Raises SettingsError if there are vectors alone."""
        if isinstance(self.reader, GivenVectors):
            raise SettingsError("predictions are of a language model, and vectors are given", "give --objective mse")
        return self.reader


def opened(settings: Settings, teacher: SAE, given: Given | None = None) -> Reader | GivenVectors:
    """Model and text, or the vectors in their place; the teacher is moved beside them.

    settings: resolved. given: vectors in memory, for which `settings.vectors` is a name alone. Raises RationalSAEError
    if they cannot be used.
    """
    if settings.vectors is None:
        return settings.open(teacher)
    found = given or read_vectors(Path(settings.vectors))
    return GivenVectors.of(found, teacher.to(settings.device), settings.eval_tokens, settings.seed)


def harvest(settings: Settings, teacher: SAE, given: Given | None = None) -> Harvest:
    """Open model and text, and read what calibration and validation need; training tokens are read when asked for.

    settings: resolved. given: vectors in memory. Raises RationalSAEError if the model or the text cannot be used.
    """
    reader = opened(settings, teacher, given)
    half = max(1, settings.eval_tokens // 2)
    calibration_x, validation_x = (
        distributed.leaders(reader.sample(split, half)) for split in ("calibration", "validation")
    )
    batches = TrainingBatches(reader, settings.tokens_to_harvest, settings.batch_tokens, settings.seed)
    return Harvest(reader, calibration_x, validation_x, batches)
