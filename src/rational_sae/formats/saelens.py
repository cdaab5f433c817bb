"""SAELens' folders (cfg.json and sae_weights.safetensors), and our own architecture "rational" in them.

Versions 5 and 6. Reads what SAELens computes at inference, without importing it.
What it cannot represent, it refuses by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rational_sae.data.hook_names import parse
from rational_sae.errors import FitError, HostError, SourceError
from rational_sae.formats.checked import (
    Config,
    Tensors,
    Weights,
    config_beside,
    fold_decoder_norm,
    fold_gated,
    read_config,
)
from rational_sae.formats.containers import Contents, open_tensors
from rational_sae.formats.residue import SUFFIX
from rational_sae.formats.statements import other_weights, warnings_of
from rational_sae.gates.base import Gate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.registry import kind_of
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.cfg import CENTRING, KWARGS
from rational_sae.sae.looks import UNIT, Looks
from rational_sae.sae.model import SAE, Metadata, Normalisation

FORMAT = "SAELens"
CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"

FAMILIES = {
    "standard": "relu",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "gated": "jumprelu",
    "rational": "rational",
}
"""Architectures that are read, and the family each belongs to."""

TRANSCODERS = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
    "topk_transcoder": "topk",
    "topk_skip_transcoder": "topk",
    "rational_transcoder": "rational",
    "rational_skip_transcoder": "rational",
}
"""Transcoders that are read, and the architecture whose gate each has. SAELens has none with a TopK."""

IDENTITIES = {
    "expected_average_only_in": "x scaled to mean norm √d_in",
    "covariance_whitening": "whitened x",
}
"""Normalisations that SAELens leaves out at inference, because it folds them into the weights of a finished SAE, which
then no longer states them. What weights read that still do."""

RESHAPES = ("none", "hook_z")
"""hook_z: SAELens is given heads apart and lays them side by side, as x is here in any case."""

METADATA = ("model_name", "hook_name", "context_size", "prepend_bos", "hook_name_out")

FLAT = (
    *METADATA,
    "model_class_name",
    "hook_head_index",
    "model_from_pretrained_kwargs",
    "exclude_special_tokens",
    "neuronpedia_id",
    "seqpos_slice",
    "dataset_path",
    "hf_hook_name",
)
"""What version 5 keeps at the top level of its config and version 6 in `metadata`."""

RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}


def recognises(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names may be SAELens'. Others that look alike are told before."""
    return len({"W_enc", "b_enc", "W_dec", "b_dec"} & set(names)) >= 2


