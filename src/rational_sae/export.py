"""Writing SAEs as SAELens 6 folders: all of the SAE or nothing, and nothing unsafe."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rational_sae.errors import OutputError, TrainingError
from rational_sae.gate import NARROWEST_POLE, RationalGate, ReLUGate, ThresholdGate, TopKGate
from rational_sae.kernels import LINEAR
from rational_sae.sae import SAE
from rational_sae.sources.saelens import CONFIG, WEIGHTS

WIDEST, SLACK = 1e6, 1.01
"""How far scales, thresholds in units of their scale, poles and the gain may go from 1 (heuristic: float32 resolves
1e-7; fits and trained gates stay within 1e3), and room for rounding at a bound that training enforces."""

SAELENS_VERSION = "6.20.0"
"""The oldest SAELens that reads what is written here; from 6 on it keeps custom metadata."""


def save(sae: SAE, folder: Path) -> None:
    """Write an SAE; an earlier SAE in the folder is replaced, anything else there is refused."""
    tensors, config = _contents(sae)
    folder = folder.absolute()
    partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        _check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        save_file(tensors, partial / WEIGHTS)
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in (WEIGHTS, CONFIG):
            _flush(partial / name)
        _replace(folder, partial)
    except (OSError, SafetensorError) as error:
        cause = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise OutputError(f"{folder}: cannot be written ({cause})", "free some space or name another") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is a file", "name another folder")
    others = sorted({path.name for path in folder.iterdir()} - {CONFIG, WEIGHTS})
    if others:
        raise OutputError(f"{folder}: holds other files ({others[0]})", "name another folder")


def _replace(folder: Path, partial: Path) -> None:
    """Put the finished folder in place; if that fails, the earlier one stays."""
    if not folder.exists():
        partial.rename(folder)
        return
    earlier = partial.with_name(partial.name + ".earlier")
    folder.rename(earlier)
    try:
        partial.rename(folder)
    except OSError:
        earlier.rename(folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _contents(sae: SAE) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the config of an SAE's folder."""
    for name, parameter in sae.named_parameters():
        if not parameter.isfinite().all():
            raise TrainingError(f"{name} holds NaN or infinity, so the SAE was not saved", "train it again")
    if isinstance(sae.gate, ReLUGate) and float(sae.gate.offset) != 0:
        sae = copy.deepcopy(sae)
        sae.fold_offset_()
    gate = sae.gate
    tensors = {"W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    config: dict[str, Any] = {
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": sae.normalisation,
        "reshape_activations": "none",
        "metadata": _metadata(sae),
    }
    if isinstance(gate, ReLUGate):
        config["architecture"] = "standard"
    elif isinstance(gate, ThresholdGate):
        config["architecture"] = "jumprelu"
        tensors["threshold"] = gate.threshold
    elif isinstance(gate, TopKGate):
        config |= {"architecture": "topk", "k": gate.k, "rescale_acts_by_decoder_norm": False}
    elif isinstance(gate, RationalGate):
        check_safe(gate)
        config |= {"architecture": "rational", **_numbers(gate)}
        tensors |= {"threshold": gate.threshold, "scale": gate.scale}
    else:
        raise TypeError(f"no format for a {type(gate).__name__}")
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}, config


@torch.no_grad()
def _numbers(gate: RationalGate) -> dict[str, Any]:
    return {
        "coefficients": gate.partial_fractions.to_dict(),
        "gain": float(gate.log_gain.exp()),
        "right_slope": gate.right_slope,
        "mode": gate.mode,
        "k": gate.k,
    }


def _metadata(sae: SAE) -> dict[str, Any]:
    known = sae.metadata
    return {
        **known.extra,
        "sae_lens_version": SAELENS_VERSION,
        "sae_lens_training_version": known.extra.get("sae_lens_training_version"),
        "model_name": known.model_name,
        "hook_name": known.hook_name,
        "prepend_bos": known.prepend_bos,
        "context_size": known.context_size,
    }


@torch.no_grad()
def check_safe(gate: RationalGate) -> None:
    """Refuse a gate that would give NaN, or a hard one whose r is not positive on all of its support."""
    numbers = [gate.shape, gate.scale, gate.threshold, gate.log_gain.exp()]
    if not all(bool(part.isfinite().all()) for part in numbers) or not (gate.scale > 0).all():
        raise TrainingError("the gate is not finite, so the SAE was not saved", "train with a lower rate")
    poles = gate.shape[len(gate.shape) - (len(gate.shape) - LINEAR) // 4 :]  # η: the denominators' distance from 0
    ranges = {
        "a denominator": (poles.exp(), math.exp(NARROWEST_POLE) / SLACK, WIDEST),
        "a scale": (gate.scale / gate.scale.median(), 1 / WIDEST, WIDEST),
        "a threshold": ((gate.threshold / gate.scale).abs(), 0.0, WIDEST),
        "the gain": (gate.log_gain.exp(), 1 / WIDEST, WIDEST),
    }
    for what, (value, low, high) in ranges.items():
        wrong = value[(value < low) | (value > high)]
        if len(wrong):
            raise TrainingError(
                f"{what} left the safe range ({float(wrong[0]):.3g}), so the SAE was not saved",
                "train with a lower rate",
            )
    if gate.mode != "hard":
        return
    if gate.right_slope < 0:
        raise TrainingError("the gate falls right of its interval, so the SAE was not saved", "train it again")
    t, r = gate.lowest_on_support()
    if not r > 0:
        raise TrainingError(
            f"the gate is {r:.3g} at t = {t:.4g} of its support, so the SAE was not saved",
            "train with a lower rate or higher thresholds",
        )
