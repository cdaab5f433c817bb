"""A candidate goes back to an earlier state to the bit, and steps that meet NaN change nothing."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch
from torch import Tensor, nn

from rational_sae.errors import TrainingError
from rational_sae.gates.base import Gate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.registry import TRAINED
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.initialise import rational_start
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.train.finetune import VALIDATIONS, finetune
from rational_sae.upgrading.train.predictions import Pull

pytestmark = pytest.mark.usefixtures("selection")

D_IN, D_SAE, N = 12, 40, 600


@pytest.fixture
def x() -> Tensor:
    rng = torch.Generator().manual_seed(1)
    code = torch.rand(N, D_SAE, generator=rng) * (torch.rand(N, D_SAE, generator=rng) < 0.08)
    return 4 * code @ directions() + 0.1 * torch.randn(N, D_IN, generator=rng)


def directions() -> Tensor:
    return nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(0)), dim=-1)


def made(gate: Gate) -> SAE:
    return SAE(directions().T, torch.zeros(D_SAE), directions(), torch.zeros(D_IN), gate)


def gates(x: Tensor) -> dict[str, Gate]:
    hard = ThresholdGate(torch.linspace(0.6, 1.2, D_SAE))
    start = rational_start(made(hard), x, (3, 2), TRAINED["hard"])
    return {"rational": start.init, "threshold": hard, "relu": ReLUGate(), "topk": TopKGate(4)}


def candidate(x: Tensor, gate: str = "rational") -> Candidate:
    settings = Settings(teacher="synthetic", controls=(), type=(3, 2))
    return Candidate("rsae", made(gates(x)[gate]), settings, x, 4.0)


def whole(one: Candidate) -> tuple[dict[str, Tensor], str]:
    tensors, numbers = one.state()
    return {name: value.clone() for name, value in tensors.items()}, json.dumps(numbers)


def same(one: Candidate, other: Candidate) -> bool:
    (a, b), (c, d) = whole(one), whole(other)
    return a.keys() == c.keys() and b == d and all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize("gate", ["rational", "threshold", "relu", "topk"])
def test_training_goes_on_from_a_state_as_if_never_stopped(x: Tensor, gate: str) -> None:
    straight = candidate(x, gate)
    for number in range(1, 6):
        straight.step(x[number * 50 :][:200], 1.0, number)
        straight.validate(x, number)
    tensors, numbers = whole(straight)
    resumed = candidate(x, gate)
    resumed.restore(tensors, json.loads(numbers))
    assert same(straight, resumed)
    assert resumed.sae.W_enc.stride() == straight.sae.W_enc.stride()
    for number in range(6, 10):
        for one in (straight, resumed):
            one.step(x[number * 10 :][:200], 0.5, number)
            one.validate(x, number)
    assert same(straight, resumed)
    assert all(
        torch.equal(a, b) for a, b in zip(straight.finish().parameters(), resumed.finish().parameters(), strict=True)
    )


def test_a_state_before_the_first_step_comes_back_too(x: Tensor) -> None:
    fresh, other = candidate(x), candidate(x)
    tensors, numbers = whole(fresh)
    other.restore(tensors, json.loads(numbers))
    assert same(fresh, other)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_step_with_bad_activations_changes_nothing_and_is_noted(x: Tensor, wrong: float) -> None:
    one = candidate(x)
    one.step(x[:200], 1.0, 1)
    before = copy.deepcopy(one.sae.state_dict())
    bad = x[:200].clone()
    bad[3, 4] = wrong
    one.step(bad, 1.0, 2)
    assert all(torch.equal(value, before[name]) for name, value in one.sae.state_dict().items())
    assert (one.skipped, one.curve.skipped, one.curve.reason) == (1, [2], ["activations"])
    assert one.curve.step == [1]


def test_a_bad_loss_and_bad_gradients_are_told_apart(x: Tensor) -> None:
    one = candidate(x)
    before = copy.deepcopy(one.sae.state_dict())
    handle = one.sae.W_dec.register_hook(lambda gradient: torch.full_like(gradient, torch.nan))
    one.step(x[:200], 1.0, 1)
    handle.remove()
    one.step(x[:200] * 1e30, 1.0, 2)
    assert one.curve.reason == ["gradients", "loss"]
    assert all(torch.equal(value, before[name]) for name, value in one.sae.state_dict().items())
    one.step(x[:200], 1.0, 3)
    assert one.curve.step == [3]


def test_a_few_skips_are_allowed_and_repeated_ones_stop(x: Tensor) -> None:
    bad = torch.full((200, D_IN), torch.nan)
    one = candidate(x)
    finetune([one], [bad, x[:200], bad, x[200:400], bad], x, 5)
    assert (one.skipped, len(one.curve.step)) == (3, 2)
    other, told = candidate(x), []
    with pytest.raises(TrainingError, match=r"rsae: 4 of 4 steps met NaN or infinite activations"):
        finetune([other], [bad] * 5, x, 5, stepped=told.append)
    assert told == [1, 2, 3, 4]
    finetune([other], [x[:200]], x, 5, done=4)  # the cause was mended: earlier skips stop nothing
    assert other.curve.step == [5]
    assert all(bool(parameter.isfinite().all()) for parameter in other.sae.parameters())


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (40, [0, 5, 10, 15, 20, 25, 30, 35, 40]),
        (20, [0, 2, 5, 8, 10, 12, 15, 18, 20]),
        (3, [0, 1, 2, 3]),
        (1, [0, 1]),
        (0, [0]),
    ],
)
def test_validations_are_as_many_as_stated_from_start_to_end(x: Tensor, steps: int, expected: list[int]) -> None:
    one = candidate(x)
    finetune([one], itertools.repeat(x[:200]), x[200:400], steps)
    assert one.validation["step"] == expected
    assert len(expected) <= VALIDATIONS


def test_the_start_is_validated_once(x: Tensor) -> None:
    one = candidate(x)
    finetune([one], [x[:200]], x, 2)
    finetune([one], [x[200:400]], x, 2, done=1)
    assert one.validation["step"] == [0, 1, 2]
    assert isinstance(one.sae.gate, RationalGate)


@pytest.mark.parametrize(("kl", "entry"), [(float("nan"), 0.1), (float("inf"), 0.1), (0.2, float("nan"))])
def test_predictions_that_are_not_finite_change_nothing_and_are_noted(x: Tensor, kl: float, entry: float) -> None:
    one = candidate(x)
    along = torch.full((200, D_IN), 1e-3)
    one.step(x[:200], 1.0, 1, Pull(0.2, along, slice(0, 200)))
    before = whole(one)[0]
    broken = along.clone()
    broken[7, 3] = entry
    one.step(x[:200], 1.0, 2, Pull(kl, broken, slice(0, 200)))
    assert all(torch.equal(value, before[name]) for name, value in whole(one)[0].items())
    assert (one.curve.skipped, one.curve.reason) == ([2], ["loss"])
    one.step(x[:200], 1.0, 3, Pull(0.2, along, slice(0, 200)))
    assert one.curve.step == [1, 3]
    assert one.curve.kl == [pytest.approx(0.2), pytest.approx(0.2)]


def test_predictions_pull_with_half_the_weight_of_the_error_in_its_own_size(x: Tensor) -> None:
    """½(α·KL + error): the gradient at x̂ is half the error's and half of KL's times α = error / KL."""
    one = candidate(x, "topk")
    found = one.sae.outputs(x[:200])[0].detach().requires_grad_()
    error = (x[:200] - found).pow(2).sum(-1).mean()
    kl = 0.3 * found.pow(2).sum(-1).mean()
    (along,) = torch.autograd.grad(kl, found, retain_graph=True)
    pull = Pull(kl.item(), along, slice(0, 200))
    loss = one.objective.with_predictions(error, error.item(), kl.item(), found, pull)
    alpha = error.item() / one.objective.variance / kl.item()
    wanted = 0.5 * (alpha * kl + error / one.objective.variance)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert loss.item() == pytest.approx(error.item() / one.objective.variance, rel=1e-5), "so λ stays"
    (ours,), (theirs,) = (torch.autograd.grad(value, found, retain_graph=True) for value in (loss, wanted))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-8)
