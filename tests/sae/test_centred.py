"""SAEs of centred writing weights: they read x minus its mean over d_in, of a model as it was published.

The known right values are those of a tiny GPT-2 whose writing weights really are centred: there a plain SAE reads the
same numbers, and what the model says is the same, because a layer norm takes the mean off anyway.
"""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from random_sae import WAVY, make, sample
from tiny import TINY_DEPTH, save_tiny, save_tiny_text, tiny_model, tiny_tokenizer
from torch import Tensor

from rational_sae.check.inspection import inspect_sae
from rational_sae.check.verify import verify
from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host, load_host
from rational_sae.data.reading import Reading
from rational_sae.data.text import open_text
from rational_sae.data.tokens import Tokeniser
from rational_sae.evaluation import evaluate
from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.gates.hard import HardGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.cfg import CENTRING, KWARGS
from rational_sae.sae.model import SAE, Metadata
from rational_sae.sae.sparse import reconstruct
from rational_sae.steering import intervene
from rational_sae.upgrading.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens

    import rational_sae.saelens  # noqa: F401  # SAELens learns the architecture

HOOK = "blocks.1.hook_resid_post"
SIZE = 30
GATES: dict[str, Any] = {
    "relu": ReLUGate,
    "jumprelu": lambda: ThresholdGate(torch.full((SIZE,), 0.4)),
    "topk": lambda: TopKGate(6),
    "rational": lambda: HardGate(WAVY, torch.full((SIZE,), 4.0), torch.full((SIZE,), 0.4)),
}


