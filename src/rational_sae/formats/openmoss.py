"""OpenMOSS: Llama Scope, its R1 distillation, and what llamascopium (before: lm-saes) saves today.

With n_j the norm of decoder row j and s = √d_in over the mean norm of the activations that it was trained on:
h = W_encᵀ(s·x) + b_enc, z = h where h·n passes the gate, x̂ = (W_decᵀz + b_dec)/s; b_dec is *not* subtracted. s is
folded into the weights here. (models/sae.py of llamascopium 2, and for Llama Scope sae.py of lm-saes in November 2024.)

files                                        threshold of a JumpReLU
hyperparams.json, checkpoints/final.*        one, in units of x: h·n > s·jump_relu_threshold
config.json, sae_weights.safetensors         one a latent: h·n > exp(log_jumprelu_threshold)

SAELens' loader of Llama Scope leaves out n: the two agree where decoder rows have norm 1.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from rational_sae.errors import SourceError
from rational_sae.formats.checked import Config, Tensors, Weights, fold_decoder_norm, read_config
from rational_sae.formats.containers import Contents
from rational_sae.formats.statements import warnings_of
from rational_sae.gates.base import Gate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata, Normalisation

FORMAT = "OpenMOSS"
CONFIGS = ("hyperparams.json", "config.json")
MODEL_CONFIG = "lm_config.json"
"""Beside it in some releases: the language model's name."""
CHECKPOINTS = "checkpoints"
"""The folder in which Llama Scope keeps its weights, below the config's."""

LINEAR = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "decoder.weight.T", "b_dec": "decoder.bias"}
PLAIN = {"W_enc": "W_E", "b_enc": "b_E", "W_dec": "W_D", "b_dec": "b_D"}
THRESHOLDS = ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")
NORM = "dataset_average_activation_norm"

REFUSED = {
    "use_glu_encoder": "its encoder has a second matrix as a gate; use an SAE without one",
}
"""Flags of the config that change the formula to one that no SAE here computes."""


def recognises(contents: Contents) -> bool:
    """Whether a file is OpenMOSS'; dictionary_learning has tensors of the same names, and no config of these."""
    names = contents.shapes.keys()
    if {"W_E", "W_D"} <= names or any(name in names for name in THRESHOLDS):
        return True
    return {"encoder.weight", "decoder.weight"} <= names and _config_path(contents.path) is not None


def read(contents: Contents) -> SAE:
    """The SAE of a file of weights and the config in its folder or the one above."""
    path = _config_path(contents.path)
    if path is None:
        raise SourceError(
            f"{contents.path.parent / CONFIGS[1]}: no such file, and without it the formula is unknown",
            f"put {' or '.join(CONFIGS)} beside the weights",
        )
    config, tensors = read_config(path), Tensors(contents)
    _refuse(config)
    plain = "W_E" in tensors
    if not config.flag("use_decoder_bias", True):
        raise SourceError(f"{path}: use_decoder_bias false is not supported", "use an SAE with a decoder bias")
    d_in = config.count("d_model")
    weights = tensors.weights(PLAIN if plain else LINEAR, d_in, _width(config, d_in))
    normalisation, scale = _normalisation(config, tensors)
    gate = _gate(config, tensors, weights, scale)
    tensors.all_read()
    metadata = _metadata(contents, path, config, gate.family)
    sae = SAE(
        **weights,
        gate=gate,
        apply_b_dec_to_input=config.flag("apply_decoder_bias_to_pre_encoder", False),
        normalisation=normalisation,
        metadata=metadata,
    )
    if scale is not None:
        sae.rescale_input_(1 / scale)
    elif config.word("norm_activation") == "dataset-wise":
        metadata.extra["normalize_activations"] = "expected_average_only_in"  # SAELens' word for it
        metadata.warnings.append(
            f"{path}: normalize_activations is dataset-wise, and the norm is not in the files; x is read as it is"
        )
    return sae


def _config_path(weights: Path) -> Path | None:
    """The config of a file of weights: one that names an activation function, beside it or above `checkpoints`."""
    folders = [weights.parent]
    if weights.parent.name == CHECKPOINTS:
        folders.append(weights.parent.parent)
    for path in (folder / name for folder in folders for name in CONFIGS):
        if os.path.lexists(path) and {"act_fn", "hook_point_in"} & read_config(path).numbers.keys():
            return path
    return None


