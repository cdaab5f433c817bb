"""KL of next-token predictions and its gradient at x̂: those of plain autograd through the whole model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import TINY_FAMILIES, TINY_WIDTH, tiny_model, tiny_tokenizer
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Sequences, Tokeniser
from rational_sae.errors import SettingsError
from rational_sae.upgrading.train import predictions as module
from rational_sae.upgrading.train.predictions import Passage, Predictions, in_bfloat16

CONTEXT, UNIT = 12, 0.7


def made(host: Host, text: Text, boundary: int = 1) -> Predictions:
    hook = replace(host.hook("blocks.0.hook_resid_post"), boundary=boundary)
    found = Predictions(Reader(host, hook, text, Tokeniser(host.tokenizer, CONTEXT)), UNIT)
    found.host = host  # float32 on every machine
    return found


def passage(found: Predictions, count: int = 8) -> Passage:
    tokeniser = replace(found.reader.tokeniser, sequences_per_batch=count)
    batch = next(tokeniser.batches(found.reader.text, "train", 10**6, seed=0))
    padded = torch.nn.functional.pad(batch.input_ids, (0, 2))
    return found.read(Sequences(padded, torch.nn.functional.pad(batch.keep, (0, 2)), batch.document))


def shaken(x: Tensor) -> Tensor:
    return x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(4))


def plainly(found: Predictions, part: Passage, x_hat: Tensor) -> tuple[float, Tensor]:
    """KL by the library's own function on all logits, and its gradient by autograd."""
    leaf = x_hat.clone().requires_grad_()
    edited = part.stream.index_put((part.keep,), leaf / UNIT)
    host = found.reader.host
    clean = host.model(input_ids=part.input_ids).logits[part.keep].log_softmax(-1)
    with host.edited(found.reader.hook, lambda _x: edited):
        ours = host.model(input_ids=part.input_ids).logits[part.keep].log_softmax(-1)
    value = kl_div(ours, clean.detach(), log_target=True, reduction="sum") / int(part.keep.sum())
    value.backward()
    assert leaf.grad is not None
    return float(value.detach()), leaf.grad


@pytest.mark.parametrize("family", [*TINY_FAMILIES, "opt", "openai-gpt"])
@pytest.mark.parametrize("boundary", [0, 1, 3])
def test_kl_and_its_gradient_are_those_of_the_whole_model(
    family: str, boundary: int, tiny_text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 5)
    host = Host(family, tiny_model(family).requires_grad_(False), tiny_tokenizer())
    found = made(host, tiny_text, boundary)
    part = passage(found)
    x_hat = shaken(part.own)
    value, gradient = plainly(found, part, x_hat)
    (pull, still) = found.pulls(part, [x_hat, part.own])
    assert pull.kl == pytest.approx(value, rel=1e-4)
    assert torch.allclose(pull.gradient, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-9)
    assert value > 1e-3
    assert still.kl == pytest.approx(0.0, abs=1e-5)
    assert float(still.gradient.abs().max()) < 1e-3 * float(gradient.abs().max())
    assert found.kl(part, [x_hat])[0] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_mid", "blocks.1.attn.hook_z"])
def test_within_a_block_they_are_too(name: str, tiny_hosts: dict[str, Host], tiny_text: Text) -> None:
    host = tiny_hosts["llama"]
    found = Predictions(Reader(host, host.hook(name), tiny_text, Tokeniser(host.tokenizer, CONTEXT)), UNIT)
    part = passage(found)
    x_hat = shaken(part.own)
    light = found.kl(part, [x_hat])[0]
    found.host = host
    value, gradient = plainly(found, part, x_hat)
    (pull,) = found.pulls(part, [x_hat])
    assert pull.kl == pytest.approx(value, rel=1e-4)
    assert torch.allclose(pull.gradient, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-9)
    assert light == pytest.approx(value, rel=0.05)


def test_a_few_sequences_at_a_time_give_what_all_at_once_give(tiny_hosts: dict[str, Host], tiny_text: Text) -> None:
    found = made(tiny_hosts["llama"], tiny_text)
    part = passage(found)
    x_hat = shaken(part.own)
    assert found.together >= len(part.input_ids)
    (whole,) = found.pulls(part, [x_hat])
    found.together = 3
    (parts,) = found.pulls(part, [x_hat])
    assert parts.kl == pytest.approx(whole.kl, rel=1e-5)
    assert torch.allclose(parts.gradient, whole.gradient, atol=1e-6 * float(whole.gradient.abs().max()))


def test_the_lighter_model_pulls_the_same_way_and_leaves_the_other_as_it_is(
    tiny_hosts: dict[str, Host], tiny_text: Text
) -> None:
    found = made(tiny_hosts["llama"], tiny_text)
    part = passage(found)
    x_hat = shaken(part.own)
    before = {name: value.clone() for name, value in found.host.model.state_dict().items()}
    (exact,) = found.pulls(part, [x_hat])
    found.host = in_bfloat16(found.reader.host, found.reader.hook)
    (light,) = found.pulls(part, [x_hat])
    assert light.kl == pytest.approx(exact.kl, rel=0.05)
    assert light.kl != exact.kl
    assert float(cosine_similarity(light.gradient.flatten(), exact.gradient.flatten(), dim=0)) > 0.99
    now = found.reader.host.model.state_dict()
    assert all(now[name].dtype == value.dtype and torch.equal(now[name], value) for name, value in before.items())
    assert found.host.blocks[0] is found.reader.host.blocks[0]
    assert found.reader.host.residual(part.input_ids, found.reader.hook).dtype == torch.float32


def test_predictions_that_do_not_fit_are_refused_with_the_context_that_does(
    tiny_hosts: dict[str, Host], tiny_text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = tiny_hosts["llama"].model.config.vocab_size
    monkeypatch.setattr(module, "MOST_OF_ONE", 4 * vocabulary * (CONTEXT - 2))
    with pytest.raises(SettingsError, match=rf"{vocabulary} words .*--context {CONTEXT - 2} or less") as found:
        made(tiny_hosts["llama"], tiny_text)
    assert "\n" not in str(found.value)
    assert tiny_hosts["llama"].d_model == TINY_WIDTH
