"""Names of places and of models, as published configs write them: read rightly, or refused for what they are."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny import TINY_DEPTH, TINY_WIDTH, tiny_model, tiny_tokenizer

from rational_sae.data.hook_names import KINDS, Kind, Place, parse
from rational_sae.data.language_model import Host, load_host
from rational_sae.data.model_names import hub_id
from rational_sae.errors import HostError
from rational_sae.sae.model import SAE, Metadata
from rational_sae.steering import intervene

pytestmark = pytest.mark.usefixtures("same_products")

ROOT = Path(__file__).parents[2]
IDS = torch.arange(4, 24).view(2, 10)


@pytest.fixture(scope="module")
def gpt2() -> Host:
    return Host("tiny", tiny_model("gpt2"), tiny_tokenizer())


@pytest.mark.parametrize(
    ("name", "wanted"),
    {
        "blocks.1.hook_resid_pre": 1,
        "blocks.1.hook_resid_post": 2,
        "blocks.1.hook_in": 1,
        "blocks.1.hook_out": 2,
        "transformer.h.1": 2,
        "h.1": 2,
        "transformer.h.1.output": 2,
        "transformer.h.1.output[0]": 2,
        "transformer.h.1.output.0": 2,
        "transformer.h.0.input": 0,
        "h.1.input": 1,
        "resid_post_layer_1": 2,
        "resid_out_layer1": 2,
        "resid_pre_layer_1": 1,
    }.items(),
)
def test_names_of_boundaries(gpt2: Host, name: str, wanted: int) -> None:
    assert gpt2.hook(name).boundary == wanted


@pytest.mark.parametrize(
    ("name", "what"),
    {
        "blocks.1.mlp.hook_post": "inside an MLP",
        "blocks.1.hook_attn_in": "the input of attention, once a head",
        "blocks.1.attn.hook_pattern": "inside attention",
        "blocks.1.attn.hook_q": "inside attention",
        "transformer.wpe": "an embedding",
        "blocks.1.mlp.hook_pre": "inside an MLP",
        "ln_final.hook_normalized": "behind the last block",
        "model.norm": "a layer norm",
    }.items(),
)
def test_other_places_are_refused_for_what_they_are(gpt2: Host, name: str, what: str) -> None:
    with pytest.raises(HostError, match=f"is {what}|is .*{what}") as error:
        gpt2.hook(name)
    assert "nearest" not in error.value.remedy, "no other place is offered for it"
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("blocks.8.hook_resid_pre", 8, "resid_pre"),
        ("blocks.8.hook_in", 8, "resid_pre"),
        ("blocks.8.ln2.hook_in", 8, "resid_mid"),
        ("blocks.8.hook_mlp_out", 8, "mlp_out"),
        ("blocks.8.mlp.hook_out", 8, "mlp_raw"),
        ("blocks.8.ln2_post.hook_out", 8, "mlp_out"),
        ("blocks.8.mlp.hook_in", 8, "mlp_in"),
        ("blocks.8.ln2.hook_normalized", 8, "mlp_in_unscaled"),
        ("blocks.8.attn.o.hook_in", 8, "hook_z"),
        ("hook_embed", 0, "embed"),
        ("resid_post_layer_12", 12, "resid_post"),
        ("attention_layer3", 3, "attn_raw"),
        ("mlp_out_layer1", 1, "mlp_raw"),
        ("attn_out_layer_1", 1, "attn_raw"),
        ("model.layers.7.output", 7, "resid_post"),
        ("model.language_model.layers.7.mlp.output[0]", 7, "mlp_raw"),
        ("model.layers.7.self_attn.o_proj.input", 7, "hook_z"),
        ("model.layers.7.pre_feedforward_layernorm.output", 7, "mlp_in"),
        ("model.layers.7.post_feedforward_layernorm.output", 7, "mlp_out"),
        ("model.embed_tokens", 0, "embed"),
        ("layers.5.mlp", 5, "mlp_raw"),
        ("h.3.attn.c_proj.input", 3, "hook_z"),
        ("gpt_neox.layers.2.attention.output.0", 2, "attn_raw"),
        ("model.transformer.h[3].output[0]", 3, "resid_post"),
        ("model.model.layers[7].self_attn.o_proj.input", 7, "hook_z"),
    ],
)
def test_each_library_s_names_are_places(name: str, layer: int, kind: Kind) -> None:
    assert parse(name) == Place(layer, kind)


@pytest.mark.parametrize(
    "name", ["blocks.1.hook_q", "model.layers.1.mlp.gate_proj", "lm_head", "layers", "", "blocks.x.hook_z"]
)
def test_other_names_are_none(name: str) -> None:
    assert parse(name) is None


@pytest.mark.parametrize(
    ("parts", "side", "kind"),
    [
        (("post_attention_layernorm", "mlp"), "output", "mlp_in"),
        (("post_attention_layernorm", "post_feedforward_layernorm"), "output", "attn_out"),
        (("post_attention_layernorm", "post_feedforward_layernorm"), "input", "attn_raw"),
    ],
)
def test_the_block_tells_what_the_norm_named_for_attention_is(parts: tuple[str, ...], side: str, kind: Kind) -> None:
    name = f"model.layers.2.post_attention_layernorm.{side}"
    assert parse(name, "model.layers", parts) == Place(2, kind)
    assert parse(name, "model.layers") is None


def test_a_module_s_path_starts_with_the_model_s() -> None:
    assert parse("transformer.h.1.mlp", "model.layers") is None
    assert parse("h.1.mlp", "transformer.h") == Place(1, "mlp_raw")
    assert parse("model.model.layers[1].mlp", "model.layers") == Place(1, "mlp_raw")
    assert parse("mymodel.layers.1", "model.layers") is None
    assert parse("transformer.blocks.1", "transformer.blocks") == Place(1, "resid_post")


def test_every_kind_has_its_words() -> None:
    assert set(KINDS) == set(get_args(Kind))


@pytest.mark.parametrize("name", ["resid_layer_1", "blocks.1", "blocks.1.hook_resid"])
def test_a_name_without_a_side_is_refused_with_the_choices(gpt2: Host, name: str) -> None:
    with pytest.raises(HostError, match=r"neither.*blocks\.1\.hook_resid_pre or --hook blocks\.1\.hook_resid_post"):
        gpt2.hook(name)


def test_blocks_below_a_vision_tower_have_their_short_names() -> None:
    """Gemma Scope 2's configs say model.layers.N for models whose blocks lie one level deeper."""
    assert parse("model.layers.7.output", "model.language_model.layers") == Place(7, "resid_post")
    assert parse("model.language_model.layers.7", "model.layers") == Place(7, "resid_post")