def _refuse(config: Config) -> None:
    """Raise SourceError for what reads, or predicts, anything but one place through one matrix."""
    kind = config.word("sae_type")
    if kind not in (None, "sae"):
        raise SourceError(f"{config.path}: sae_type {kind[:80]!r} is not supported", "use a plain SAE")
    into, out = config.word("hook_point_in"), config.word("hook_point_out")
    if out not in (None, into):
        raise SourceError(
            f"{config.path}: a transcoder from {str(into)[:80]} to {out[:80]}",
            "use an SAE: a transcoder predicts other activations than it reads",
        )
    for flag, remedy in REFUSED.items():
        if config.flag(flag, False):
            raise SourceError(f"{config.path}: {flag} is not supported", remedy)


def _width(config: Config, d_in: int) -> int:
    """d_sae; where it is not said, so many times d_in."""
    if config.numbers.get("d_sae") is not None:
        return config.count("d_sae")
    expansion = config.number("expansion_factor", 0.0)
    if not 0 < expansion * d_in < 2**40:
        raise config.wrong("expansion_factor", "a positive number")
    return round(expansion * d_in) if abs(expansion * d_in - round(expansion * d_in)) < 1e-6 else int(expansion * d_in)


def _normalisation(config: Config, tensors: Tensors) -> tuple[Normalisation, float | None]:
    """The normalisation of each token, and the factor s of all, where it is known."""
    stored = {name: tensors.get(name) for name in tensors.contents.shapes if name.startswith(f"{NORM}.")}
    name = config.word("norm_activation")
    if name in ("inference", "none"):
        return "none", None
    if name == "token-wise":
        return "constant_norm_rescale", None
    if name != "dataset-wise":
        raise config.wrong("norm_activation", "dataset-wise, token-wise, inference or none")
    said = config.inner(NORM, optional=True).numbers
    hook = config.word("hook_point_in")
    if f"{NORM}.{hook}" in stored:
        norm = float(stored[f"{NORM}.{hook}"])
    elif stored:
        raise SourceError(f"{tensors.path}: {NORM} is of another place than {str(hook)[:80]}", "check the config")
    elif "in" in said:
        norm = Config(config.path, said).number("in", 0.0)
    else:
        return "none", None
    if norm <= 0:
        raise SourceError(f"{config.path}: {NORM} is {norm}, expected a positive number", "save the SAE again")
    return "none", config.count("d_model") ** 0.5 / norm


def _gate(config: Config, tensors: Tensors, weights: Weights, scale: float | None) -> Gate:
    """The gate. Folds a TopK's decoder norms into `weights`."""
    d_sae = weights["W_enc"].shape[1]
    act, one = config.word("act_fn"), config.number("jump_relu_threshold", 0.0)
    stored = next((name for name in THRESHOLDS if name in tensors), None)
    if stored and act != "jumprelu":
        raise SourceError(f"{config.path}: act_fn is {str(act)[:80]!r}, but the weights hold {stored}", "check which")
    by_norm = config.flag("sparsity_include_decoder_norm", True)
    if act == "relu":
        return ReLUGate()
    if act == "topk" and one <= 0:
        if by_norm:
            fold_decoder_norm(weights)
        return TopKGate(Config(config.path, {"k": config.numbers.get("top_k")}).k(d_sae))
    if act not in ("jumprelu", "topk"):  # its owner reads a TopK that has a threshold as a JumpReLU
        raise SourceError(f"{config.path}: act_fn {str(act)[:80]!r} is not supported", "use relu, jumprelu or topk")
    if stored:
        threshold: Tensor = tensors.get(stored, d_sae).exp()
    elif "jump_relu_threshold" in config.numbers:
        threshold = torch.full((d_sae,), max(one, 0.0) * (scale or 1.0))
    else:
        raise SourceError(f"{config.path}: jump_relu_threshold is missing, expected a number", "save the SAE again")
    norm = weights["W_dec"].norm(dim=-1)
    return ThresholdGate(threshold / norm.where(norm > 0, 1.0) if by_norm else threshold)


def _metadata(contents: Contents, path: Path, config: Config, family: str) -> Metadata:
    found = Metadata(source=str(contents.path), format=FORMAT, family=family, extra={"config": config.numbers})
    found.hook_name = config.word("hook_point_in")
    found.warnings = warnings_of(path, FORMAT, config.numbers)
    model = path.parent / MODEL_CONFIG
    if os.path.lexists(model):
        found.model_name = read_config(model).word("model_name")
    return found
