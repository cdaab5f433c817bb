"""circuit-tracer: per-layer transcoders of MLPs, one `layer_N.safetensors` for each, and one config.yaml for all.

Hanna's of Qwen 3 (`mwhanna/qwen3-*-transcoders`) and `mntss/transcoder-Llama-3.2-1B` are such.

h = W_enc x + b_enc with W_enc: [d_sae, d_in] as it is stored, z = relu(h); h·[h > θ] where the file has thresholds.
ŷ = W_decᵀz + b_dec + W_skip x (transcoder/single_layer_transcoder.py). It reads `blocks.N.` and config.yaml's
feature_input_hook, and predicts feature_output_hook.

Cross-layer ones lie in `W_enc_N.safetensors` and `W_dec_N.safetensors`, whose W_dec: [d_sae, layers from N on, d_out].
They are refused, but for those that SAELens' table has "as per layer": of these it sums what a latent writes to all
layers. Codes are then the owner's; what is reconstructed is of no one layer, and a warning says so.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from torch import Tensor

from rational_sae.errors import SourceError
from rational_sae.formats.checked import Config, Tensors, Weights, read_yaml
from rational_sae.formats.containers import Contents
from rational_sae.formats.repositories import CROSS_LAYER
from rational_sae.formats.statements import warnings_of
from rational_sae.gates.base import Gate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.model import SAE, Metadata

FORMAT = "circuit-tracer"
CONFIG = "config.yaml"
RUNS = ("wandb-config.yaml", "wanb-config.yaml")
"""Records of training beside it, one of them misspelt. circuit-tracer does not read them; here they are evidence."""
SHAPE = ("d_model", "d_feature")
"""d_in and d_sae, in a record of training."""
ACTIVATION = "act_fn"
"""There, what config.yaml calls activation."""
OTHERS = "cfg.json"
"""SAELens' config: beside it tensors of these names are SAELens'."""

WEIGHTS = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
SKIP, THRESHOLD = "W_skip", "activation_function.threshold"
LAYER = re.compile(r"layer_(\d+)\.\w+")
PER_LAYER = "transcoder_set"
ACROSS = re.compile(r"(W_enc|W_dec)_\d+")
"""Tensors of a cross-layer transcoder."""

NAMES = {"relu": ("relu",), "jumprelu": ("jump_relu", "jumprelu")}
"""What configs call the gate of a family."""


def recognises(contents: Contents) -> bool:
    """Whether a file is circuit-tracer's: by its tensors, which SAELens calls alike, and a config.yaml or a record of
    training beside them."""
    names, folder = contents.shapes.keys(), contents.path.parent
    if any(ACROSS.fullmatch(name) for name in names):
        return True
    if not set(WEIGHTS) <= names or os.path.lexists(folder / OTHERS):
        return False
    return _config(folder) is not None or any(os.path.lexists(folder / name) for name in RUNS)


def read(contents: Contents) -> SAE:
    """The transcoder of one layer. Raises SourceError for a cross-layer one."""
    if any(ACROSS.fullmatch(name) for name in contents.shapes):
        raise SourceError(f"{contents.path}: {CROSS_LAYER}", "use a per-layer one")
    config = _config(contents.path.parent) or Config(contents.path, {})
    kind = config.word("model_kind")
    if kind not in (None, PER_LAYER):
        what = CROSS_LAYER if kind == "cross_layer_transcoder" else f"model_kind {kind[:80]!r} is not supported"
        raise SourceError(f"{config.path}: {what}", f"use one of {PER_LAYER}")
    tensors, run = Tensors(contents), _run(contents.path.parent)
    d_in, d_sae = (run.inner(key).count("value") if key in run.numbers else None for key in SHAPE)
    d_out = tensors.shape("W_dec", 2)[1]
    weights = tensors.weights(WEIGHTS, d_in, d_sae, d_out=d_out)
    W_skip = tensors.get(SKIP, d_out, weights["W_enc"].shape[0]) if SKIP in tensors else None
    gate = _gate(config, tensors, weights["W_enc"].shape[1], THRESHOLD)
    if ACTIVATION in run.numbers:
        _require_same(gate.family, run.inner(ACTIVATION).word("value"), run.path)
    tensors.all_read()
    layer = LAYER.fullmatch(contents.path.name)
    return _transcoder(contents, config, layer[1] if layer else None, weights, gate, W_skip)


def files_of(layer: str) -> tuple[str, str]:
    """Where a cross-layer transcoder has the encoder and the decoders of a layer."""
    return f"W_enc_{layer}.safetensors", f"W_dec_{layer}.safetensors"


def read_as_per_layer(encoder: Contents, decoder: Contents, layer: str) -> SAE:
    """One layer of a cross-layer transcoder with its decoders summed, as SAELens reads it."""
    config = _config(encoder.path.parent)
    if config is None:
        raise SourceError(f"{encoder.path.parent / CONFIG}: no such file, and it alone has the hooks", "put it there")
    tensors, decoders = Tensors(encoder), Tensors(decoder)
    d_sae, d_in = tensors.shape(f"W_enc_{layer}", 2)
    _, onward, d_out = decoders.shape(f"W_dec_{layer}", 3)
    weights = Weights(
        W_enc=tensors.get(f"W_enc_{layer}", d_sae, d_in).T,
        b_enc=tensors.get(f"b_enc_{layer}", d_sae),
        W_dec=decoders.get(f"W_dec_{layer}", d_sae, onward, d_out).sum(1),
        b_dec=tensors.get(f"b_dec_{layer}", d_out),
    )
    gate = _gate(config, tensors, d_sae, f"threshold_{layer}")
    tensors.all_read()
    decoders.all_read()
    found = _transcoder(encoder, config, layer, weights, gate, None)
    found.metadata.warnings.append(
        f"{encoder.path}: a layer of a cross-layer transcoder, read as SAELens does: what its latents write to {onward}"
        " layers is summed. Codes are right; the reconstruction is of no one layer until it is trained"
    )
    return found


def _config(folder: Path) -> Config | None:
    """The config.yaml of a folder, if it is circuit-tracer's."""
    path = folder / CONFIG
    if not os.path.lexists(path):
        return None
    config = read_yaml(path)
    return config if {"feature_input_hook", "model_kind", "model_name"} & config.numbers.keys() else None