def read_saelens(folder: Path) -> SAE:
    """The SAE in a folder that SAELens, or `export.save`, wrote."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder", "name a folder that holds an SAE")
    config = read_config(folder / CONFIG)  # the file that says most is read first
    return read(open_tensors(folder / WEIGHTS), config)


def read(contents: Contents, config: Config | None = None) -> SAE:
    """The SAE of a file of weights and the config beside it."""
    config = config or config_beside(contents.path, CONFIG)
    if config is None:
        raise SourceError(
            f"{contents.path.parent / CONFIG}: no such file, and without it the formula is unknown",
            "put the config that SAELens saved beside the weights",
        )
    if isinstance(trainer := config.numbers.get("trainer"), dict) and "dict_class" in trainer:
        raise SourceError(
            f"{config.path} is dictionary_learning's ({trainer['dict_class']!s:.80}), and tensors of it are missing",
            "get the whole file",
        )
    given = config
    config = _modern(given)
    _refuse_other_inputs(config)
    family = _family(config)
    tensors = Tensors(contents)
    d_in, d_sae = (config.count(key) if key in config.numbers else None for key in ("d_in", "d_sae"))
    names = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if config.numbers["architecture"] == "gated":
        names["b_enc"] = "b_mag"
    transcodes = config.numbers["architecture"] in TRANSCODERS
    d_out = config.count("d_out") if transcodes else None
    weights = tensors.weights(names, d_in, d_sae, d_out=d_out)
    skips = "skip_" in config.numbers["architecture"]
    W_skip = tensors.get("W_skip", weights["W_dec"].shape[1], weights["W_enc"].shape[0]) if skips else None
    _fold_scaling_factor(config, tensors, weights)
    gate = _gate(config, tensors, weights)
    looks = _looks(config, gate, tensors, weights["W_enc"].shape[1])
    tensors.all_read()
    normalisation, extra = _normalisation(config)
    kwargs = config.inner("metadata").inner(KWARGS, optional=True)
    metadata = _metadata(config, family, extra)
    metadata.warnings = _warnings(given, kwargs, extra)
    metadata.model_weights = other_weights(kwargs.numbers)
    return SAE(
        **weights,
        gate=gate,
        apply_b_dec_to_input=not transcodes and config.flag("apply_b_dec_to_input", True),
        normalisation=normalisation,
        centred=kwargs.flag(CENTRING, False),
        metadata=metadata,
        looks=looks,
        transcodes=transcodes,
        W_skip=W_skip,
    )


def _looks(config: Config, gate: Gate, tensors: Tensors, d_sae: int) -> Looks | None:
    """Those before the last, of a rational SAE that has any."""
    given = config.numbers.get("looks")
    if given is None or gate.family != "rational":
        return None
    if not gate.has_threshold:
        raise config.wrong("looks", "nothing: this gate has no thresholds")
    try:
        return Looks.from_config(given, _exact(tensors, UNIT, d_sae))
    except FitError as error:
        raise SourceError(f"{config.path}: looks: {error.cause}", "save the SAE again") from error
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
        parts = f"floor, positive {UNIT} and, for each look, coefficients, right_slope, alpha and cut"
        raise config.wrong("looks", parts) from error


def _warnings(given: Config, kwargs: Config, left_out: dict[str, Any]) -> list[str]:
    """What the config states that is not followed. left_out: the normalisation that is an identity here, if any."""
    options = given.inner("activation_fn_kwargs", optional=True).numbers
    found = warnings_of(given.path, FORMAT, given.numbers, given.inner("metadata", optional=True).numbers, options)
    found += warnings_of(given.path, KWARGS, kwargs.numbers)
    for key, name in left_out.items():
        found.append(f"{given.path}: {key} is {name}: its weights may expect {IDENTITIES[name]}; x is read as it is")
    return found


def _modern(given: Config) -> Config:
    """A version 5 config as version 6 would write it; one of version 6 unchanged."""
    config, metadata = given.numbers, given.inner("metadata").numbers
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    major = version.partition(".")[0]
    if major.isascii() and major.isdigit() and len(major) < 4 and int(major) >= 6:
        return given
    config = {RENAMED.get(key, key): value for key, value in config.items()}
    activation = config.get("activation_fn", "relu")
    options = config.get("activation_fn_kwargs") or {}
    if activation == "relu" and isinstance(options, dict) and config.get("architecture", "standard") == "standard":
        Config(given.path, options).without_k("a ReLU")
    if activation == "topk" and isinstance(options, dict):
        config |= {"architecture": "topk", "k": options.get("k", config.get("k"))}
    elif activation not in ("relu", "topk"):
        raise SourceError(f"{given.path}: activation function {str(activation)[:80]!r} is not supported", _READS)
    config.setdefault("architecture", "standard")
    if "hook_z" in str(config.get("hook_name", "")):
        config.setdefault("reshape_activations", "hook_z")
    normalise = config.get("normalize_activations")
    if normalise is None or isinstance(normalise, bool):
        config["normalize_activations"] = "expected_average_only_in" if normalise else "none"
    if isinstance(config.get("hook_name"), str):
        config["hook_name"] = config["hook_name"].replace("{layer}", str(config.get("hook_point_layer")))
    start, end = (config.get(f"{side}_pos_offset") or None for side in ("start", "end"))
    if start or end:
        config.setdefault("seqpos_slice", [start, -end if isinstance(end, int) else end])
    flat = {key: config[key] for key in FLAT if key in config}
    return Config(given.path, config | {"metadata": {"prepend_bos": True, **flat, **metadata}})


_READS = f"architectures that are read: {', '.join(FAMILIES)}"


def _family(config: Config) -> str:
    architecture = config.numbers.get("architecture")
    if not isinstance(architecture, str):
        raise config.wrong("architecture", "a name")
    if _of_gate(architecture) not in FAMILIES:
        raise SourceError(f"{config.path}: architecture {architecture[:80]!r} is not supported", _READS)
    if config.numbers.get("reshape_activations", "none") not in RESHAPES:
        raise config.wrong("reshape_activations", " or ".join(RESHAPES))
    return FAMILIES[_of_gate(architecture)]


def _of_gate(architecture: str) -> str:
    """The architecture of SAEs with the same gate."""
    return TRANSCODERS.get(architecture, architecture)


def _refuse_other_inputs(config: Config) -> None:
    """Raise SourceError for what reads, or predicts, anything but one place of one vector a token."""
    said = config.inner("metadata").numbers | config.numbers
    if any(said.get(key) is not None for key in ("hook_head_index", "hook_head_indices")):
        raise SourceError(f"{config.path}: an SAE of one attention head", "use one of the residual stream")
    out = said.get("out_hook_point") or said.get("hook_name_out") or said.get("hook_name")
    wider = said.get("d_out") not in (None, said.get("d_in"))
    transcodes = config.numbers.get("architecture") in TRANSCODERS
    if not transcodes and (said.get("is_transcoder") or wider or out != said.get("hook_name")):
        raise SourceError(
            f"{config.path}: a transcoder, which its architecture does not say",
            f"state one of {', '.join(TRANSCODERS)}",
        )
    if any(isinstance(said.get(key), list) and len(said[key]) > 1 for key in ("hook_names", "hook_layers")):
        raise SourceError(f"{config.path}: a crosscoder, which reads several places at once", "use an SAE of one place")


def _fold_scaling_factor(config: Config, tensors: Tensors, weights: Weights) -> None:
    """Move the factor that SAELens up to version 5 fine-tuned on each code's way to the decoder into W_dec."""
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name not in tensors:
            continue
        factor = tensors.get(name, weights["W_enc"].shape[1])
        if torch.allclose(factor, torch.ones(())):
            continue
        if not config.flag("finetuning_scaling_factor", False):
            raise SourceError(
                f"{tensors.path}: {name} is not 1, but {config.path.name} does not say finetuning_scaling_factor",
                "check that the config belongs to the weights",
            )
        weights["W_dec"] = weights["W_dec"] * factor[:, None]


