"""Everything that training changes, as tensors and JSON: for checkpoints, and for processes that join a job."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rational_sae.data.activations import Cursor, Place
from rational_sae.support import distributed
from rational_sae.upgrading.run.keeper import Training


def contents(training: Training) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `put_back` takes: tensors, and what fits in JSON."""
    batches, cursor = training.batches, training.batches.cursor
    # Everything is drawn on the CPU: an accelerator's own random numbers decide nothing.
    tensors = {"rng": torch.get_rng_state(), "order": cursor.order, "window_mean": cursor.mean}
    tensors["mean"] = batches.mean
    numbers = {}
    for key, candidate in training.candidates.items():
        parts, numbers[key] = candidate.state()
        tensors |= {f"{key}/{name}": value for name, value in parts.items()}
    state = {
        "place": list(cursor.place),
        "taken": cursor.taken,
        "window_tokens": cursor.distinct_tokens,
        "distinct_tokens": batches.distinct_tokens,
        "digests": [[split, seed, value] for (split, seed), value in batches.reader.digests.items()],
        "candidates": numbers,
    }
    return tensors, state


def put_back(training: Training, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Bring a training to where another was, to the bit."""
    batches = training.batches
    for key, candidate in training.candidates.items():
        own = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{key}/")}
        candidate.restore(own, state["candidates"][key])
    batches.cursor = Cursor(
        Place(*state["place"]),
        state["taken"],
        tensors["order"].clone(),
        tensors["window_mean"].clone(),
        state["window_tokens"],
    )
    batches.mean, batches.distinct_tokens = tensors["mean"].clone(), state["distinct_tokens"]
    batches.reader.digests.update({(split, seed): value for split, seed, value in state["digests"]})
    torch.set_rng_state(tensors["rng"].clone())


def agree(training: Training, done: int) -> int:
    """Bring every process to where the leader is, whether it starts or goes on. done: the leader's last step.

    The leader's start counts for all, so processors of different makes may take part.
    """
    if distributed.world() == 1:
        return done
    tensors, state = contents(training) if distributed.leads() else ({}, {})
    tensors, state = distributed.leaders_tensors(tensors), distributed.leaders_json(state)
    if not distributed.leads():
        put_back(training, tensors, state)
    return distributed.leaders_json(done)
