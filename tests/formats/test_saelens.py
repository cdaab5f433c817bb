"""Reading SAELens' folders: what SAELens computes, and refusals in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rational_sae.errors import SourceError
from rational_sae.formats import load
from rational_sae.formats.saelens import CONFIG, WEIGHTS, read_saelens
from rational_sae.gates.threshold import ThresholdGate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens

NORMALISATIONS = [
    "none",
    "layer_norm",
    "constant_norm_rescale",
    "expected_average_only_in",
    "covariance_whitening",
]
SIZES = {"d_in": 13, "d_sae": 37}


def filled(sae: Any, seed: int = 0) -> Any:
    """Random numbers in every parameter; thresholds 0 for every third latent."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sae.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        if name == "threshold":
            parameter.data = parameter.data.abs()
            parameter.data[::3] = 0.0
    return sae


def batch(d_in: int, n: int = 257) -> Tensor:
    return 3 * torch.randn(n, d_in, generator=torch.Generator().manual_seed(1)) + 0.5


def assert_same(ours: Any, theirs: Any, x: Tensor) -> None:
    """The same codes, zeros included, and the same reconstruction."""
    with torch.no_grad():
        found, z, _ = ours.outputs(x)
        wanted_z = theirs.encode(x)
        wanted = theirs.decode(wanted_z)
    assert torch.equal(z != 0, wanted_z != 0)
    assert 0 < (z != 0).sum() < z.numel()
    assert (z - wanted_z).norm() <= 1e-5 * wanted_z.norm()
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def standard(**options: Any) -> Any:
    return sae_lens.StandardSAE(sae_lens.StandardSAEConfig(**SIZES | options))


def jumprelu(**options: Any) -> Any:
    return sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(**SIZES | options))


def topk(**options: Any) -> Any:
    return sae_lens.TopKSAE(sae_lens.TopKSAEConfig(**SIZES | {"k": 5} | options))


def rescaled(**options: Any) -> Any:
    return topk(rescale_acts_by_decoder_norm=True, **options)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("make", [standard, jumprelu, topk, rescaled])
def test_computes_what_saelens_computes(
    tmp_path: Path, make: Callable[..., Any], centred: bool, normalisation: str
) -> None:
    theirs = filled(make(apply_b_dec_to_input=centred, normalize_activations=normalisation))
    theirs.save_model(tmp_path)
    ours = load(str(tmp_path))
    assert_same(ours, theirs, batch(13))
    kept = ours.metadata.extra.get("normalize_activations")
    assert kept == (normalisation if normalisation in NORMALISATIONS[3:] else None)


@torch.no_grad()
def test_heads_of_hook_z_lie_side_by_side(tmp_path: Path) -> None:
    theirs = filled(standard(d_in=12, reshape_activations="hook_z"))
    theirs.save_model(tmp_path)
    ours, x = load(str(tmp_path)), batch(12)
    z = theirs.encode(x.view(-1, 4, 3))
    assert torch.allclose(ours.encode(x), z, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours(x).view(-1, 4, 3), theirs.decode(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("d_in", "d_sae", "k"), [(1, 2, 1), (7, 3, 1), (64, 65, 64), (5, 129, 1)])
@pytest.mark.parametrize("rescale", [True, False])
def test_topk_of_odd_shapes(tmp_path: Path, d_in: int, d_sae: int, k: int, rescale: bool) -> None:
    theirs = filled(topk(d_in=d_in, d_sae=d_sae, k=k, rescale_acts_by_decoder_norm=rescale))
    theirs.save_model(tmp_path)
    assert_same(read_saelens(tmp_path), theirs, batch(d_in))


def test_negative_thresholds_act_as_zero(tmp_path: Path) -> None:
    theirs = filled(jumprelu())
    theirs.threshold.data -= 1.0
    theirs.save_model(tmp_path)
    assert_same(read_saelens(tmp_path), theirs, batch(13))


@pytest.mark.parametrize("rescale", [True, False])
def test_batchtopk_checkpoint_is_its_inference_sae(tmp_path: Path, rescale: bool) -> None:
    config = sae_lens.BatchTopKTrainingSAEConfig(**SIZES, k=4, rescale_acts_by_decoder_norm=rescale)
    training = filled(sae_lens.BatchTopKTrainingSAE(config))
    training.topk_threshold.fill_(1.75)
    training.save_model(tmp_path / "training")
    training.save_inference_model(tmp_path / "inference")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "inference")
    ours = read_saelens(tmp_path / "training")
    assert isinstance(ours.gate, ThresholdGate)
    assert ours.metadata.family == "jumprelu"
    assert_same(ours, theirs, batch(13))
    assert_same(read_saelens(tmp_path / "inference"), theirs, batch(13))


