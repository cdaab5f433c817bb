"""Tiny repositories in the layout of every loader that SAELens' table names, with the config keys that are published.

Only the shapes are small: D_IN x D_SAE in place of thousands. Keys of Gemma Scope 2's, Llama Scope's, Qwen Scope's and
circuit-tracer's configs are those of public files, the others those that the trainers' own code writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

D_IN, D_SAE, K = 8, 16, 3


@dataclass(frozen=True)
class Published:
    """One row of the table."""

    release: str
    loader: str
    repository: str
    row: dict[str, Any]
    model: str

    @property
    def id(self) -> str:
        """What `saelens:RELEASE/` is followed by."""
        return str(self.row["id"])

    @property
    def path(self) -> str:
        """Its folder or file in the repository."""
        return str(self.row["path"])

    @property
    def layer(self) -> int:
        """The number of its block, by its path."""
        found = re.search(r"layer_?(\d+)|-L(\d+)[AMR]-|/L(\d+)R$|^(\d+)$", self.path)
        assert found is not None, self.path
        return int(next(group for group in found.groups() if group))


def _drawn() -> dict[str, Tensor]:
    """The four tensors, thresholds and a skip connection: no two rows alike, decoder rows of norm 1."""
    numbers = torch.Generator().manual_seed(0)
    W_dec = torch.randn(D_SAE, D_IN, generator=numbers)
    return {
        "W_enc": torch.randn(D_IN, D_SAE, generator=numbers),
        "W_dec": W_dec / W_dec.norm(dim=-1, keepdim=True),
        "b_enc": 0.3 * torch.randn(D_SAE, generator=numbers),
        "b_dec": torch.randn(D_IN, generator=numbers),
        "threshold": torch.randn(D_SAE, generator=numbers).abs() + 0.01,
        "affine": 0.3 * torch.randn(D_IN, D_IN, generator=numbers),
    }


P = _drawn()
FOUR = ("W_enc", "b_enc", "W_dec", "b_dec")
FIVE = (*FOUR, "threshold")
LINEAR = {
    "encoder.weight": P["W_enc"].T,
    "encoder.bias": P["b_enc"],
    "decoder.weight": P["W_dec"].T,
    "decoder.bias": P["b_dec"],
}


def _json(path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))


def _tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in plain.items()})  # pyright: ignore[reportArgumentType]
    elif path.suffix == ".safetensors":
        save_file(plain, path)
    else:
        torch.save(plain, path)


def gemma_2(root: Path, one: Published) -> None:
    _tensors(root / one.path / "params.npz", {name: P[name] for name in FIVE})


GEMMA_3 = {
    "resid_post": ("output", "output"),
    "mlp_out": ("post_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
    "attn_out": ("self_attn.o_proj.input", "self_attn.o_proj.input"),
    "transcoder": ("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
}
"""Where the SAEs of a folder read, and where they go."""


def gemma_3(root: Path, one: Published) -> None:
    """Beside each config and its weights lie examples.safetensors, of gigabytes, which nobody has to fetch."""
    kind = one.path.split("/")[0].removesuffix("_all")
    into, out = (f"model.layers.{one.layer}.{place}" for place in GEMMA_3[kind])
    affine = "affine" in one.path
    config = {"architecture": "jump_relu", "hf_hook_point_in": into, "hf_hook_point_out": out, "width": D_SAE}
    config |= {"model_name": f"{one.model}-pt" if one.model.endswith("270m") else one.model, "l0": 10}
    config |= {"affine_connection": affine, "type": "transcoder" if kind == "transcoder" else "sae"}
    _json(root / one.path / "config.json", config)
    stored = {name.lower(): P[name] for name in FIVE}
    if affine:
        stored["affine_skip_connection"] = P["affine"]
    _tensors(root / one.path / "params.safetensors", stored)
    _tensors(root / one.path / "examples.safetensors", {"tokens": torch.zeros(3, 8, dtype=torch.int32)})


def _flat(hook: str, model: str, **more: Any) -> dict[str, Any]:
    """SAELens' config up to version 5."""
    config = {"model_name": model, "hook_name": hook, "hook_layer": int(hook.split(".")[1]), "hook_head_index": None}
    config |= {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "device": "cpu"}
    config |= {"activation_fn_str": "relu", "activation_fn_kwargs": {}, "apply_b_dec_to_input": True}
    config |= {"finetuning_scaling_factor": False, "sae_lens_training_version": None, "prepend_bos": True}
    config |= {"dataset_path": "x/y", "context_size": 128, "normalize_activations": "none"}
    return config | more


