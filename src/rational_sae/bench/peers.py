"""Training steps of other tools at the same shape, as their own trainers take them; only those that are installed."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from rational_sae.bench.problem import Problem

Job = Callable[[], object]


def installed_peers() -> dict[str, Callable[[Problem], Job]]:
    """Name → what makes one training step, on batches of a problem; the tools' own default settings."""
    found: dict[str, Callable[[Problem], Job]] = {}
    if find_spec("sae_lens"):
        found["saelens_standard"] = lambda problem: _saelens(problem, "standard")
        found["saelens_topk"] = lambda problem: _saelens(problem, "topk")
    if find_spec("sparsify"):
        found["sparsify_topk"] = _sparsify
    if find_spec("dictionary_learning"):
        found["dictionary_learning_topk"] = _dictionary_learning
    return found


def _batches(problem: Problem) -> Any:
    return itertools.cycle(problem.x.split(problem.shape.batch))


def _saelens(problem: Problem, kind: str) -> Job:
    from sae_lens import (
        LoggingConfig,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    shape = problem.shape
    common: dict[str, Any] = {"d_in": shape.d_in, "d_sae": shape.d_sae, "device": problem.x.device.type}
    sae: Any
    if kind == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**common, k=shape.l0))
    else:
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(**common, l1_coefficient=1.0))
    with torch.no_grad():
        sae.W_dec.copy_(problem.W_dec)
        sae.W_enc.copy_(problem.W_dec.T)
        sae.b_enc.fill_(0.0 if kind == "topk" else -problem.threshold)
    config = SAETrainerConfig(
        total_training_samples=1 << 40,
        train_batch_size_samples=shape.batch,
        device=problem.x.device.type,
        lr=1e-7,
        lr_end=1e-8,
        lr_warm_up_steps=0,
        lr_decay_steps=0,
        logger=LoggingConfig(log_to_wandb=False),
    )
    batches = _batches(problem)
    trainer = SAETrainer(config, sae, batches)
    return lambda: trainer.step(next(batches))


def _sparsify(problem: Problem) -> Job:
    """As `sparsify.trainer.Trainer.fit` does it: its trainer itself wants a language model and a dataset."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints on import
        from sparsify import SparseCoder, SparseCoderConfig, sparse_coder  # type: ignore[import-not-found]
        from sparsify.utils import eager_decode  # type: ignore[import-not-found]

    if problem.x.device.type == "cpu":  # where Triton is installed it takes its GPU decoder on a CPU too, and fails
        sparse_coder.decoder_impl = eager_decode
    shape = problem.shape
    coder = SparseCoder(
        shape.d_in, SparseCoderConfig(num_latents=shape.d_sae, k=shape.l0), device=problem.x.device, dtype=torch.float32
    )
    optimizer = torch.optim.Adam(coder.parameters(), lr=1e-7)
    batches = _batches(problem)

    def step() -> None:
        coder.set_decoder_norm_to_unit_norm()
        coder(next(batches)).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _dictionary_learning(problem: Problem) -> Job:
    with contextlib.redirect_stdout(io.StringIO()):
        from dictionary_learning.trainers.top_k import TopKTrainer  # type: ignore[import-not-found]

    shape = problem.shape
    trainer = TopKTrainer(
        steps=1 << 30,
        activation_dim=shape.d_in,
        dict_size=shape.d_sae,
        k=shape.l0,
        layer=0,
        lm_name="",
        lr=1e-7,
        device=problem.x.device.type,
    )
    batches, numbers = _batches(problem), itertools.count(1)
    return lambda: trainer.update(next(numbers), next(batches))
