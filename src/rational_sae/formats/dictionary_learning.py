"""dictionary_learning: a state dict in `ae.pt`, and the trainer's `config.json` beside it.

class                     tensors                                         code
AutoEncoder               bias, encoder.{weight, bias}, decoder.weight    relu(h), h = W_encᵀ(x − bias) + b_enc
AutoEncoderNew            encoder.{weight, bias}, decoder.{weight, bias}  relu(h), nothing subtracted
AutoEncoderTopK           b_dec, encoder.*, decoder.weight, k             the k largest of relu(h), b_dec subtracted
BatchTopKSAE              the same, and threshold                         relu(h)·[h > threshold], b_dec subtracted
MatryoshkaBatchTopKSAE    W_*, b_*, k, threshold, group_sizes             the same
JumpReluAutoEncoder       W_*, b_*, threshold [d_sae]                     relu(h)·[h > threshold], nothing subtracted
GatedAutoEncoder          encoder.weight, decoder.weight, decoder_bias,   [y > −gate_bias]·relu(e^r_mag·y + mag_bias),
                          r_mag, gate_bias, mag_bias                      y = W_encᵀ(x − decoder_bias): a JumpReLU in
                                                                          other words, and read as one

(dictionary.py and trainers/*.py of version 0.1.0.) AutoEncoderTopK has a threshold too, and does not use it. So TopK
and BatchTopK differ in config.json alone, and a file of theirs without it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import torch

from rational_sae.data.hook_names import residual_name
from rational_sae.errors import SourceError
from rational_sae.formats.checked import Config, Tensors, Weights, config_beside, fold_gated
from rational_sae.formats.containers import Contents
from rational_sae.formats.statements import warnings_of
from rational_sae.gates.base import Gate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata

FORMAT = "dictionary_learning"
CONFIG = "config.json"

LINEAR = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "decoder.weight.T"}
PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}

WEIGHTS = {
    "AutoEncoder": LINEAR | {"b_dec": "bias"},
    "AutoEncoderNew": LINEAR | {"b_dec": "decoder.bias"},
    "AutoEncoderTopK": LINEAR | {"b_dec": "b_dec"},
    "BatchTopKSAE": LINEAR | {"b_dec": "b_dec"},
    "MatryoshkaBatchTopKSAE": PLAIN,
    "JumpReluAutoEncoder": PLAIN,
    "GatedAutoEncoder": LINEAR | {"b_enc": "mag_bias", "b_dec": "decoder_bias"},
}
"""What each class calls the four tensors."""

NOT_SUBTRACTED = ("AutoEncoderNew", "JumpReluAutoEncoder")

FOLDER = re.compile(r"(resid|mlp|attn)_(?:out_|post_|pre_)?layer_?\d+")
"""How its published dictionaries name the folder of a place: mlp_out_layer1."""


def recognises(names: Collection[str], container: str) -> bool:
    """Whether a file with tensors of these names is dictionary_learning's; OpenAI's and sparsify's are told before."""
    linear = {"encoder.weight", "decoder.weight"} <= set(names)
    return linear or (container == "torch" and {"W_enc", "W_dec", "threshold"} <= set(names))


def read(contents: Contents) -> SAE:
    """The SAE of a file of weights and, where it is there, the config.json beside it."""
    config = config_beside(contents.path, CONFIG)
    trainer = config.inner("trainer") if config else Config(contents.path, {})
    if contents.container == "safetensors" and not trainer.numbers:
        raise SourceError(
            f"{contents.path}: encoder and decoder in safetensors, whose gate only a config can name",
            f"put its trainer's {CONFIG} beside it, or OpenMOSS' hyperparams.json",
        )
    tensors = Tensors(contents)
    kind = _class(tensors, trainer)
    weights = tensors.weights(WEIGHTS[kind])
    gate = _gate(kind, tensors, trainer, weights)
    tensors.all_read()
    if kind == "AutoEncoder":
        _normalise_decoder(weights)
    family = gate.family
    metadata = _metadata(contents, config, trainer, family)
    metadata.extra["dict_class"] = kind
    if "k" in tensors:
        metadata.extra["k"] = tensors.integer("k")  # what a BatchTopK was trained for, beside its threshold
    return SAE(**weights, gate=gate, apply_b_dec_to_input=kind not in NOT_SUBTRACTED, metadata=metadata)


