"""A harvest as plain arrays, so that processes can share the activations and each open the model for itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rational_sae.data.activations import TrainingBatches
from rational_sae.data.text import Split
from rational_sae.sae.model import SAE
from rational_sae.upgrading.harvest import Harvest, opened
from rational_sae.upgrading.settings import Settings


@dataclass(frozen=True)
class Activations:
    """What was harvested at one hook."""

    calibration: Tensor
    """[n, d_in] float32."""
    validation: Tensor
    """[n, d_in] float32."""
    train: Tensor | None
    """[n, d_in] float32; None if the training tokens do not fit in one window: then each task harvests its own."""
    mean: Tensor
    """[d_in] float32 of the training tokens."""
    distinct_tokens: int
    digests: dict[tuple[Split, int | None], str]


def activations_of(harvest: Harvest) -> Activations:
    """Read the training tokens too, and take everything out."""
    batches = harvest.batches
    train = batches.harvested()
    return Activations(
        harvest.calibration_x.cpu(),
        harvest.validation_x.cpu(),
        train,
        batches.mean,
        batches.distinct_tokens,
        dict(harvest.reader.digests),
    )


def harvest_from(found: Activations, settings: Settings, teacher: SAE) -> Harvest:
    """The same harvest in this process. settings: resolved."""
    reader = opened(settings, teacher)
    batches = TrainingBatches(reader, settings.tokens_to_harvest, settings.batch_tokens, settings.seed)
    if found.train is not None:
        batches.give(found.train, found.mean, found.distinct_tokens)
    reader.digests.update(found.digests)
    return Harvest(reader, found.calibration.to(teacher.device), found.validation.to(teacher.device), batches)
