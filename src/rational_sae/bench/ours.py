"""Our own jobs: whole fine-tuning steps, the bare products that they stand on, and encoding."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from rational_sae.bench.problem import Problem
from rational_sae.kernels import apply_rational
from rational_sae.kernels.products import linear
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.train.candidate import Candidate

Job = Callable[[], object]


def our_jobs(problem: Problem) -> dict[str, Job]:
    """Every job of ours: name → what is called once a repeat.

    `products` are the five dense products of a dense step (x needs no gradient), `encoder_product` the first of them;
    `gate` is the rational on every pre-activation, forward and backward. The steps are those of `our_steps`.
    """
    return our_steps(problem) | _products(problem) | {"gate": _gate(problem)} | _encoding(problem)


def our_steps(problem: Problem) -> dict[str, Job]:
    """Whole fine-tuning steps: forward, penalty, backward, clipping, Adam, projection and the controller of L0."""
    return {
        "dense": _step(problem, "hard", sparse=False),
        "sparse": _step(problem, "hard", sparse=True),
        "two_looks": _step(problem, "two looks", sparse=True),
        "relu": _step(problem, "relu", sparse=False),
        "relu_sparse": _step(problem, "relu", sparse=True),
    }


def _step(problem: Problem, kind: str, *, sparse: bool) -> Job:
    shape = problem.shape
    candidate = Candidate(kind, problem.sae(kind), Settings(teacher="made"), problem.x[: shape.batch], shape.l0)
    candidate.sparse = sparse
    batches = itertools.cycle(problem.x.split(shape.batch))
    numbers = itertools.count(1)
    return lambda: candidate.step(next(batches), 1e-3, next(numbers))


def _products(problem: Problem) -> dict[str, Job]:
    x, W_dec = problem.x[: problem.shape.batch], problem.W_dec
    W_enc, bias = W_dec.T, torch.zeros(problem.shape.d_sae, device=x.device)

    def encoder() -> Tensor:
        return linear(x, W_enc.T, bias)

    h, g = encoder(), torch.randn_like(x)

    def products() -> tuple[Tensor, ...]:
        return encoder(), h @ W_dec, g @ W_dec.T, h.T @ g, h.T @ x

    return {"encoder_product": torch.no_grad()(encoder), "products": torch.no_grad()(products)}


def _gate(problem: Problem) -> Job:
    gate = problem.sae("smooth").gate
    t = (problem.x[: problem.shape.batch] @ problem.W_dec.T / gate.scale).detach().requires_grad_()  # type: ignore[operator]
    g, coefficients = torch.randn_like(t), gate.shape  # type: ignore[attr-defined]

    def forward_and_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(apply_rational(t, coefficients), (t, coefficients), g)  # type: ignore[arg-type]

    return forward_and_backward


def _encoding(problem: Problem) -> dict[str, Job]:
    """`encode` of the rational SAE, and of a JumpReLU teacher in the plain operators that other tools use."""
    x, sae, teacher = problem.x[: problem.shape.batch], problem.sae("hard"), problem.sae("threshold")

    def plain() -> Tensor:
        h = torch.addmm(teacher.b_enc, x - teacher.b_dec, teacher.W_enc)
        return h.relu() * (h > problem.threshold)

    twice = problem.sae("two looks")
    return {
        "encode": torch.no_grad()(lambda: sae.encode(x)),
        "encode_two_looks": torch.no_grad()(lambda: twice.encode(x)),
        "encode_teacher": torch.no_grad()(plain),
    }
