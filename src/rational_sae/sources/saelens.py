"""SAELens' folders (cfg.json and sae_weights.safetensors), and our own architecture "rational" in them.

Versions 5 and 6. Reads what SAELens computes at inference, without importing it.
What it cannot represent, it refuses by name.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rational_sae.errors import FitError, SourceError
from rational_sae.gate import Gate, RationalGate, ReLUGate, ThresholdGate, TopKGate
from rational_sae.rational import PartialFractions
from rational_sae.sae import SAE, Metadata, Normalisation
from rational_sae.token_scale import TokenScale

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"

FAMILIES = {
    "standard": "relu",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "rational": "rational",
}
"""Architectures that are read, and the family each belongs to."""

IDENTITIES = ("expected_average_only_in", "covariance_whitening")
"""Normalisations that SAELens leaves out at inference: they are meant to be folded into the weights."""

METADATA = ("model_name", "hook_name", "context_size", "prepend_bos")

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


def read_saelens(folder: Path) -> SAE:
    """The SAE in a folder that SAELens, or `export.save`, wrote."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder", "name a folder that holds an SAE")
    config = _Config(folder, _modern(_json(folder / CONFIG), folder))
    family = _family(config)
    tensors = _Tensors(folder / WEIGHTS, config)
    gate = _gate(config, tensors)
    normalisation, extra = _normalisation(config)
    weights = [tensors.weights[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")]
    return SAE(
        *weights,
        gate=gate,
        apply_b_dec_to_input=config.flag("apply_b_dec_to_input", True),
        normalisation=normalisation,
        metadata=_metadata(config, family, extra),
    )


@dataclass
class _Config:
    """cfg.json, and where it is."""

    folder: Path
    numbers: dict[str, Any]

    def wrong(self, key: str, wanted: str) -> SourceError:
        found = f"is {self.numbers[key]!r}" if key in self.numbers else "is missing"
        return SourceError(f"{self.folder / CONFIG}: {key} {found}, expected {wanted}", "save the SAE again")

    def count(self, key: str) -> int:
        value = self.numbers.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, "a positive integer")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.numbers.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.wrong(key, "a finite number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.numbers.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value


class _Tensors:
    """The four tensors every architecture has, checked, and access to the others."""

    def __init__(self, path: Path, config: _Config) -> None:
        self.path = path
        self.all = _safetensors(path)
        for name in ("W_enc", "W_dec"):
            if self._named(name).ndim != 2:
                raise self._misshapen(name, "two dimensions")
        d_in, d_sae = self.all["W_enc"].shape
        d_in = config.count("d_in") if "d_in" in config.numbers else d_in
        self.d_sae: int = config.count("d_sae") if "d_sae" in config.numbers else d_sae
        shapes = {"W_enc": (d_in, self.d_sae), "b_enc": (self.d_sae,)}
        shapes |= {"W_dec": (self.d_sae, d_in), "b_dec": (d_in,)}
        self.weights = {name: self.get(name, *shape) for name, shape in shapes.items()}
        factor = self.all.get("scaling_factor")
        if factor is not None and not torch.allclose(factor.float(), torch.ones(())):
            raise SourceError(
                f"{path}: scaling_factor is not 1, so it was fine-tuned by SAELens 5",
                "fold it into W_dec first",
            )

    def get(self, name: str, *shape: int) -> Tensor:
        """A tensor as float32, of this shape, and finite."""
        tensor = self._named(name)
        if tuple(tensor.shape) != shape:
            raise self._misshapen(name, str(list(shape)))
        if not tensor.is_floating_point():
            raise SourceError(f"{self.path}: {name} is {tensor.dtype}, expected floating point", "save it again")
        tensor = tensor.float()
        if not tensor.isfinite().all():
            raise SourceError(f"{self.path}: {name} holds NaN or infinity", "the SAE is broken; use another")
        return tensor

    def _named(self, name: str) -> Tensor:
        if name not in self.all:
            held = ", ".join(sorted(self.all)) or "nothing"
            raise SourceError(f"{self.path}: tensor {name} is missing (it holds {held})", "download it again")
        return self.all[name]

    def _misshapen(self, name: str, expected: str) -> SourceError:
        found = list(self.all[name].shape)
        return SourceError(f"{self.path}: {name} is {found}, expected {expected}", f"check {CONFIG}")


def _json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file", "name a folder that SAELens saved") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})", "check the file") from error
    except ValueError as error:  # malformed JSON, or not UTF-8
        raise SourceError(f"{path}: not JSON ({_line(error)})", "download it again") from error
    if not isinstance(config, dict):
        raise SourceError(f"{path}: not a JSON object", "download it again")
    return config


def _safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise SourceError(f"{path}: no such file", "name a folder that SAELens saved")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{path}: truncated or not safetensors ({_line(error)})", "download it again") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _modern(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A version 5 config as version 6 would write it; one of version 6 unchanged."""
    metadata = config.get("metadata", {})
    if not isinstance(metadata, dict):
        raise SourceError(f"{folder / CONFIG}: metadata is not an object", "download it again")
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) >= 6:
        return config
    config = {RENAMED.get(key, key): value for key, value in config.items()}
    activation = config.get("activation_fn", "relu")
    options = config.get("activation_fn_kwargs") or {}
    if activation == "topk" and isinstance(options, dict):
        config |= {"architecture": "topk", "k": options.get("k", config.get("k"))}
    elif activation not in ("relu", "topk"):
        raise SourceError(f"{folder}: activation function {activation!r} is not supported", _READS)
    config.setdefault("architecture", "standard")
    if "hook_z" in str(config.get("hook_name", "")):
        config.setdefault("reshape_activations", "hook_z")
    normalise = config.get("normalize_activations")
    if normalise is None or isinstance(normalise, bool):
        config["normalize_activations"] = "expected_average_only_in" if normalise else "none"
    flat = {key: config[key] for key in FLAT if key in config}
    return config | {"metadata": {"prepend_bos": True, **flat, **metadata}}


