"""The architecture "rational" in SAELens: registered in any order of imports, exact in bfloat16, at home in a model."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from random_sae import gate_of_mode
from torch import Tensor

from rational_sae.formats import load
from rational_sae.formats.residue import join_, split
from rational_sae.formats.save import save
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE, Metadata

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens
    from sae_lens import HookedSAETransformer
    from transformer_lens import HookedTransformerConfig

    import rational_sae.saelens  # noqa: F401  # SAELens learns the architecture

D_IN, D_SAE = 16, 40
HOOK = "blocks.1.hook_resid_post"
WAVY = PartialFractions(0.03, 0.9, alpha=[0.02, -0.03], beta=[0.04, 0.02], x=[0.2, 0.5], eta=[-1.5, -1.0])
TOKENS = torch.arange(20).view(2, 10)


def make(mode: Any = "hard", **options: Any) -> SAE:
    generator = torch.Generator().manual_seed(0)
    shapes = [(D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN), (D_IN,)]
    weights = [0.5 * torch.randn(shape, generator=generator) for shape in shapes]
    scale = 1.0 + torch.rand(D_SAE, generator=generator)
    gate = gate_of_mode(mode, WAVY, scale, 0.3 * scale, k=5, gain=1.3)
    return SAE(*weights, gate=gate, metadata=Metadata(model_name="tiny", hook_name=HOOK), **options)


def saved(sae: SAE, folder: Path, **options: Any) -> Any:
    save(sae, folder)
    return sae_lens.SAE.load_from_disk(folder, **options)


def python(code: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=500).stdout.strip()


IS_KNOWN = "from sae_lens.registry import SAE_CLASS_REGISTRY as known; print(known['rational'][0].__module__)"


@pytest.mark.parametrize(
    "imports",
    [
        "import rational_sae.saelens, sae_lens",
        "import sae_lens, rational_sae.saelens",
        "import sae_lens, rational_sae",
        "import rational_sae, sae_lens; rational_sae.save",
    ],
)
def test_registers_whichever_is_imported_first(imports: str) -> None:
    assert python(f"{imports}; {IS_KNOWN}") == "rational_sae.saelens"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import rational_sae; print(*(set(sys.modules) - before))"
    loaded = {name.partition(".")[0] for name in python(code).split()}
    assert not loaded & {"torch", "numpy", "scipy", "transformers", "sae_lens", "transformer_lens", "pydantic", "typer"}


def test_a_name_taken_by_another_package_warns_and_leaves_sae_lens_whole() -> None:
    code = """
import sae_lens, sys
class Other: pass
sae_lens.register_sae_class("rational", Other, Other)
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import rational_sae
    rational_sae.fit
print([str(one.message) for one in caught if one.category is RuntimeWarning])
try:
    import rational_sae.saelens
except Exception as error:
    print(error)