def _gate(config: Config, tensors: Tensors, weights: Weights) -> Gate:
    """The gate. Folds a TopK's decoder norms, and what a gated SAE has more, into `weights`."""
    architecture = _of_gate(config.numbers["architecture"])
    d_sae = weights["W_enc"].shape[1]
    if architecture == "rational":
        return _rational(config, tensors, d_sae)
    if architecture == "jumprelu":
        if "threshold" not in tensors and "log_threshold" in tensors:
            return ThresholdGate(tensors.get("log_threshold", d_sae).exp())
        # SAELens applies ReLU too, so a negative threshold acts as 0.
        return ThresholdGate(tensors.get("threshold", d_sae).clamp_min(0.0))
    if architecture == "gated":
        return ThresholdGate(fold_gated(weights, tensors.get("r_mag", d_sae), tensors.get("b_gate", d_sae)))
    if architecture == "standard":
        config.without_k("a ReLU")
        named = config.numbers.get("activation_fn", config.numbers.get("activation_fn_str"))
        if named not in (None, "relu"):
            raise SourceError(f"{config.path}: architecture standard, but activation {str(named)[:80]!r}", _READS)
        return ReLUGate()
    if config.flag("rescale_acts_by_decoder_norm", False):
        fold_decoder_norm(weights)  # SAELens multiplies pre-activations by them
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        threshold = tensors.get("topk_threshold").clamp_min(0.0)
        return ThresholdGate(threshold.expand(d_sae))
    return TopKGate(config.k(d_sae))


