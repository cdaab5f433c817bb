"""Gradient pursuit on planted dictionaries and against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from rational_sae.evaluation import pursuit
from rational_sae.evaluation.pursuit import PursuedSAE, as_many_as, pursue, same_for_all
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.match_l0 import can_match
from rational_sae.sae.model import SAE

D_IN, D_SAE, K, N, NOISE = 128, 384, 8, 400, 0.03


def rows() -> Tensor:
    """[d_sae, d_in]: a random dictionary, overcomplete three times."""
    return normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(0)), dim=-1)


def planted_sae(**options: object) -> SAE:
    """A TopK that looks once: its encoder is the planted dictionary itself."""
    offset = torch.randn(D_IN, generator=torch.Generator().manual_seed(1))
    return SAE(rows().T, torch.zeros(D_SAE), rows(), offset, TopKGate(K), **options)  # type: ignore[arg-type]


def planted_codes() -> Tensor:
    """[n, d_sae]: K codes a token, between 1 and 2."""
    numbers = torch.Generator().manual_seed(2)
    places = torch.rand(N, D_SAE, generator=numbers).topk(K, dim=-1).indices
    return torch.zeros(N, D_SAE).scatter_(1, places, 1 + torch.rand(N, K, generator=numbers))


def planted_x(sae: SAE) -> Tensor:
    """[n, d_in]: what the codes decode to, and noise."""
    return (
        planted_codes() @ rows()
        + sae.b_dec.detach()
        + NOISE * torch.randn(N, D_IN, generator=torch.Generator().manual_seed(3))
    )


@torch.no_grad()
def error(sae: SAE, x: Tensor, z: Tensor) -> float:
    return float((x - sae.decode(z, sae.normalise(x)[1])).pow(2).sum())


def test_a_planted_dictionary_is_found_again_where_one_look_is_not_enough() -> None:
    sae, z = planted_sae(), planted_codes()
    x = planted_x(sae)
    variance = float((x - x.mean(0)).pow(2).sum())
    noise = N * (D_IN - K) * NOISE**2 / variance  # what is left when K codes are fitted
    found = pursue(sae, x, torch.full((N,), K))
    one_look = sae.encode(x)
    with torch.no_grad():
        assert ((found > 0) == (z > 0)).all(-1).float().mean() > 0.9
        assert ((found > 0) & (z > 0)).sum() > 0.98 * K * N
        assert ((one_look > 0) == (z > 0)).all(-1).float().mean() < 0.3
        assert error(sae, x, found) / variance < 1.5 * noise
        assert error(sae, x, one_look) / variance > 10 * noise
    right = (found > 0) == (z > 0)
    torch.testing.assert_close(found[right.all(-1)], z[right.all(-1)], atol=10 * NOISE, rtol=0)


def test_one_code_is_the_best_single_atom() -> None:
    sae = planted_sae()
    with torch.no_grad():
        sae.W_dec *= torch.rand(D_SAE, 1, generator=torch.Generator().manual_seed(4)) + 0.5  # any norms
        x = planted_x(sae)[:50]
        wanted = x - sae.b_dec
        size = sae.W_dec.square().sum(-1)
        best = (wanted @ sae.W_dec.T / size).relu()  # [50, d_sae]: each atom's own least squares
        errors = (wanted[:, None] - best[:, :, None] * sae.W_dec).square().sum(-1)
    found = pursue(sae, x, torch.ones(50, dtype=torch.int64))
    least, latent = errors.min(-1)
    assert torch.equal((found > 0).int().argmax(-1), latent)
    torch.testing.assert_close(found.amax(-1), best.gather(1, latent[:, None])[:, 0])
    assert error(sae, x, found) == pytest.approx(float(least.detach().sum()), rel=1e-5)


def test_the_error_falls_with_every_code_and_codes_are_as_many_as_asked() -> None:
    sae = planted_sae()
    x = 3 * torch.randn(100, D_IN, generator=torch.Generator().manual_seed(5))  # nothing planted
    codes = [pursue(sae, x, torch.full((100,), k)) for k in range(20)]
    errors = [error(sae, x, z) for z in codes]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert all(bool((z >= 0).all()) and int((z > 0).sum(-1).max()) <= k for k, z in enumerate(codes))
    assert (codes[-1] > 0).sum() > 0.95 * 19 * 100


def test_nothing_is_chosen_where_nothing_is_left() -> None:
    sae = planted_sae()
    with torch.no_grad():
        explained = torch.stack([sae.b_dec, sae.b_dec + 2 * sae.W_dec[7]])
    z = pursue(sae, explained, torch.tensor([5, 5]))
    assert (z > 0).sum(-1).tolist() == [0, 1]
    assert float(z[1, 7]) == pytest.approx(2, rel=1e-5)
    assert bool(pursue(sae, explained, torch.tensor([0, 0])).eq(0).all())
    empty = SAE(torch.zeros(D_IN, 8), torch.zeros(8), torch.zeros(8, D_IN), torch.zeros(D_IN), TopKGate(2))
    assert bool(pursue(empty, explained, torch.tensor([2, 2])).eq(0).all())


def test_each_token_has_its_own_quota_whatever_is_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = planted_sae()
    x = planted_x(sae)[:60]
    quota = torch.arange(60) % 7
    together = pursue(sae, x, quota)
    assert (together > 0).sum(-1).tolist() == quota.tolist()
    alone = torch.cat([pursue(sae, x[[i]], quota[[i]]) for i in range(60)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(pursuit, "CHUNK_FLOATS", 5000)
    torch.testing.assert_close(pursue(sae, x, quota), together, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale: float) -> None:
    sae = planted_sae()
    x, quota = planted_x(sae), torch.full((N,), K)
    z = pursue(sae, x, quota)
    with torch.no_grad():
        sae.b_dec *= scale
    torch.testing.assert_close(pursue(sae, x * scale, quota) / scale, z, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"normalisation": "layer_norm"}, {"normalisation": "constant_norm_rescale"}, {"centred": True}],
    ids=["layer norm", "constant norm", "centred"],
)
def test_an_input_normalisation_is_undone(options: dict[str, object]) -> None:
    """The same problem as without one, in units that differ from token to token."""
    sae, plain = planted_sae(**options), planted_sae()
    numbers = torch.Generator().manual_seed(6)
    x = planted_x(sae) * (1 + torch.rand(N, 1, generator=numbers)) + torch.rand(N, 1, generator=numbers)
    floor = PursuedSAE(sae, same_for_all(K))
    normalised, state = sae.normalise(x)
    x_hat, z, l0 = floor.outputs(x)
    torch.testing.assert_close(z, pursue(plain, normalised, torch.full((N,), K)))
    torch.testing.assert_close(x_hat, sae.denormalise(plain.decode(z), state))
    torch.testing.assert_close(floor(x), x_hat)
    assert float(l0) == pytest.approx(float((z != 0).sum(-1).float().mean()))
    assert error(sae, x, z) < 0.9 * error(sae, x, sae.encode(x))


def test_a_pursued_sae_is_a_row_of_any_shape_that_cannot_be_moved() -> None:
    threshold = planted_sae().with_gate(ThresholdGate(torch.full((D_SAE,), 1.2)))
    x = planted_x(threshold)
    floor = PursuedSAE(threshold, as_many_as(threshold))
    assert not can_match(floor)
    z = floor.encode(x.view(4, N // 4, D_IN))
    assert z.shape == (4, N // 4, D_SAE)
    counts = (threshold.encode(x) != 0).sum(-1)
    assert bool(((z != 0).sum(-1).flatten() <= counts).all())
    assert floor(x[None, 0]).shape == (1, D_IN)
    assert error(threshold, x, z.flatten(0, 1)) < 0.9 * error(threshold, x, threshold.encode(x))
