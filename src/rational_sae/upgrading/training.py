"""Every row trained on the same batches, step by step, from where a keeper says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import Tensor

from rational_sae.data.activations import Reader
from rational_sae.data.sequences import SequenceBatches
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
from rational_sae.upgrading.train.predictions import Passage, Predictions

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
) -> SequenceBatches | None:
    """Harvest and fine-tune all candidates in lockstep, from where the keeper says. Returns what was read as sequences.

    Raises SettingsError or HostError if the objective needs predictions and the model cannot give them here.
    """
    batches, keeper = shared.batches, keeper or Keeper()
    predictions = None if settings.objective == "mse" else Predictions(shared.language, prepared.units.input)
    sequences = None if predictions is None else sequences_of(shared.language, settings)
    batches.cursor = batches.beginning()
    done = keeper.begin(Training(candidates, batches, clock.timing, inputs_of(candidates, prepared, shared)))
    done = agree(Training(candidates, batches, clock.timing, {}), done)
    tuning = "fine-tune " + ", ".join(candidates)

    def harvested(tokens: int) -> None:
        clock.stage("harvest")  # again, where the training tokens do not fit in one window
        clock.advance(tokens)

    def scaled() -> Iterator[Tensor | Passage]:
        vectors = itertools.islice(batches.following(batches.cursor), max(0, settings.mse_steps - done))
        for number, x in enumerate(vectors, done):
            clock.stage(tuning, settings.steps, number)
            yield prepared.units.of(x.to(prepared.x.device))
        if predictions is None or sequences is None:
            return
        taken = max(0, done - settings.mse_steps)
        for number, batch in enumerate(sequences.following(taken), settings.mse_steps + taken):
            clock.stage(f"{tuning} with KL", settings.steps, number)
            yield predictions.read(batch)

    try:
        clock.stage("harvest", batches.train_tokens)
        batches.progress, parts = harvested, scaled()
        first = list(itertools.islice(parts, min(1, settings.steps - done)))
        finetune(
            list(candidates.values()),
            itertools.chain(first, parts),
            prepared.validation,
            settings.steps,
            predictions=predictions,
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
    if sequences is not None:
        sequences.catch_up(settings.kl_steps)
    return sequences


def sequences_of(reader: Reader, settings: Settings) -> SequenceBatches:
    """The sequences that resolved settings ask for beside the harvest."""
    return SequenceBatches(
        reader, settings.distinct_tokens, settings.tokens_to_harvest, settings.sequences_each, settings.seed
    )


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