def _rational(config: Config, tensors: Tensors, d_sae: int) -> RationalGate:
    kind = kind_of(config)
    try:
        kind.stored_shape(config.numbers["coefficients"])  # before the tensors: the config says most
    except FitError as error:
        raise SourceError(f"{config.path}: {error.cause}", "save the SAE again") from error
    scale, threshold = _exact(tensors, "scale", d_sae), _exact(tensors, "threshold", d_sae)
    if not (scale > 0).all():
        raise SourceError(f"{tensors.path}: scale is not positive", "the SAE is broken; use another")
    gate = kind.from_config(config, {"threshold": threshold, "scale": scale})
    if gate.k is None:
        config.without_k(f"a {gate.mode} gate")
    return gate


def _exact(tensors: Tensors, name: str, d_sae: int) -> Tensor:
    """A float32 tensor of the gate, also from a file that was cast to bfloat16. What was not has residues of 0 where
    it is exactly a bfloat16."""
    value = tensors.get(name, d_sae)
    if name + SUFFIX in tensors:
        residue = tensors.get(name + SUFFIX, 2, d_sae)
        value = torch.where(value == value.bfloat16().float(), value + residue.sum(0), value)
    return value


def _normalisation(config: Config) -> tuple[Normalisation, dict[str, Any]]:
    """SAELens' normalisation as ours, and what else to remember of it."""
    name = config.numbers.get("normalize_activations", "none")
    if name in tuple(IDENTITIES):
        return "none", {"normalize_activations": name}
    if name not in ("none", "layer_norm", "constant_norm_rescale"):
        raise config.wrong("normalize_activations", "a normalisation that SAELens knows")
    return cast(Normalisation, name), {}


def _positions(config: Config) -> tuple[int | None, ...] | None:
    """seqpos_slice, or None where it takes all positions."""
    inner = config.inner("metadata")
    given = inner.numbers.get("seqpos_slice")
    if given is None:
        return None
    if (
        not isinstance(given, list)
        or not 1 <= len(given) <= 3
        or not all(part is None or (isinstance(part, int) and not isinstance(part, bool)) for part in given)
        or (len(given) == 3 and given[2] is not None and given[2] < 1)
    ):
        raise inner.wrong("seqpos_slice", "one to three integers or null, with a positive step")
    return tuple(given) if any(given) else None


def _metadata(config: Config, family: str, extra: dict[str, Any]) -> Metadata:
    given = config.inner("metadata").numbers
    known = {}
    for key, kind in zip(METADATA, (str, str, int, bool, str), strict=True):
        value = given.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            wanted = f"{kind.__name__}, found {value!r}"
            raise SourceError(f"{config.path}: metadata {key} is not {wanted}", "correct it there")
        known[key] = value
    for key in ("hook_name", "hook_name_out"):
        known[key] = _of_owner(known[key], given.get(f"hf_{key}"))
    rest = {key: value for key, value in given.items() if key not in (*METADATA, "sae_lens_version", "seqpos_slice")}
    known["seqpos_slice"] = _positions(config)
    return Metadata(source=str(config.path.parent), format=FORMAT, family=family, **known, extra=rest | extra)


def _of_owner(name: str | None, module: Any) -> str | None:
    """The name of a place, or the module that the owner's config names, where these are two places.

    So it is with Gemma Scope 2's transcoders, of which SAELens says hook_mlp_in, in front of the norm."""
    if name is None or not isinstance(module, str):
        return name
    with contextlib.suppress(HostError):
        ours, owners = parse(name), parse(module)
        if ours is not None and owners is not None and ours != owners:
            return module
    return name