_READS = f"architectures that are read: {', '.join(FAMILIES)}"


def _family(config: _Config) -> str:
    architecture = config.numbers.get("architecture")
    if not isinstance(architecture, str):
        raise config.wrong("architecture", "a name")
    if architecture not in FAMILIES:
        raise SourceError(f"{config.folder}: architecture {architecture!r} is not supported", _READS)
    reshape = config.numbers.get("reshape_activations", "none")
    if reshape != "none":
        raise SourceError(
            f"{config.folder}: reshape_activations {reshape!r} is not supported",
            "use an SAE of activations that are one vector a token",
        )
    return FAMILIES[architecture]


def _gate(config: _Config, tensors: _Tensors) -> Gate:
    architecture = config.numbers["architecture"]
    d_sae = tensors.d_sae
    if architecture == "rational":
        return _rational(config, tensors)
    if architecture == "jumprelu":
        if "threshold" not in tensors.all and "log_threshold" in tensors.all:
            return ThresholdGate(tensors.get("log_threshold", d_sae).exp())
        # SAELens applies ReLU too, so a negative threshold acts as 0.
        return ThresholdGate(tensors.get("threshold", d_sae).clamp_min(0.0))
    if architecture == "standard":
        return ReLUGate()
    if config.flag("rescale_acts_by_decoder_norm", False):
        _fold_decoder_norm(tensors)
    if architecture == "batchtopk":
        threshold = tensors.get("topk_threshold").clamp_min(0.0)
        return ThresholdGate(threshold.expand(d_sae))
    return TopKGate(_k(config, d_sae))


def _k(config: _Config, d_sae: int) -> int:
    k = config.count("k")
    if k > d_sae:
        raise config.wrong("k", f"at most d_sae, {d_sae}")
    return k


def _fold_decoder_norm(tensors: _Tensors) -> None:
    """Move the decoder's row norms into the encoder, where SAELens multiplies pre-activations by them."""
    weights = tensors.weights
    norm = weights["W_dec"].norm(dim=-1)
    weights["W_enc"] = weights["W_enc"] * norm
    weights["b_enc"] = weights["b_enc"] * norm
    weights["W_dec"] = weights["W_dec"] / norm.where(norm > 0, 1.0)[:, None]


def _rational(config: _Config, tensors: _Tensors) -> RationalGate:
    coefficients = config.numbers.get("coefficients")
    if not isinstance(coefficients, dict):
        raise config.wrong("coefficients", "an object")
    try:
        shape = PartialFractions.from_dict(coefficients)
    except FitError as error:
        raise SourceError(f"{config.folder / CONFIG}: {error.cause}", "save the SAE again") from error
    mode = config.numbers.get("mode", "hard")
    if mode not in ("hard", "smooth", "topk"):
        raise config.wrong("mode", "hard, smooth or topk")
    scale = tensors.get("scale", tensors.d_sae)
    if not (scale > 0).all():
        raise SourceError(f"{tensors.path}: scale is not positive", "the SAE is broken; use another")
    gain = config.number("gain", 1.0)
    if gain <= 0:
        raise config.wrong("gain", "a positive number")
    return RationalGate(
        shape,
        scale,
        tensors.get("threshold", tensors.d_sae),
        mode=mode,
        k=_k(config, tensors.d_sae) if mode == "topk" else None,
        gain=gain,
        right_slope=config.number("right_slope", 1.0),
        token=_token_scale(config, tensors.d_sae) if mode == "hard" else None,
    )


def _token_scale(config: _Config, d_sae: int) -> TokenScale | None:
    given = config.numbers.get("token_scale")
    if given is None:
        return None
    try:
        found = TokenScale(k=int(given["k"]), power=float(given["power"]), level=float(given["level"]))
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise config.wrong("token_scale", "an object with k, power and level") from error
    if not (1 <= found.k <= d_sae and 0 <= found.power <= 1 and math.isfinite(found.level)):
        raise config.wrong("token_scale", f"k from 1 to {d_sae}, a power from 0 to 1 and a finite level")
    return found


def _normalisation(config: _Config) -> tuple[Normalisation, dict[str, Any]]:
    """SAELens' normalisation as ours, and what else to remember of it."""
    name = config.numbers.get("normalize_activations", "none")
    if name in IDENTITIES:
        return "none", {"normalize_activations": name}
    if name not in ("none", "layer_norm", "constant_norm_rescale"):
        raise config.wrong("normalize_activations", "a normalisation that SAELens knows")
    return cast(Normalisation, name), {}


def _metadata(config: _Config, family: str, extra: dict[str, Any]) -> Metadata:
    given = config.numbers.get("metadata", {})
    known = {}
    for key, kind in zip(METADATA, (str, str, int, bool), strict=True):
        value = given.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            wanted = f"{kind.__name__}, found {value!r}"
            raise SourceError(f"{config.folder / CONFIG}: metadata {key} is not {wanted}", "correct it there")
        known[key] = value
    rest = {key: value for key, value in given.items() if key not in (*METADATA, "sae_lens_version")}
    return Metadata(source=f"{config.folder} (SAELens)", family=family, **known, extra=rest | extra)