def _run(folder: Path) -> Config:
    """The record of training, if there is one."""
    for path in (folder / name for name in RUNS):
        if os.path.lexists(path):
            return read_yaml(path)
    return Config(folder, {})


def _gate(config: Config, tensors: Tensors, d_sae: int, threshold: str) -> Gate:
    """A JumpReLU if there are thresholds, else a ReLU. Raises SourceError if config.yaml says otherwise, and for a
    negative threshold, whose codes would be negative."""
    named, stored = config.word("activation"), threshold in tensors
    family = "jumprelu" if stored else "relu"
    if named == "topk":
        raise SourceError(f"{config.path}: a topk that keeps negative codes is not supported", "use relu or jump_relu")
    _require_same(family, named, config.path)
    config.without_k(f"a {family}")
    if not stored:
        return ReLUGate()
    found = tensors.get(threshold, d_sae)
    if (found < 0).any():
        raise SourceError(f"{tensors.path}: {threshold} has negative entries", "use one whose codes are positive")
    return ThresholdGate(found)


def _require_same(family: str, named: str | None, path: Path) -> None:
    if named not in (None, *NAMES[family]):
        raise SourceError(f"{path}: the activation is {named[:80]!r}, but the file is a {family}", "use another")


def _transcoder(
    contents: Contents, config: Config, layer: str | None, weights: Weights, gate: Gate, W_skip: Tensor | None
) -> SAE:
    into, out = (
        f"blocks.{layer}.{hook}" if layer is not None and (hook := config.word(f"feature_{side}_hook")) else None
        for side in ("input", "output")
    )
    metadata = Metadata(
        source=str(contents.path),
        format=FORMAT,
        family=gate.family,
        model_name=config.word("model_name"),
        hook_name=into,
        hook_name_out=out,
        extra={"config": config.numbers},
        warnings=warnings_of(config.path, FORMAT, config.numbers),
    )
    return SAE(**weights, gate=gate, apply_b_dec_to_input=False, transcodes=True, W_skip=W_skip, metadata=metadata)
