"""Every row trained on the same batches, step by step, from where a keeper says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import Tensor

from rational_sae.errors import ProcessLostError, RationalSAEError
from rational_sae.support.digests import digest
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.prepare import Prepared
from rational_sae.upgrading.run.keeper import Keeper, Training
from rational_sae.upgrading.run.state import agree
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.train.finetune import finetune

REFIT_TOKENS = 1 << 18
"""Training tokens that decoders are fitted again on, at most. A quarter is too few for 1 536 latents: nothing is better
on validation than the decoder that is there (docs/method.md)."""


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
    done = keeper.begin(Training(candidates, batches, clock.timing, inputs_of(candidates, prepared, shared)))
    done = agree(Training(candidates, batches, clock.timing, {}), done)
    tuning = "fine-tune " + ", ".join(candidates)

    def harvested(tokens: int) -> None:
        clock.stage("harvest")  # again, where the training tokens do not fit in one window
        clock.advance(tokens)

    def scaled() -> Iterator[Tensor]:
        for number, x in enumerate(batches.following(batches.cursor), done):
            clock.stage(tuning, settings.steps, number)
            yield prepared.units.of(x.to(prepared.x.device))

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
    x = prepared.units.of(shared.batches.sample(REFIT_TOKENS).to(prepared.validation.device))
    for candidate in candidates.values():
        candidate.refit_decoder(x, prepared.validation)
        clock.advance()


def inputs_of(candidates: dict[str, Candidate], prepared: Prepared, shared: Harvest) -> dict[str, str]:
    """What training starts from, by sha256; the message that refuses a difference uses these names."""
    return {
        "the teacher's weights": digest(prepared.teacher.state_dict()),
        "the calibration activations (text, model, hook or this machine's arithmetic)": digest(shared.calibration_x),
        "the validation activations (text, model, hook or this machine's arithmetic)": digest(shared.validation_x),
        "the calibrated start": digest(*(candidate.sae.state_dict() for candidate in candidates.values())),
    }