def without_mean(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("gate", GATES)
@torch.no_grad()
def test_what_a_centred_sae_computes(gate: str, normalisation: Any) -> None:
    plain, centred = (make(GATES[gate](), normalisation=normalisation, centred=c) for c in (False, True))
    x = sample() + torch.linspace(-3, 3, 4000)[:, None]
    found, z, _ = centred.outputs(x)
    wanted, wanted_z, _ = plain.outputs(without_mean(x))
    assert torch.allclose(z, wanted_z, atol=1e-5)
    assert torch.allclose(found, wanted + x.mean(-1, keepdim=True), atol=1e-4), "x̂ has the units of x"
    assert torch.equal(centred.encode(x), z)
    assert torch.allclose(centred.decode(z, centred.normalise(x)[1]), found)
    with pytest.raises(ValueError, match="state"):
        centred.decode(z)
    again = centred.outputs(without_mean(x))[0]
    assert torch.allclose(again, wanted, atol=1e-4), "a stream that is centred already stays as it is"


@pytest.mark.parametrize("gate", GATES)
def test_the_sparse_step_has_the_same_gradients(gate: str) -> None:
    x, found = sample()[:200] + 2.0, {}
    for sparse in (False, True):
        sae = make(GATES[gate](), centred=True)
        x_hat = reconstruct(sae, x, sparse=sparse).x_hat
        (x - x_hat).pow(2).sum().backward()
        found[sparse] = [p.grad for p in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)]
    for dense, quick in zip(found[False], found[True], strict=True):
        assert torch.allclose(dense, quick, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_units_can_change() -> None:
    sae, x = make(ReLUGate(), centred=True), sample() + 1.0
    other = copy.deepcopy(sae)
    other.rescale_input_(3.0)
    other.rescale_latents_(torch.linspace(0.5, 2.0, SIZE))
    assert torch.allclose(other(3.0 * x), 3.0 * sae(x), atol=1e-3)


@pytest.mark.parametrize("gate", GATES)
@torch.no_grad()
def test_saved_in_saelens_own_words_and_the_same_there(gate: str, tmp_path: Path) -> None:
    sae = make(GATES[gate](), centred=True, metadata=Metadata(extra={KWARGS: {"n_devices": 2}}))
    save(sae, tmp_path / "sae")
    stored = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert stored["metadata"][KWARGS] == {"n_devices": 2, CENTRING: True}
    back = load(str(tmp_path / "sae"))
    assert back.centred
    assert back.with_gate(ReLUGate()).centred
    x = without_mean(sample())
    with pytest.warns(UserWarning, match="model_from_pretrained_kwargs"):  # SAELens advises how to load the model
        theirs: Any = sae_lens.SAE.load_from_disk(str(tmp_path / "sae"))
    assert torch.allclose(theirs.encode(x), back.encode(x), atol=1e-5)
    assert torch.allclose(theirs.decode(theirs.encode(x)), back(x), atol=1e-4)


def test_cfg_is_a_view_of_it() -> None:
    sae = make(ReLUGate())
    assert getattr(sae.cfg, KWARGS) == {}
    setattr(sae.cfg, KWARGS, {CENTRING: True})
    assert sae.centred
    assert sae.cfg.to_dict()[KWARGS] == {CENTRING: True}
    sae.centred = False
    assert getattr(sae.cfg, KWARGS) == {CENTRING: False}


# On models


def gpt2_with_means() -> Any:
    """A tiny GPT-2 whose embeddings have a mean over d_model that differs from token to token."""
    model = tiny_model("gpt2")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    with torch.no_grad():
        size = model.transformer.wte.weight.shape[0]
        model.transformer.wte.weight += 0.3 * torch.randn(size, 1, generator=torch.Generator().manual_seed(3))
    return model


@torch.no_grad()
def centred_weights(model: Any) -> Any:
    """What TransformerLens' center_writing_weights makes of it: nothing writes along the direction of ones."""
    model = copy.deepcopy(model)
    for embedding in (model.transformer.wte, model.transformer.wpe):
        embedding.weight.copy_(without_mean(embedding.weight))
    for block in model.transformer.h:
        for last in (block.attn.c_proj, block.mlp.c_proj):
            last.weight.copy_(without_mean(last.weight))
            last.bias.copy_(without_mean(last.bias))
    return model


@dataclass
class World:
    raw: str
    centred: str
    text: str
    sae: str
    """States center_writing_weights, and the raw model."""
    plain: str
    """The same weights without that statement."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    top = tmp_path_factory.mktemp("centred")
    model = gpt2_with_means()
    for name, one in (("raw", model), ("centred", centred_weights(model))):
        one.save_pretrained(top / name)
        tiny_tokenizer().save_pretrained(top / name)
    text = save_tiny_text(top / "text.jsonl", 800)
    host = load_host(str(top / "centred"))
    x = Reader(host, host.hook(HOOK), open_text(str(text)), Tokeniser(host.tokenizer, 16)).sample("calibration", 2000)
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][:-1]  # the last is the direction of ones
    W_dec = torch.cat([axes, -axes])
    known = Metadata(family="topk", model_name=str(top / "raw"), hook_name=HOOK, context_size=16, prepend_bos=False)
    for name, centred in (("sae", True), ("plain", False)):
        sae = SAE(W_dec.T, torch.zeros(len(W_dec)), W_dec, x.mean(0), TopKGate(8), centred=centred, metadata=known)
        save(sae, top / name)
    return World(*(str(top / name) for name in ("raw", "centred", "text.jsonl", "sae", "plain")))


def measured(world: World, saes: list[str], model: str) -> Any:
    return evaluate(saes, Reading(text=world.text, model=model, hook=HOOK, context=16), eval_tokens=2000)


def test_the_figures_are_those_of_the_model_that_it_was_trained_on(world: World) -> None:
    there = measured(world, [world.plain], world.centred).rows[world.plain]
    here = measured(world, [world.sae, world.plain], world.raw)
    for key, value in there.items():
        assert here.rows[world.sae][key] == pytest.approx(value, rel=2e-3, abs=2e-4), key
    assert here.rows[world.plain]["fvu"] > 1.2 * there["fvu"], (
        "without the statement it reads what it was not trained on"
    )
    assert any("minus its mean over d_in" in one for one in here.further["warnings"])
    interval = here.intervals[world.sae]["fvu"]
    assert interval[0] < there["fvu"] < interval[1]


def test_it_is_verified_and_no_formula_is_named_in_its_place(world: World) -> None:
    host = load_host(world.raw)
    reader = Reader(host, host.hook(HOOK), open_text(world.text), Tokeniser(host.tokenizer, 16))
    x = reader.sample("test", 2000)
    seen = without_mean(x)
    sae = load(world.sae)
    assert sae.centred
    with torch.no_grad():
        error = (x - sae(x)).pow(2).sum()
        wanted = float(error / (seen - seen.mean(0)).pow(2).sum())
    found = verify(sae, x)
    assert found.fvu == pytest.approx(wanted, rel=1e-5)
    assert not found.likely or not any("centred" in change for change in found.likely.changes)
    facts = inspect_sae(world.sae, Reading(text=world.text))
    assert facts["centred"]
    assert facts["formula"][0] == "h = W_encᵀ(n(x) − b_dec) + b_enc"
    assert facts["formula"][-1].startswith("n(x) = x − μ")


@pytest.mark.parametrize("boundary", range(1, TINY_DEPTH + 1))
@torch.no_grad()
def test_an_intervention_moves_the_published_model_as_the_centred_one(world: World, boundary: int) -> None:
    hook, ids = f"blocks.{boundary - 1}.hook_resid_post", torch.arange(4, 24).view(2, 10)
    logits = []
    for model, name in ((world.raw, world.sae), (world.centred, world.plain)):
        host, sae = load_host(model), load(name)
        sae.metadata.hook_name = hook
        with intervene(host, sae, lambda z: 0.5 * z, error_term=False):
            logits.append(host.model(input_ids=ids).logits)
    assert torch.allclose(*logits, atol=1e-3)


def test_an_upgrade_says_so_and_is_measured_so(world: World, tmp_path: Path) -> None:
    from rational_sae.upgrading.job import run as upgrade
    from rational_sae.upgrading.run.write import write

    options: dict[str, Any] = {"steps": 12, "batch_tokens": 64, "eval_tokens": 600, "controls": ()}
    here = upgrade(Settings(teacher=world.sae, text=world.text, refit_decoder=True, **options))
    there = upgrade(Settings(teacher=world.plain, text=world.text, model=world.centred, refit_decoder=True, **options))
    for row, figures in there.results.rows.items():
        for key in ("fvu", "l0", "delta_ce"):
            assert here.results.rows[row][key] == pytest.approx(figures[key], rel=0.05, abs=0.02), (row, key)
    assert here.saes["rsae"].centred
    write(here, tmp_path / "out")
    written = tmp_path / "out" / "sae"
    assert json.loads((written / "cfg.json").read_text())["metadata"][KWARGS] == {CENTRING: True}
    again = measured(world, [world.sae, str(written)], world.raw)
    assert again.rows[str(written)]["fvu"] < 0.9
    assert not again.further["warnings"]


def test_a_model_without_layer_norms_was_not_centred_in_training_either(tmp_path: Path) -> None:
    """TransformerLens skips center_writing_weights there."""
    folder, text = save_tiny("llama", tmp_path / "llama"), save_tiny_text(tmp_path / "text.jsonl", 800)
    wide = SAE(torch.eye(32), torch.zeros(32), torch.eye(32), torch.zeros(32), ReLUGate(), centred=True)
    wide.metadata = Metadata(model_name=str(folder), hook_name="model.layers.1", context_size=16)
    save(wide, tmp_path / "sae")
    sae = load(str(tmp_path / "sae"))
    Reading(text=str(text)).open(sae)
    assert not sae.centred
    assert "no layer norms" in sae.metadata.warnings[0]
    facts = inspect_sae(str(tmp_path / "sae"), Reading(text=str(text)))
    assert not facts["centred"]
    assert facts["warnings"] == sae.metadata.warnings


def test_which_models_ignore_the_mean() -> None:
    ignores = {
        name: Host(name, tiny_model(name), None).ignores_mean for name in ("gpt2", "gpt_neox", "llama", "gemma2")
    }
    assert ignores == {"gpt2": True, "gpt_neox": True, "llama": False, "gemma2": False}