"""
    warned, refused = python(code).splitlines()
    assert warned.count("already has an architecture 'rational'") == 1
    assert refused.startswith("SAELens already has an architecture 'rational' (__main__); unload")


def test_three_bfloat16_numbers_hold_a_float32_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(20_000, generator=generator) * 10 ** (8 * torch.rand(20_000, generator=generator) - 4)
    value[:3] = torch.tensor([0.0, 1.0, torch.finfo(torch.float32).eps])
    parts = split({"v": value}, ["v"])
    assert set(parts) == {"v_residue"}
    assert torch.equal(parts["v_residue"].bfloat16().float(), parts["v_residue"])
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        tensors = {name: tensor.to(dtype) for name, tensor in {"v": value, **parts}.items()}
        join_(tensors, ["v"])
        assert list(tensors) == ["v"]
        assert torch.equal(tensors["v"], value)
    rounded = {"v": value.bfloat16()}
    join_(rounded, ["v"])
    assert not torch.equal(rounded["v"], value), "without the residue the cast has rounded it"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["hard", "topk", "smooth"])
def test_the_gate_is_exact_after_any_number_of_round_trips(tmp_path: Path, mode: str, dtype: str) -> None:
    ours = make(mode)
    theirs = saved(ours, tmp_path / "0", dtype=dtype)
    for trip in range(1, 4):
        assert str(theirs.W_enc.dtype) == f"torch.{dtype}"
        assert torch.equal(theirs.threshold, ours.gate.threshold)
        assert torch.equal(theirs.scale, ours.gate.scale)
        assert theirs.cfg.coefficients == ours.gate.partial_fractions.to_dict()
        gain = float(ours.gate.log_gain.detach().exp())
        assert (theirs.cfg.gain, theirs.cfg.right_slope, theirs.cfg.mode) == (gain, 1.0, mode)
        theirs.save_model(tmp_path / str(trip))
        theirs = sae_lens.SAE.load_from_disk(tmp_path / str(trip))
    again = load(str(tmp_path / "3"))
    assert torch.equal(again.gate.shape, ours.gate.shape)
    assert torch.equal(again.gate.threshold, ours.gate.threshold)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
@torch.no_grad()
def test_folding_decoder_norms_keeps_codes_times_norms_and_outputs(
    tmp_path: Path, normalisation: Any, dtype: str
) -> None:
    sae = make(normalisation=normalisation)
    theirs = saved(sae, tmp_path / "sae", dtype=dtype)
    x = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(1))
    norm = theirs.W_dec.norm(dim=-1)
    before, z = theirs(x), theirs.encode(x)
    theirs.fold_W_dec_norm()
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    assert (theirs(x) - before).norm() <= tolerance * before.norm()
    assert (theirs.encode(x) - z * norm).norm() <= tolerance * (z * norm).norm()
    if dtype == "float32":
        assert torch.equal(theirs.encode(x) != 0, z != 0)
        if "fold_W_dec_norm" in inspect.signature(sae_lens.SAE.load_from_disk).parameters:  # not in older ones
            folded = sae_lens.SAE.load_from_disk(tmp_path / "sae", fold_W_dec_norm=True)
            assert torch.equal(folded.threshold, theirs.threshold)


@pytest.fixture(scope="module")
def model() -> HookedSAETransformer:
    config = HookedTransformerConfig(
        n_layers=3, d_model=D_IN, n_ctx=32, d_head=8, n_heads=2, d_vocab=50, act_fn="gelu", seed=0, device="cpu"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its base class, HookedTransformer, is on its way out
        return HookedSAETransformer(config).eval()


def replaced(model: Any, sae: SAE) -> Tensor:
    """The model with the stream replaced by our own reconstruction, through transformer_lens' own hooks."""
    return model.run_with_hooks(TOKENS, fwd_hooks=[(HOOK, lambda x, hook: sae(x))])


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@torch.no_grad()
def test_a_hooked_model_runs_with_and_without_error_terms(model: Any, tmp_path: Path, normalisation: Any) -> None:
    ours = make(normalisation=normalisation)
    theirs = saved(ours, tmp_path / "sae")
    clean = model(TOKENS)
    found = model.run_with_saes(TOKENS, saes=[theirs])
    assert torch.allclose(found, replaced(model, ours), atol=1e-5)
    assert not torch.allclose(found, clean, atol=1e-2)
    with model.saes(saes=[theirs], use_error_term=True):
        assert torch.allclose(model(TOKENS), clean, atol=1e-5)
    assert torch.equal(model(TOKENS), clean)
    _, cache = model.run_with_cache_with_saes(TOKENS, saes=[theirs])
    _, plain = model.run_with_cache(TOKENS)
    z = cache[f"{HOOK}.hook_sae_acts_post"]
    assert z.shape == (2, 10, D_SAE)
    assert torch.allclose(z, ours.encode(plain[HOOK]), atol=1e-5)


@torch.no_grad()
def test_heads_apart_are_read_side_by_side(model: Any, tmp_path: Path) -> None:
    """TransformerLens' hook_z is [batch, context, heads, d_head]."""
    ours = make()
    ours.metadata.hook_name = "blocks.1.attn.hook_z"
    theirs = saved(ours, tmp_path / "sae")
    wanted = model.run_with_hooks(
        TOKENS, fwd_hooks=[(ours.metadata.hook_name, lambda z, hook: ours(z.flatten(-2)).view(z.shape))]
    )
    assert torch.allclose(model.run_with_saes(TOKENS, saes=[theirs]), wanted, atol=1e-5)
    assert not torch.allclose(wanted, model(TOKENS), atol=1e-2)


@torch.no_grad()
def test_a_latent_is_ablated_and_steered_in_a_hooked_model(model: Any, tmp_path: Path) -> None:
    ours = make()
    theirs = saved(ours, tmp_path / "sae")
    _, plain = model.run_with_cache(TOKENS)
    x = plain[HOOK]
    z = ours.encode(x)
    latent = int(z.mean((0, 1)).argmax())

    def set_to(value: float) -> Any:
        return (f"{HOOK}.hook_sae_acts_post", lambda z, hook: z.index_fill(-1, torch.tensor([latent]), value))

    for value in (0.0, 3.0):
        edited = z.index_fill(-1, torch.tensor([latent]), value)
        wanted = model.run_with_hooks(TOKENS, fwd_hooks=[(HOOK, lambda _x, hook, e=edited: ours.decode(e))])
        found = model.run_with_hooks_with_saes(TOKENS, saes=[theirs], fwd_hooks=[set_to(value)])
        assert torch.allclose(found, wanted, atol=1e-5)
    # Decode-only steering: the codes come from the user, no encode has run.
    fresh = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    codes = torch.zeros(1, D_SAE).index_fill(-1, torch.tensor([latent]), 3.0)
    assert torch.allclose(fresh.decode(codes), 3.0 * ours.W_dec[latent] + ours.b_dec, atol=1e-5)