@pytest.mark.parametrize("family", ["opt", "openai-gpt"])
@torch.no_grad()
def test_every_boundary_of_models_without_a_norm_after_their_blocks(family: str) -> None:
    host = Host(family, tiny_model(family), tiny_tokenizer())
    states = host.model(input_ids=IDS, output_hidden_states=True).hidden_states
    clean = host.model(input_ids=IDS).logits
    hooks = [host.hook("blocks.0.hook_resid_pre")]
    hooks += [host.hook(f"blocks.{block}.hook_resid_post") for block in range(TINY_DEPTH)]
    for hook in hooks:
        x = host.residual(IDS, hook)
        if hook.boundary < TINY_DEPTH:  # the last of transformers' states is behind the norm
            assert torch.equal(x, states[hook.boundary])
        assert torch.equal(host.logits_from(IDS, hook, x), clean)
        moved = host.logits_from(IDS, hook, x + torch.linspace(-1, 1, TINY_WIDTH))
        assert not torch.allclose(moved, clean, atol=1e-3)
    assert torch.equal(host.model(input_ids=IDS).logits, clean)


@pytest.mark.parametrize("family", ["gpt2", "opt", "openai-gpt"])
@torch.no_grad()
def test_the_last_block_can_be_intervened_on(family: str) -> None:
    from rational_sae.gates.relu import ReLUGate

    model, axes = tiny_model(family), torch.eye(TINY_WIDTH)
    hook = f"blocks.{TINY_DEPTH - 1}.hook_resid_post"
    sae = SAE(axes, torch.zeros(TINY_WIDTH), 0.5 * axes, torch.zeros(TINY_WIDTH), ReLUGate())
    sae.metadata = Metadata(hook_name=hook)
    host = Host(family, model, None)
    x = host.residual(IDS, host.hook(hook))
    with intervene(model, sae, lambda z: z, error_term=False):
        found = model(input_ids=IDS).logits
    assert torch.allclose(found, host.logits_from(IDS, host.hook(hook), 0.5 * x.relu()), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "wanted"),
    {
        "gpt2-small": "gpt2",
        "GPT2-small": "gpt2",
        "gpt2-xl": "gpt2-xl",
        "gemma-2-2b": "google/gemma-2-2b",
        "gemma-2b-it": "google/gemma-2b-it",
        "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
        "mistral-7b": "mistralai/Mistral-7B-v0.1",
        "google/gemma-3-270m-pt": "google/gemma-3-270m",
        "somebody/else": "somebody/else",
    }.items(),
)
def test_transformer_lens_names_are_hub_ids(name: str, wanted: str) -> None:
    assert hub_id(name) == wanted


def test_the_names_are_those_of_the_registry_that_they_state() -> None:
    stored = json.loads((ROOT / "src/rational_sae/data/model_names.json").read_text(encoding="utf-8"))
    if version("transformer-lens") != stored["transformer_lens"]:
        pytest.skip(f"another TransformerLens than {stored['transformer_lens']} is installed: make model-names")
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import model_names  # pyright: ignore[reportMissingImports]

        assert model_names.registry() == stored
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_a_short_name_that_cannot_be_loaded_is_named_with_its_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HostError, match="gpt2-xs, which is distilgpt2 on the hub"):
        load_host("gpt2-xs")


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny import save_tiny

    save_tiny("gpt2", tmp_path / "gpt2-small")
    monkeypatch.chdir(tmp_path)
    assert load_host("gpt2-small").d_model == TINY_WIDTH
