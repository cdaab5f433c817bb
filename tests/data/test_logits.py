"""Direct effects on logits, against the models' own last norm and unembedding written out."""

from __future__ import annotations

import pytest
import torch
from tiny import TINY_WIDTH, tiny_model, tiny_tokenizer

from rational_sae.data.language_model import Host
from rational_sae.data.logits import direct_logits
from rational_sae.errors import HostError

V = torch.randn(5, TINY_WIDTH, generator=torch.Generator().manual_seed(3))


def centred(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.mean(-1, keepdim=True)


def last_norm(host: Host) -> torch.nn.Module:
    model = host.model
    return {
        "llama": lambda: model.model.norm,
        "gemma2": lambda: model.model.norm,
        "gpt2": lambda: model.transformer.ln_f,
        "gpt_neox": lambda: model.gpt_neox.final_layer_norm,
    }[host.name]()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_the_effect_is_that_of_the_models_own_norm_and_unembedding(tiny_hosts: dict[str, Host], family: str) -> None:
    host = Host(family, tiny_hosts[family].model, tiny_hosts[family].tokenizer)
    W_U = host.model.get_output_embeddings().weight
    with torch.no_grad():
        norm = last_norm(host)
        expected = centred((norm(V) - norm(torch.zeros_like(V))) @ W_U.T)
    for hook in ("model.layers.1", "blocks.1.hook_resid_mid", "blocks.0.hook_mlp_out", "blocks.2.hook_attn_out"):
        if family == "gpt_neox" and hook.endswith("mid"):
            continue  # attention and MLP side by side
        name = hook if hook.startswith("blocks") else "blocks.1.hook_resid_post"
        assert torch.allclose(direct_logits(host, host.hook(name), V), expected, atol=1e-4)
    longer = direct_logits(host, host.hook("blocks.1.hook_resid_post"), 7 * V)
    assert torch.allclose(longer, expected, atol=2e-3), "the length of a direction drops out in the norm"


@pytest.mark.parametrize("family", ["opt", "phi", "olmo2", "qwen3_next", "gpt_neo"])
def test_other_architectures_give_logits_of_its_stream(family: str) -> None:
    host = Host(family, tiny_model(family), tiny_tokenizer())
    found = direct_logits(host, host.hook("blocks.1.hook_resid_post"), V)
    assert found.shape == (5, host.model.get_output_embeddings().weight.shape[0])
    assert bool(found.isfinite().all())
    assert float(found.std()) > 0
    assert torch.allclose(found.mean(-1), torch.zeros(5), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_heads_side_by_side_go_through_the_output_projection(tiny_hosts: dict[str, Host], family: str) -> None:
    host = tiny_hosts[family]
    hook = host.hook("blocks.1.attn.hook_z")
    z = torch.randn(4, host.width(hook), generator=torch.Generator().manual_seed(1))
    block = host.blocks[1]
    with torch.no_grad():
        mix = block.attn.c_proj.weight if family == "gpt2" else block.self_attn.o_proj.weight.T
        written = z @ mix
        if family == "gemma2":
            written = block.post_attention_layernorm(written)
    expected = direct_logits(host, host.hook("blocks.1.hook_attn_out"), written)
    assert torch.allclose(direct_logits(host, hook, z), expected, atol=1e-3)


def test_a_place_that_is_only_read_is_refused_with_what_would_do(tiny_hosts: dict[str, Host]) -> None:
    host = tiny_hosts["llama"]
    with pytest.raises(HostError, match=r"no direct effect.*use an SAE of the stream"):
        direct_logits(host, host.hook("blocks.1.ln2.hook_normalized"), V)