def test_bfloat16_weights_are_read_as_float32(tmp_path: Path) -> None:
    theirs = filled(standard()).to(torch.bfloat16)
    theirs.save_model(tmp_path)
    ours = read_saelens(tmp_path)
    assert ours.W_enc.dtype == torch.float32
    assert_same(ours, theirs.to(torch.float32), batch(13))


def test_metadata(tmp_path: Path) -> None:
    metadata = {"model_name": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "prepend_bos": False}
    theirs = standard(metadata=sae_lens.saes.sae.SAEMetadata(**metadata, context_size=64, run="seven"))
    filled(theirs).save_model(tmp_path)
    found = read_saelens(tmp_path).metadata
    assert (found.model_name, found.hook_name) == ("gpt2", "blocks.8.hook_resid_pre")
    assert (found.prepend_bos, found.context_size, found.family) == (False, 64, "relu")
    assert found.extra["run"] == "seven"


@pytest.mark.parametrize("k", [None, 3])
def test_version_5(tmp_path: Path, k: int | None) -> None:
    theirs = filled(standard() if k is None else topk(k=k))
    theirs.save_model(tmp_path)
    old = {
        **SIZES,
        "dtype": "torch.float32",
        "hook_point": "blocks.8.hook_resid_pre",
        "model_name": "gpt2-small",
    }
    old |= {"normalize_activations": False, "context_size": 128, "activation_fn_str": "relu"}
    if k is not None:
        old |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": k}}
    (tmp_path / CONFIG).write_text(json.dumps(old))
    ours = read_saelens(tmp_path)
    assert_same(ours, sae_lens.SAE.load_from_disk(tmp_path), batch(13))
    assert ours.metadata.hook_name == "blocks.8.hook_resid_pre"
    assert (ours.metadata.model_name, ours.metadata.context_size) == ("gpt2-small", 128)
    assert ours.metadata.prepend_bos is True


def test_load_finds_the_folder(tmp_path: Path) -> None:
    filled(standard()).save_model(tmp_path / "job" / "sae")
    for name in ("job", "job/sae", f"job/sae/{WEIGHTS}", f"job/sae/{CONFIG}"):
        assert load(str(tmp_path / name)).d_sae == 37


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    filled(jumprelu()).save_model(tmp_path / "sae")
    return tmp_path / "sae"


def refused(name: Path | str, *words: str) -> None:
    """One line, which holds the words."""
    with pytest.raises(SourceError) as caught:
        load(str(name))
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.remedy
    for word in words:
        assert word in line


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def test_refuses_what_is_not_there(folder: Path) -> None:
    refused(folder / "nowhere", "no such folder")
    (folder / "other.txt").write_text("")
    refused(folder / "other.txt", "not the weights")
    moved = (folder / WEIGHTS).rename(folder.parent / "moved")
    refused(folder, "no such file", "weights")
    moved.rename(folder / WEIGHTS)
    (folder / CONFIG).unlink()
    refused(folder, CONFIG, "no such file")


