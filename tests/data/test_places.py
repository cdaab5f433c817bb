"""Places in a block, for every architecture in the table: its own arithmetic, and the model's forward around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import PLACE_FAMILIES, TINY_DEPTH, TINY_VOCABULARY, tiny_model, tiny_tokenizer
from torch import Tensor, nn

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.places import LAYOUTS
from rational_sae.data.reading import settle
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import HostError
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE, Metadata
from rational_sae.steering import ablated, intervene

pytestmark = pytest.mark.usefixtures("same_products")

SIDE_BY_SIDE = ("gptj", "gpt_neox", "phi")
NORMS_BEHIND = ("gemma2", "gemma3", "olmo2", "olmo3")
REPLACED = ("resid_mid", "attn_in", "hook_z", "attn_raw", "attn_out", "mlp_in", "mlp_raw", "mlp_out")
NAMES = {
    "resid_mid": "hook_resid_mid",
    "attn_in": "attn.hook_in",
    "hook_z": "attn.hook_z",
    "attn_raw": "attn.hook_out",
    "attn_out": "hook_attn_out",
    "mlp_in": "mlp.hook_in",
    "mlp_raw": "mlp.hook_out",
    "mlp_out": "hook_mlp_out",
}
IDS = torch.randint(4, len(TINY_VOCABULARY), (3, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=PLACE_FAMILIES)
def host(request: pytest.FixtureRequest) -> Host:
    return Host(request.param, tiny_model(request.param).requires_grad_(False), tiny_tokenizer())


def at(host: Host, kind: str, block: int = 1) -> Tensor:
    return host.residual(IDS, host.hook(f"blocks.{block}.{NAMES.get(kind, f'hook_{kind}')}"))


def places(host: Host) -> list[str]:
    return [kind for kind in REPLACED if not (kind == "resid_mid" and host.name in SIDE_BY_SIDE)]


def test_the_table_is_tested_whole() -> None:
    tested = {tiny_model(family).config.get_text_config().model_type for family in PLACE_FAMILIES}
    assert set(LAYOUTS) == tested


@torch.no_grad()
def test_the_stream_is_the_sum_of_its_parts(host: Host) -> None:
    for block in range(TINY_DEPTH):
        before, after = at(host, "resid_pre", block), at(host, "resid_post", block)
        attn, mlp = at(host, "attn_out", block), at(host, "mlp_out", block)
        if host.name in SIDE_BY_SIDE:
            torch.testing.assert_close(before + attn + mlp, after)
        else:
            assert torch.equal(at(host, "resid_mid", block), before + attn)
            assert torch.equal(before + attn + mlp, after)


@torch.no_grad()
def test_each_part_is_what_its_modules_make_of_the_part_before(host: Host) -> None:
    layouts = LAYOUTS[host.model.config.get_text_config().model_type]
    for number, block in enumerate(host.blocks):
        layout = next(one for one in layouts if hasattr(block, one.attn))
        part: Callable[[str], Any] = block.get_submodule

        def same(x: Tensor, kind: str, number: int = number) -> None:
            assert torch.equal(x.reshape(*IDS.shape, -1), at(host, kind, number)), kind

        same(part(layout.mix)(at(host, "hook_z", number)), "attn_raw")
        stream = at(host, "resid_pre", number)
        if layout.ln1:
            same(part(layout.ln1)(stream), "attn_in")
        if layout.ln2:
            same(part(layout.ln2)(stream if host.name in SIDE_BY_SIDE else at(host, "resid_mid", number)), "mlp_in")
        if layout.mlp == layout.mlp_end:
            out = part(layout.mlp)(at(host, "mlp_in", number))
            same(out if isinstance(out, Tensor) else out[0], "mlp_raw")
        for norm, raw, added in ((layout.attn_norm, "attn_raw", "attn_out"), (layout.mlp_norm, "mlp_raw", "mlp_out")):
            same(at(host, raw, number) if norm is None else part(norm)(at(host, raw, number)), added)
            assert (norm is not None) == (host.name in NORMS_BEHIND)


@torch.no_grad()
def test_what_was_read_put_back_gives_the_clean_logits_and_anything_else_does_not(host: Host) -> None:
    clean = host.model(input_ids=IDS, use_cache=False).logits
    hooks = [host.hook(f"blocks.1.{NAMES[kind]}") for kind in places(host)]
    for hook in [*hooks, host.hook("hook_embed")]:
        x, entering = host.residual(IDS, hook), host.entering(IDS, hook)
        assert x.shape == (*IDS.shape, host.width(hook))
        assert torch.equal(host.logits_from(IDS, hook, x), clean)
        assert torch.equal(host.logits_from(IDS, hook, x, entering), clean)
        changed = x.clone()
        changed[:, 5] += torch.linspace(-1, 1, x.shape[-1])
        found = host.logits_from(IDS, hook, changed, entering)
        torch.testing.assert_close(found, host.logits_from(IDS, hook, changed))
        moved = (found - clean).abs().amax(-1)
        assert float(moved[:, :5].max()) < 1e-5  # causal; experts add their tokens in another order
        assert float(moved[:, 5].min()) > 1e-4
        with host.edited(hook, lambda _x, new=changed: new):
            assert torch.equal(host.model(input_ids=IDS, use_cache=False).logits, host.logits_from(IDS, hook, changed))
    assert torch.equal(host.model(input_ids=IDS, use_cache=False).logits, clean)


@torch.no_grad()
def test_nothing_behind_the_place_is_run(host: Host) -> None:
    ran: list[nn.Module] = []
    handles = [block.register_forward_hook(lambda module, _args, _output: ran.append(module)) for block in host.blocks]
    for kind in places(host):
        ran.clear()
        at(host, kind)
        assert ran == [host.blocks[0]], kind
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox", "gemma2", "olmo2", "qwen3_5"])
def test_gradients_pass_through_what_was_put_in(family: str) -> None:
    host = Host(family, tiny_model(family).requires_grad_(False), tiny_tokenizer())
    for kind in places(host):
        hook = host.hook(f"blocks.1.{NAMES[kind]}")
        scale = torch.ones(host.width(hook), requires_grad=True)
        with host.edited(hook, lambda x, scale=scale: x * scale):
            host.model(input_ids=IDS, use_cache=False).logits.square().mean().backward()
        assert scale.grad is not None
        assert float(scale.grad.norm()) > 0, kind
        step, direction = 1e-2, scale.grad / scale.grad.norm()
        with torch.no_grad():
            ends = []
            for factor in (1 - step * direction, 1 + step * direction):
                with host.edited(hook, lambda x, factor=factor: x * factor):
                    ends.append(host.model(input_ids=IDS, use_cache=False).logits.double().square().mean())
        torch.testing.assert_close(float(ends[1] - ends[0]) / (2 * step), float(scale.grad.norm()), rtol=0.1, atol=1e-5)


@torch.no_grad()
def test_before_the_weights_of_an_rms_norm_x_has_norm_one_a_dimension(host: Host) -> None:
    if host.name not in ("llama", "gemma2", "gemma3", "qwen3"):
        return
    for kind, norm in (("ln1", "resid_pre"), ("ln2", "resid_mid")):
        hook = host.hook(f"blocks.1.{kind}.hook_normalized")
        x, stream = host.residual(IDS, hook), at(host, norm)
        torch.testing.assert_close(x, stream / stream.square().mean(-1, keepdim=True).sqrt(), rtol=1e-3, atol=1e-5)
        with pytest.raises(HostError, match="read alone"):
            host.logits_from(IDS, hook, x)


@pytest.mark.parametrize(
    ("family", "name", "words"),
    [
        ("phi", "blocks.1.hook_resid_mid", "side by side"),
        ("gpt2", "blocks.1.ln2.hook_normalized", "RMS norm"),
        ("openai-gpt", "blocks.1.hook_mlp_out", "of type openai-gpt is not known"),
        ("llama", f"blocks.{TINY_DEPTH}.hook_mlp_out", f"nearest: .*blocks.{TINY_DEPTH - 1}.hook_mlp_out"),
    ],
)
def test_a_place_that_a_model_does_not_have_is_refused_in_one_line(family: str, name: str, words: str) -> None:
    with pytest.raises(HostError, match=words) as error:
        Host(family, tiny_model(family), tiny_tokenizer()).hook(name)
    assert "\n" not in str(error.value)


def test_the_norm_behind_a_part_decides_what_its_modules_name_means() -> None:
    """`hook_mlp_out` is what is added; the module `mlp` gives what the norm behind it reads."""
    gemma, llama = (Host(family, tiny_model(family), tiny_tokenizer()) for family in ("gemma2", "llama"))
    assert not gemma.hook("blocks.1.hook_mlp_out").same_place(gemma.hook("model.layers.1.mlp.output"))
    assert gemma.hook("blocks.1.hook_mlp_out").spot.module == "post_feedforward_layernorm"  # type: ignore[union-attr]
    attn = gemma.hook("model.layers.1.post_attention_layernorm.output")
    assert torch.equal(gemma.residual(IDS, attn), gemma.residual(IDS, gemma.hook("blocks.1.hook_attn_out")))
    mlp_in = llama.hook("model.layers.1.post_attention_layernorm.output")
    assert torch.equal(llama.residual(IDS, mlp_in), llama.residual(IDS, llama.hook("model.layers.1.mlp.input")))
    x = llama.residual(IDS, llama.hook("model.layers.1.mlp.output"))
    assert torch.equal(x, llama.residual(IDS, llama.hook("blocks.1.hook_mlp_out")))


def linear_sae(width: int, hook: str, **options: Any) -> SAE:
    """x̂ = x: each dimension in two latents, one of each sign."""
    axes = torch.cat([torch.eye(width), -torch.eye(width)])
    known = Metadata(hook_name=hook)
    return SAE(axes.T, torch.zeros(2 * width), axes, torch.zeros(width), ReLUGate(), metadata=known, **options)


@pytest.mark.parametrize("place", ["hook_mlp_out", "hook_attn_out", "attn.hook_z", "hook_resid_mid"])
@torch.no_grad()
def test_steering_edits_what_is_there(place: str) -> None:
    host = Host("llama", tiny_model("llama"), tiny_tokenizer())
    hook = host.hook(f"blocks.1.{place}")
    x = host.residual(IDS, hook)
    sae = linear_sae(x.shape[-1], hook.name)
    with intervene(host.model, sae, lambda z: ablated(z, [3])):
        found = host.model(input_ids=IDS, use_cache=False).logits
    without = x.clone()
    without[..., 3].clamp_(max=0.0)
    torch.testing.assert_close(found, host.logits_from(IDS, hook, without))
    with pytest.raises(HostError, match=r"has width \d+ there"), intervene(host, linear_sae(5, hook.name), lambda z: z):
        pass


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "llama"])
@pytest.mark.parametrize("apply_b_dec_to_input", [False, True])
@torch.no_grad()
def test_heads_whose_values_had_no_biases_in_training_are_read_as_the_model_has_them(
    family: str, apply_b_dec_to_input: bool
) -> None:
    """TransformerLens' default moves the biases of values behind the heads; GPT-2's SAEs of hook_z are of that form."""
    host = Host(family, tiny_model(family), tiny_tokenizer())
    hook = host.hook("blocks.1.attn.hook_z")
    x = host.residual(IDS, hook)
    bare = Host(family, tiny_model(family), tiny_tokenizer())
    attn = bare.blocks[1].get_submodule(LAYOUTS[family][0].attn)
    if family == "gpt2":
        attn.c_attn.bias[-bare.d_model :] = 0  # type: ignore[index]
    elif attn.v_proj.bias is not None:  # type: ignore[union-attr]
        attn.v_proj.bias.zero_()  # type: ignore[union-attr]
    x_bare = bare.residual(IDS, hook)
    assert torch.allclose(x, x_bare) == (family == "llama")
    generator = torch.Generator().manual_seed(0)
    sae = linear_sae(x.shape[-1], hook.name, apply_b_dec_to_input=apply_b_dec_to_input)
    sae.b_dec.copy_(torch.randn(x.shape[-1], generator=generator))
    sae.metadata.extra["model_from_pretrained_kwargs"] = {"fold_value_biases": True}
    z, x_hat = sae.encode(x_bare), sae(x_bare)
    for _ in range(2):  # a second time changes nothing
        settle(sae, host, hook)
        torch.testing.assert_close(sae.encode(x), z, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sae(x) - x, x_hat - x_bare, rtol=1e-4, atol=1e-5)
    assert sae.cfg.model_from_pretrained_kwargs == {"fold_value_biases": False}


def test_a_centred_sae_reads_what_is_not_added_to_the_stream_as_it_is() -> None:
    host = Host("gpt2", tiny_model("gpt2"), tiny_tokenizer())
    for place, centred in (("attn.hook_z", False), ("mlp.hook_in", False), ("hook_mlp_out", True), ("hook_out", True)):
        sae = linear_sae(host.d_model, f"blocks.1.{place}", centred=True)
        settle(sae, host, host.hook(f"blocks.1.{place}"))
        assert sae.centred == centred
        assert not sae.metadata.warnings


def test_a_reader_gives_vectors_of_the_place_s_own_width(tiny_text: Text) -> None:
    host = Host("llama", tiny_model("llama"), tiny_tokenizer())
    host.blocks[1].self_attn.o_proj = nn.Linear(host.d_model, host.d_model)  # type: ignore[union-attr]
    reader = Reader(host, host.hook("blocks.1.attn.hook_z"), tiny_text, Tokeniser(host.tokenizer, 16))
    assert reader.sample("calibration", 100).shape[1] == reader.width == host.d_model