def _first(hook: str, model: str, **more: Any) -> dict[str, Any]:
    """SAELens' config in its first versions."""
    config = {"model_name": model, "hook_point": hook, "hook_point_layer": int(hook.split(".")[1]), "seed": 42}
    config |= {"hook_point_head_index": None, "d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "device": "mps"}
    config |= {"dataset_path": "x/y", "is_dataset_tokenized": False, "context_size": 128, "lp_norm": 1}
    config |= {"use_cached_activations": False, "expansion_factor": 32, "b_dec_init_method": "geometric_median"}
    return config | {"from_pretrained_path": None, "l1_coefficient": 8e-05} | more


def _nested(hook: str, model: str) -> dict[str, Any]:
    """SAELens' config from version 6 on."""
    metadata = {"sae_lens_version": "6.0.0", "model_name": model, "hook_name": hook, "hook_head_index": None}
    metadata |= {"context_size": 1024, "prepend_bos": True, "model_class_name": "HookedTransformer"}
    metadata |= {"model_from_pretrained_kwargs": {"center_writing_weights": False}, "seqpos_slice": [None]}
    config = {"architecture": "jumprelu", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    return config | {"metadata": metadata}


TOPK = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "normalize_activations": "layer_norm"}

IN_ANOTHER_UNIT = "expected_average_only_in"


def _sae_lens_config(one: Published) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config of a release, and its tensors."""
    found = re.match(r"blocks\.\d+\.[a-z_]*[a-z]", one.id)
    assert found is not None, one.id
    hook, release = found[0], one.release
    scaled = {"normalize_activations": IN_ANOTHER_UNIT}
    if release.startswith("gpt2-small-res-jb"):
        return _first(hook, "gpt2-small"), (*FOUR, "scaling_factor")
    if release == "gpt2-small-mlp-tm":
        more = {"hook_point_eval": "blocks.{layer}.attn.pattern", "normalize_activations": True}
        return _first(hook, "gpt2", model_class_name="HookedTransformer", **more), FOUR
    if "-v5-" in release:
        return _flat(hook, "gpt2-small", prepend_bos=False, **TOPK), FOUR
    if release.endswith("-ajt"):
        return _flat(hook, "gpt2-small", apply_b_dec_to_input=False, prepend_bos=False), FOUR
    if release.startswith("pythia-70m"):
        return _flat(hook, "pythia-70m-deduped"), FOUR
    if release == "mistral-7b-res-wg":
        return _flat(hook, "mistral-7b", **scaled), FOUR
    if release in ("gemma-2b-res-jb", "gemma-2b-it-res-jb"):
        return _flat(hook, one.model, **(scaled if "norm_scaling_factor" in one.row else {})), FOUR
    if release == "llama-3-8b-it-res-jh":
        return _flat(hook, "meta-llama/Meta-Llama-3-8B-Instruct"), FOUR
    return _nested(hook, one.model), FIVE


def sae_lens(root: Path, one: Published) -> None:
    config, names = _sae_lens_config(one)
    _json(root / one.path / "cfg.json", config)
    stored = P | {"scaling_factor": torch.ones(D_SAE)}
    _tensors(root / one.path / "sae_weights.safetensors", {name: stored[name] for name in names})
    _tensors(root / one.path / "sparsity.safetensors", {"sparsity": torch.zeros(D_SAE)})


def connor_rob_hook_z(root: Path, one: Published) -> None:
    hook = one.id.replace("hook_z", "attn.hook_z")
    config = {"model_name": "gpt2-small", "act_name": hook, "site": "z", "layer": one.id.split(".")[1], "head": "cat"}
    config |= {"act_size": D_IN, "dict_size": D_SAE, "seq_len": 128, "seed": 49, "batch_size": 4096, "l1_coeff": 1.8}
    _json(root / f"{one.path.split('.pt')[0]}_cfg.json", config | {"concat_heads": True, "enc_dtype": "fp32"})
    _tensors(root / one.path, {name: P[name] for name in FOUR})


def llama_scope(root: Path, one: Published) -> None:
    found = re.search(r"-L(\d+)([AMR])-", one.path)
    assert found is not None
    place = {"A": "hook_attn_out", "M": "hook_mlp_out", "R": "hook_resid_post"}[found[2]]
    hook, norm = f"blocks.{found[1]}.{place}", D_IN**0.5 / one.row["norm_scaling_factor"]
    config = {"hook_point_in": hook, "hook_point_out": hook, "d_model": D_IN, "d_sae": D_SAE, "expansion_factor": 8}
    config |= {"act_fn": "jumprelu", "jump_relu_threshold": 0.75390625, "norm_activation": "dataset-wise", "top_k": 50}
    config |= {"dataset_average_activation_norm": {"in": norm, "out": norm}, "sparsity_include_decoder_norm": True}
    config |= {"use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "use_glu_encoder": False}
    config |= {"decoder_exactly_fixed_norm": False, "bias_init_method": "all_zero", "seed": 42}
    _json(root / one.path / "hyperparams.json", config | {"device": "cuda:0", "dtype": "torch.bfloat16"})
    _tensors(root / one.path / "checkpoints" / "final.safetensors", LINEAR)


def llama_scope_r1_distill(root: Path, one: Published) -> None:
    hook = f"blocks.{one.layer}.hook_resid_post"
    config = {"sae_type": "sae", "hook_point_in": hook, "hook_point_out": hook, "d_model": D_IN, "act_fn": "jumprelu"}
    config |= {"expansion_factor": D_SAE // D_IN, "norm_activation": "dataset-wise", "use_decoder_bias": True}
    config |= {"sparsity_include_decoder_norm": True, "top_k": 50, "use_glu_encoder": False}
    _json(root / one.path / "config.json", config)
    norm = torch.tensor(D_IN**0.5 / one.row["norm_scaling_factor"])
    thresholds = {"log_jumprelu_threshold": P["threshold"].log(), f"dataset_average_activation_norm.{hook}": norm}
    _tensors(root / one.path / "sae_weights.safetensors", LINEAR | thresholds)


CLASSES = {
    "_gated_": "GatedAutoEncoder",
    "_topk_": "AutoEncoderTopK",
    "_vanilla_": "AutoEncoder",
    "_panneal_": "AutoEncoder",
    "_standard_": "AutoEncoder",
    "saebench": "MatryoshkaBatchTopKSAE",
    "": "BatchTopKSAE",
}
"""dictionary_learning's class, by a part of the release's name. The first that is found counts."""

OWNERS = {"pythia-70m-deduped": "EleutherAI/pythia-70m-deduped", "gemma-2-2b": "google/gemma-2-2b"}


def dictionary_learning_1(root: Path, one: Published) -> None:
    kind = next(name for part, name in CLASSES.items() if part in one.release)
    trainer: dict[str, Any] = {"trainer_class": "T", "dict_class": kind, "lr": 1e-4, "steps": 100, "layer": one.layer}
    trainer |= {"activation_dim": D_IN, "dict_size": D_SAE, "lm_name": OWNERS.get(one.model, one.model)}
    trainer |= {"submodule_name": f"resid_post_layer_{one.layer}", "wandb_name": "w", "device": "cuda:0"}
    linear = {"encoder.weight": P["W_enc"].T, "decoder.weight": P["W_dec"].T}
    if kind == "GatedAutoEncoder":
        gates = {"r_mag": P["b_enc"], "gate_bias": -P["b_enc"], "mag_bias": P["threshold"]}
        stored = linear | gates | {"decoder_bias": P["b_dec"]}
    elif kind == "AutoEncoder":
        stored = linear | {"encoder.bias": P["b_enc"], "bias": P["b_dec"]}
    elif kind == "MatryoshkaBatchTopKSAE":
        stored = {name: P[name] for name in FOUR} | {"group_sizes": torch.tensor([6, 10])}
    else:
        stored = linear | {"encoder.bias": P["b_enc"], "b_dec": P["b_dec"]}
    if "TopK" in kind:
        trainer["k"] = K
        stored |= {"k": torch.tensor(K), "threshold": torch.tensor(0.9)}
    buffer = {"d_submodule": D_IN, "io": "out", "n_ctxs": 3000, "ctx_len": 128, "refresh_batch_size": 32}
    _json(root / one.path / "config.json", {"trainer": trainer, "buffer": buffer | {"out_batch_size": 2048}})
    _json(root / one.path / "eval_results.json", {"frac_variance_explained": 0.8})
    _tensors(root / one.path / "ae.pt", stored)


def goodfire(root: Path, one: Published) -> None:
    _tensors(root / one.path, {re.sub(r"coder\.", "coder_linear.", name): part for name, part in LINEAR.items()})


def deepseek_r1(root: Path, one: Published) -> None:
    _tensors(root / one.path, LINEAR)


def qwen_scope(root: Path, one: Published) -> None:
    found = re.search(r"L0_(\d+)", one.repository)
    assert found is not None
    config = {"model_type": "topk_sae", "base_model": one.model, "d_model": D_IN, "d_sae": D_SAE, "k": K}
    _json(root / "config.json", config | {"num_layers": 28, "hook_point": "resid_post", "dtype": "float32"})
    turned = {name: P[name].T if name[0] == "W" else P[name] for name in FOUR}
    _tensors(root / one.path, turned)


def _yaml(path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))


def mwhanna_transcoder(root: Path, one: Published) -> None:
    """Those of the 14B model come without config.yaml; SAELens' loader knows the misspelt name, of which repository it
    does not say."""
    size = one.model.removeprefix("qwen3-").upper()
    hooks = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}
    if size != "14B":
        _yaml(root / "config.yaml", {"model_name": f"Qwen/Qwen3-{size}", "model_kind": "transcoder_set", **hooks})
    run = {"d_model": D_IN, "d_feature": D_SAE, "batch_size": 8192, "act_fn": "relu"}
    name = "wanb-config.yaml" if size == "8B" else "wandb-config.yaml"
    _yaml(root / name, {key: {"value": value} for key, value in run.items()})
    _tensors(root / one.path, {name: P[name].T if name == "W_enc" else P[name] for name in FOUR})


def mntss_clt_layer_transcoder(root: Path, one: Published) -> None:
    """A row's path is the number of the layer. W_dec has an entry for each layer from that one to the last."""
    hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
    _yaml(root / "config.yaml", {"model_name": "google/gemma-2-2b", "model_kind": "cross_layer_transcoder", **hooks})
    stored = {f"{name}_{one.path}": P[name] for name in ("b_enc", "b_dec")}
    _tensors(root / f"W_enc_{one.path}.safetensors", stored | {f"W_enc_{one.path}": P["W_enc"].T})
    onward = torch.stack([P["W_dec"].roll(i, 0) for i in range(26 - int(one.path))], 1)
    _tensors(root / f"W_dec_{one.path}.safetensors", {f"W_dec_{one.path}": onward})


def temporal(root: Path, one: Published) -> None:
    (root / one.path).mkdir(parents=True, exist_ok=True)
    (root / one.path / "conf.yaml").write_text(f"llm:\n  dimin: {D_IN}\nsae:\n  exp_factor: {D_SAE / D_IN}\n")
    stored = {"D": P["W_dec"], "E": P["W_enc"], "b": P["b_dec"], "attn_layers.0.k.weight": torch.eye(D_IN)}
    _tensors(root / one.path / "latest_ckpt.safetensors", stored)


LAYOUTS: dict[str, Callable[[Path, Published], None]] = {
    "sae_lens": sae_lens,
    "gemma_2": gemma_2,
    "gemma_2_transcoder": gemma_2,
    "gemma_3": gemma_3,
    "connor_rob_hook_z": connor_rob_hook_z,
    "llama_scope": llama_scope,
    "llama_scope_r1_distill": llama_scope_r1_distill,
    "dictionary_learning_1": dictionary_learning_1,
    "goodfire": goodfire,
    "deepseek_r1": deepseek_r1,
    "qwen_scope": qwen_scope,
    "mwhanna_transcoder": mwhanna_transcoder,
    "mntss_clt_layer_transcoder": mntss_clt_layer_transcoder,
    "temporal": temporal,
}
"""By the name of SAELens' loader: what writes a row's part of its repository into a folder."""