def unmapped(path: Path) -> dict[str, Tensor]:
    """A file's tensors, as copies: what `load_file` gives may still lie in the file, which is written over here."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("text", ["", "{", '{"a": 1,}', "[1]", "\xff", "null"])
def test_refuses_malformed_config(folder: Path, text: str) -> None:
    (folder / CONFIG).write_bytes(text.encode("latin-1"))
    refused(folder, CONFIG, "not")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_refuses_truncated_weights(folder: Path, size: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:size])
    refused(folder, WEIGHTS, "truncated")


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"])
def test_refuses_bad_tensors(folder: Path, name: str) -> None:
    good = unmapped(folder / WEIGHTS)
    save_file({key: value for key, value in good.items() if key != name}, folder / WEIGHTS)
    refused(folder, name, "missing")
    save_file(good | {name: torch.zeros(3, 2)}, folder / WEIGHTS)
    refused(folder, name, "[3, 2]", str(list(good[name].shape)))
    save_file(good | {name: torch.zeros(good[name].shape, dtype=torch.int32)}, folder / WEIGHTS)
    refused(folder, name, "int32")
    for bad in (float("nan"), float("inf")):
        broken = good[name].clone()
        broken.view(-1)[1] = bad
        save_file(good | {name: broken}, folder / WEIGHTS)
        refused(folder, name, "NaN or infinity")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "gated"}, ["b_mag", "missing"]),
        ({"architecture": "transcoder"}, ["d_out", "missing"]),
        ({"architecture": "temporal"}, ["'temporal'"]),
        ({"architecture": None}, ["architecture"]),
        ({"reshape_activations": "heads"}, ["reshape_activations", "hook_z"]),
        ({"normalize_activations": "mystery"}, ["mystery"]),
        ({"normalize_activations": []}, ["normalize_activations"]),
        ({"apply_b_dec_to_input": "yes"}, ["apply_b_dec_to_input", "yes"]),
        ({"d_in": 14}, ["W_enc", "[13, 37]", "[14, 37]"]),
        ({"d_sae": "many"}, ["d_sae", "many"]),
        ({"metadata": 3}, ["metadata"]),
        ({"architecture": "topk"}, ["k is missing"]),
        ({"architecture": "topk", "k": 0}, ["k is 0"]),
        ({"architecture": "topk", "k": 38}, ["k is 38", "37"]),
        ({"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": 1}, ["rescale"]),
        ({"architecture": "batchtopk", "k": 3}, ["topk_threshold", "missing"]),
        ({"architecture": "rational"}, ["coefficients"]),
        ({"architecture": "rational", "coefficients": {"form": "other"}}, ["other"]),
    ],
)
def test_refuses_bad_settings(folder: Path, changes: dict[str, Any], words: list[str]) -> None:
    edit(folder, **changes)
    refused(folder, *words)


def test_refuses_bad_metadata_and_old_activations(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    edit(folder, metadata=config["metadata"] | {"context_size": "long"})
    refused(folder, "context_size", "long")
    edit(folder, metadata={}, activation_fn_str="tanh-relu")
    refused(folder, "tanh-relu")


def test_refuses_a_scaling_factor(folder: Path) -> None:
    good = unmapped(folder / WEIGHTS)
    save_file(good | {"scaling_factor": torch.ones(37)}, folder / WEIGHTS)
    assert load(str(folder)).d_in == 13
    save_file(good | {"scaling_factor": torch.full((37,), 2.0)}, folder / WEIGHTS)
    refused(folder, "scaling_factor")


def test_import_is_light_and_the_first_use_registers() -> None:
    code = "import sys; before = list(sys.meta_path); import rational_sae; assert sys.meta_path == before\n"
    code += "print([m for m in ('torch', 'numpy', 'sae_lens') if m in sys.modules])\n"
    code += "import sae_lens; rational_sae.load; print('rational' in sae_lens.registry.SAE_CLASS_REGISTRY)\n"
    code += "import rational_sae.upgrading.settings as s; print(s.__name__, callable(rational_sae.upgrading))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "True", "rational_sae.upgrading.settings False"], done.stderr
