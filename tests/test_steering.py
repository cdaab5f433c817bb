"""Steering and ablation through hooks: known answers on tiny models of every architecture."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from tiny import TINY_FAMILIES, TINY_WIDTH, tiny_model

from rational_sae.data.language_model import Host
from rational_sae.errors import HostError
from rational_sae.gates.hard import HardGate
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE, Metadata
from rational_sae.steering import ablated, intervene, maxima, steered

D_SAE = 64
IDS = torch.arange(4, 24).view(2, 10)


def make(hook: str, width: int = TINY_WIDTH, **options: Any) -> SAE:
    generator = torch.Generator().manual_seed(0)
    shapes = [(width, D_SAE), (D_SAE,), (D_SAE, width), (width,)]
    weights = [0.3 * torch.randn(shape, generator=generator) for shape in shapes]
    shape = PartialFractions(0.03, 0.9, alpha=[0.02], beta=[0.04], x=[0.2], eta=[-1.5])
    gate = HardGate(shape, torch.ones(D_SAE), 0.1 * torch.ones(D_SAE))
    return SAE(*weights, gate=gate, metadata=Metadata(hook_name=hook), **options)


def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
@torch.no_grad()
def test_the_stream_goes_on_as_it_was_edited(family: str, normalisation: Any) -> None:
    model, sae = tiny_model(family), make("blocks.1.hook_resid_post", normalisation=normalisation)
    host = Host("tiny", model, None)
    clean = logits(model)
    x = host.residual(IDS, host.hook("blocks.1.hook_resid_post"))
    z, state = sae.encode(x), sae.normalise(x)[1]
    latent = int((z != 0).float().mean((0, 1)).argmax())
    with intervene(model, sae, lambda z: z):
        assert torch.allclose(logits(model), clean, atol=1e-5)
    with intervene(model, sae, lambda z: z, error_term=False):
        found = logits(model)
    assert torch.allclose(found, host.logits_from(IDS, host.hook("blocks.1.hook_resid_post"), sae(x)), atol=1e-5)
    assert not torch.allclose(found, clean, atol=1e-2)
    without = z.clone()
    without[..., latent] = 0.0
    with intervene(host, sae, lambda z: ablated(z, [latent])):
        found = logits(model)
    edited = x + sae.decode(without, state) - sae.decode(z, state)
    assert torch.allclose(found, host.logits_from(IDS, host.hook("blocks.1.hook_resid_post"), edited), atol=1e-5)
    assert not torch.allclose(found, clean, atol=1e-4)
    assert torch.equal(logits(model), clean), "nothing is left behind"


@torch.no_grad()
def test_steering_adds_the_decoders_own_direction() -> None:
    model, sae = tiny_model("llama"), make("model.layers.0")
    host = Host("tiny", model, None)
    hook = host.hook("model.layers.0")
    x = host.residual(IDS, hook)
    dead = 7
    sae.gate.threshold[dead] = 1e9
    assert not sae.encode(x)[..., dead].any()
    with intervene(model, sae, lambda z: steered(z, [dead], 2.5)):
        found = logits(model)
    assert torch.allclose(found, host.logits_from(IDS, hook, x + 2.5 * sae.W_dec[dead]), atol=1e-4)


@torch.no_grad()
def test_generation_with_a_cache_is_steered_too() -> None:
    model, sae = tiny_model("gpt2"), make("transformer.h.1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
        plain = model.generate(IDS, **options)
        with intervene(model, sae, lambda z: z):
            assert torch.equal(model.generate(IDS, **options), plain)
        with intervene(model, sae, lambda z: steered(z, [3], 50.0)):
            assert not torch.equal(model.generate(IDS, **options), plain)


def test_gradients_pass_through_the_codes() -> None:
    model, sae = tiny_model("llama"), make("model.layers.1")
    seen: list[torch.Tensor] = []

    def keep(z: torch.Tensor) -> torch.Tensor:
        z.retain_grad()
        seen.append(z)
        return z

    with intervene(model, sae, keep, error_term=False):
        logits(model).sum().backward()
    assert seen[0].grad is not None
    assert seen[0].grad.abs().sum() > 0


def test_a_wrong_hook_or_width_is_refused() -> None:
    model = tiny_model("llama")
    for sae, words in (
        (make("model.layers.99"), "nearest"),
        (make(""), "names no hook"),
        (make("model.layers.1", width=8), "width 8"),
    ):
        with pytest.raises(HostError, match=words), intervene(model, sae, lambda z: z):
            pass


@torch.no_grad()
def test_a_half_precision_model_keeps_its_dtype() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    with intervene(model, make("model.layers.1"), lambda z: ablated(z, [0])):
        assert logits(model).dtype == torch.bfloat16


def test_the_largest_codes_are_those_of_the_text_without_its_first_position() -> None:
    model, sae = tiny_model("llama"), make("model.layers.1")
    z = sae.encode(Host("tiny", model, None).residual(IDS, Host("tiny", model, None).hook("model.layers.1")))
    found = maxima(model, sae, IDS)
    assert torch.allclose(found, z[:, 1:].flatten(0, 1).amax(0).clamp_min(0), atol=1e-5)
    assert not torch.allclose(found, z.flatten(0, 1).amax(0).clamp_min(0), atol=1e-5)
