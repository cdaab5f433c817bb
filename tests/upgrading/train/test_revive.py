"""Dead latents get a direction that is missing; living ones stay to the bit, and rare ones count as living."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rational_sae.gates.rational import RationalGate
from rational_sae.gates.registry import TRAINED
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.model import SAE
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.initialise import rational_start
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.train.revive import revive_, revive_every

pytestmark = pytest.mark.usefixtures("selection")

D_IN, D_SAE, N, L0 = 48, 40, 4000, 3.2
DEAD = torch.tensor([5, 17, 31])
FAR = 1e3
"""A threshold that nothing reaches."""


def directions() -> Tensor:
    """[d_sae, d_in], orthonormal, so that a residual is what is missing and nothing else."""
    return torch.linalg.qr(torch.randn(D_IN, D_SAE, generator=torch.Generator().manual_seed(0)))[0].T.contiguous()


@pytest.fixture
def x() -> Tensor:
    """Sparse sums of all directions, those of the dead latents as well."""
    rng = torch.Generator().manual_seed(1)
    on = torch.rand(N, D_SAE, generator=rng) < L0 / D_SAE
    return (3 + torch.rand(N, D_SAE, generator=rng)) * on @ directions() + 0.05 * torch.randn(N, D_IN, generator=rng)


def teacher(**options: object) -> SAE:
    threshold = torch.full((D_SAE,), 1.5)
    threshold[DEAD] = FAR
    b_dec = torch.linspace(-0.2, 0.2, D_IN)
    return SAE(directions().T, torch.zeros(D_SAE), directions(), b_dec, ThresholdGate(threshold), **options)  # type: ignore[arg-type]


def rational(x: Tensor) -> SAE:
    sae = teacher()
    return sae.with_gate(rational_start(sae, x, (3, 2), TRAINED["hard"]).init)


def fires(sae: SAE, x: Tensor) -> Tensor:
    """[d_sae]: share of tokens."""
    return (sae.encode(x) != 0).float().mean(0)


def error(sae: SAE, x: Tensor) -> float:
    return float((x - sae(x)).detach().pow(2).sum())


def test_the_missing_directions_are_found(x: Tensor) -> None:
    sae = teacher()
    revive_(sae, DEAD, x, L0, seed=0)
    cosines = (sae.W_dec.detach()[DEAD] @ directions()[DEAD].T).max(1).values
    assert float(cosines.median()) > 0.9


def test_they_explain_what_was_missing(x: Tensor) -> None:
    sae = teacher()
    before = error(sae, x)
    revive_(sae, DEAD, x, L0, seed=0)
    assert error(sae, x) < 0.8 * before


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
def test_a_revived_latent_fires_as_often_as_the_others(
    x: Tensor, apply_b_dec_to_input: bool, normalisation: str
) -> None:
    sae = teacher(apply_b_dec_to_input=apply_b_dec_to_input, normalisation=normalisation)
    revive_(sae, DEAD, x, L0, seed=0)
    assert torch.allclose(fires(sae, x)[DEAD], torch.tensor(L0 / D_SAE), rtol=0.02)


@pytest.mark.parametrize("shift", [-30.0, 30.0])
def test_a_mean_far_along_its_direction_does_no_harm(x: Tensor, shift: float) -> None:
    far = x + shift * directions()[DEAD].sum(0)  # the teacher's b_dec knows nothing of it
    sae = rational(x)
    assert isinstance(sae.gate, RationalGate)
    revive_(sae, DEAD, far, L0, seed=0)
    assert all(bool(value.isfinite().all()) for value in sae.state_dict().values())
    assert bool((sae.gate.threshold[DEAD] > 0).all())
    assert torch.allclose(fires(sae, far)[DEAD], torch.tensor(L0 / D_SAE), rtol=0.02)


def test_living_latents_stay_to_the_bit(x: Tensor) -> None:
    sae = rational(x)
    before = copy.deepcopy(sae)
    revive_(sae, DEAD, x, L0, seed=0)
    alive = torch.ones(D_SAE, dtype=torch.bool)
    alive[DEAD] = False
    assert isinstance(sae.gate, RationalGate)
    assert isinstance(before.gate, RationalGate)
    for now, then in (
        (sae.W_enc.T, before.W_enc.T),
        (sae.W_dec, before.W_dec),
        (sae.b_enc, before.b_enc),
        (sae.gate.threshold, before.gate.threshold),
        (sae.gate.log_scale, before.gate.log_scale),
        (sae.gate.transition.half_width, before.gate.transition.half_width),
    ):
        assert torch.equal(now[alive], then[alive])
        assert not torch.equal(now[DEAD], then[DEAD]) or bool((then[DEAD] == 0).all())


def test_a_gate_made_from_the_same_transition_keeps_its_own(x: Tensor) -> None:
    sae = rational(x)
    assert isinstance(sae.gate, RationalGate)
    other = sae.gate.with_line()
    before = other.transition.half_width.clone()
    revive_(sae, DEAD, x, L0, seed=0)
    assert torch.equal(other.transition.half_width, before)


def test_thresholds_lie_where_the_shape_has_its_jump(x: Tensor) -> None:
    sae = rational(x)
    assert isinstance(sae.gate, RationalGate)
    place = (sae.gate.threshold / sae.gate.scale).detach()
    living = float(place[0])
    revive_(sae, DEAD, x, L0, seed=0)
    assert torch.allclose((sae.gate.threshold / sae.gate.scale)[DEAD], torch.tensor(living), rtol=1e-4)


def test_never_more_latents_than_tokens(x: Tensor) -> None:
    sae = teacher()
    assert len(revive_(sae, torch.arange(D_SAE)[-30:], x[:20], L0, seed=0)) == 20


def test_nothing_is_done_where_none_is_dead(x: Tensor) -> None:
    sae = teacher()
    before = copy.deepcopy(sae.state_dict())
    assert len(revive_(sae, torch.empty(0, dtype=torch.int64), x, L0, seed=0)) == 0
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())


@pytest.mark.parametrize(
    ("steps", "batch", "d_sae", "l0", "step"),
    [
        (600, 1024, 2304, 32.0, 30),  # the warm-up is long enough to tell
        (400, 1024, 24576, 64.0, 75),  # 76 800 tokens: a wide dictionary's latents are rarer
        (600, 1024, 65536, 32.0, None),  # 409 600 tokens are two thirds of the run
        (20, 64, 2304, 32.0, None),
    ],
)
def test_a_latent_is_called_dead_only_after_enough_tokens(
    steps: int, batch: int, d_sae: int, l0: float, step: int | None
) -> None:
    assert revive_every(steps, batch, d_sae, l0) == step


def candidate(x: Tensor, *, gate: str = "rational", name: str = "rsae", **options: Any) -> Candidate:
    settings = Settings(teacher="t", type=(3, 2), steps=60, batch_tokens=500, controls=(), **options)
    return Candidate(name, rational(x) if gate == "rational" else teacher(), settings, x, L0)


def batches(x: Tensor) -> list[Tensor]:
    return [x[torch.randperm(N, generator=torch.Generator().manual_seed(i))[:500]] for i in range(12)]


def test_training_revives_what_was_silent_and_nothing_else(x: Tensor) -> None:
    one = candidate(x)
    assert one.silence.every == 5
    for number, batch in enumerate(batches(x)[:5], 1):
        one.step(batch, 0.1, number)
    assert one.silence.revived.tolist() == DEAD.tolist()
    assert bool((fires(one.sae, x)[DEAD] > 0).all())
    moment = one.optimiser.adam.state[one.sae.W_dec]["exp_avg"]
    assert bool((moment[DEAD] == 0).all())
    assert bool((moment[0] != 0).any())


def test_what_falls_silent_later_is_revived_too_but_not_after_a_quarter_of_the_run(x: Tensor) -> None:
    one = candidate(x)
    for number, batch in enumerate([*batches(x), *batches(x)], 1):
        one.step(batch, 0.1, number)
        if number == 5:
            one.validate(x, number)
        if number == 10:
            assert bool(fires(one.sae, x)[0] > 0)
        if number in (5, 15):  # of 60
            with torch.no_grad():
                one.sae.gate.threshold[0] = FAR
    assert one.silence.revived.tolist() == [0, *DEAD.tolist()]
    assert one.kept_revived.tolist() == DEAD.tolist()
    assert float(fires(one.sae, x)[0]) == 0


def test_the_jumprelu_control_is_revived_as_well(x: Tensor) -> None:
    one = candidate(x, gate="threshold", name="control_jumprelu")
    for number, batch in enumerate(batches(x)[:5], 1):
        one.step(batch, 0.1, number)
    assert one.silence.revived.tolist() == DEAD.tolist()
    assert bool((fires(one.sae, x)[DEAD] > 0).all())


@pytest.mark.parametrize(
    ("gate", "name", "options"),
    [
        ("rational", "rsae", {"revive": False}),
        ("threshold", "control_native", {}),
        ("threshold", "control_jumprelu", {"revive": False}),
        ("threshold", "control_jumprelu", {"jumprelu_revive": False}),
    ],
)
def test_neither_other_controls_nor_those_told_not_to_revive(
    x: Tensor, gate: str, name: str, options: dict[str, bool]
) -> None:
    one = candidate(x, gate=gate, name=name, **options)
    for number, batch in enumerate(batches(x), 1):
        one.step(batch, 0.1, number)
    assert not len(one.silence.revived)
    assert bool((fires(one.sae, x)[DEAD] == 0).all())


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_it_goes_on_after_a_stop_as_if_never_stopped(x: Tensor, stop: int, tmp_path: Path) -> None:
    whole, first, rest = candidate(x), candidate(x), candidate(x)
    for number, batch in enumerate(batches(x), 1):
        whole.step(batch, 0.1, number)
        if number <= stop:
            first.step(batch, 0.1, number)
        if number == stop:
            whole.validate(x, number)
            first.validate(x, number)
            tensors, numbers = first.state()
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "state.safetensors")
            rest.restore(load_file(tmp_path / "state.safetensors"), copy.deepcopy(numbers))
        if number > stop:
            rest.step(batch, 0.1, number)
    a, b = whole.state()[0], rest.state()[0]
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