def _class(tensors: Tensors, trainer: Config) -> str:
    """The class of a file: what its tensors say, and for TopK and BatchTopK the config."""
    named = trainer.word("dict_class")
    if named is not None and named not in WEIGHTS:
        raise SourceError(f"{trainer.path}: dict_class {named[:80]!r} is not supported", f"read: {', '.join(WEIGHTS)}")
    found = _by_tensors(tensors)
    if not found:
        names = ", ".join(sorted(tensors.contents.shapes))[:300]
        raise SourceError(f"{tensors.path}: tensors of no class that is read ({names})", f"read: {', '.join(WEIGHTS)}")
    if named is None and len(found) > 1:
        raise SourceError(
            f"{tensors.path}: {' or '.join(found)}: they store the same tensors, and compute different codes",
            f"put the trainer's {CONFIG} beside it",
        )
    if named is not None and named not in found:
        raise SourceError(
            f"{trainer.path}: dict_class is {named}, but the tensors are those of {found[0]}",
            "check that the config belongs to the weights",
        )
    return named or found[0]


def _by_tensors(tensors: Tensors) -> list[str]:
    if "W_enc" in tensors:
        return ["MatryoshkaBatchTopKSAE" if "group_sizes" in tensors else "JumpReluAutoEncoder"]
    if "decoder_bias" in tensors:
        return ["GatedAutoEncoder"]
    if "bias" in tensors:
        return ["AutoEncoder"]
    if "decoder.bias" in tensors:
        return ["AutoEncoderNew"]
    if "b_dec" not in tensors:
        return []
    return ["AutoEncoderTopK", "BatchTopKSAE"] if "threshold" in tensors else ["AutoEncoderTopK"]


def _gate(kind: str, tensors: Tensors, trainer: Config, weights: Weights) -> Gate:
    """The gate. Folds what a GatedAutoEncoder has more into `weights`."""
    d_sae = weights["W_enc"].shape[1]
    if kind in ("AutoEncoder", "AutoEncoderNew"):
        trainer.without_k("a ReLU")
        return ReLUGate()
    if kind == "GatedAutoEncoder":
        trainer.without_k("a gated SAE")
        return ThresholdGate(fold_gated(weights, tensors.get("r_mag", d_sae), tensors.get("gate_bias", d_sae)))
    if kind == "JumpReluAutoEncoder":
        return ThresholdGate(tensors.get("threshold", d_sae).clamp_min(0.0))
    k = _k(tensors, trainer, d_sae)
    if kind == "MatryoshkaBatchTopKSAE":
        tensors.ignore("group_sizes")  # groups are nested prefixes in training; at inference all are active
    if kind == "AutoEncoderTopK":
        tensors.ignore("threshold")
        return TopKGate(k)
    # Before a threshold was learned it is −1, and all that is positive passes, as in the owner's own code.
    return ThresholdGate(tensors.get("threshold").clamp_min(0.0).expand(d_sae))


def _k(tensors: Tensors, trainer: Config, d_sae: int) -> int:
    """The k of the weights or, in old files, of the config; they must agree."""
    if "k" not in tensors:
        return trainer.k(d_sae)
    k = tensors.integer("k")
    if not 0 < k <= d_sae:
        raise SourceError(f"{tensors.path}: k is {k}, expected 1 to d_sae, {d_sae}", "download it again")
    if "k" in trainer.numbers and trainer.count("k") != k:
        raise SourceError(f"{trainer.path}: k is {trainer.count('k')}, in the weights it is {k}", "check which belongs")
    return k


def _normalise_decoder(weights: Weights) -> None:
    """Decoder rows of norm 1, the same reconstructions: AutoEncoder.from_pretrained does this by default."""
    norm = weights["W_dec"].norm(dim=-1)
    if torch.allclose(norm, torch.ones(())):
        return
    norm = norm.where(norm > 0, 1.0)  # a dead row stays as it is; the owner's code divides by 0
    weights["W_dec"] = weights["W_dec"] / norm[:, None]
    weights["W_enc"] = weights["W_enc"] * norm
    weights["b_enc"] = weights["b_enc"] * norm


def _metadata(contents: Contents, config: Config | None, trainer: Config, family: str) -> Metadata:
    found = Metadata(source=str(contents.path), format=FORMAT, family=family, model_name=trainer.word("lm_name"))
    buffer = config.inner("buffer", optional=True) if config else trainer
    layer = trainer.numbers.get("layer")
    if isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0:
        # A submodule is named for what it is, "resid_post_layer_8"; in early runs not at all, or by a folder above.
        named = trainer.word("submodule_name") or _folder_name(contents.path) or f"resid_post_layer_{layer}"
        found.hook_name = residual_name(named, layer, side=buffer.word("io")) or named
    if config is not None:
        found.warnings = warnings_of(config.path, FORMAT, config.numbers, trainer.numbers, buffer.numbers)
        found.context_size = buffer.count("ctx_len") if "ctx_len" in buffer.numbers else None
        found.extra = {"config": config.numbers}
    return found


def _folder_name(path: Path) -> str | None:
    """The place that one of the folders above a file is named for."""
    return next((folder.name for folder in path.parents[:3] if FOLDER.fullmatch(folder.name)), None)
