"""Writing SAEs, as SAELens 6 folders or as one plain file: all of the SAE or nothing, and nothing unsafe."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rational_sae.errors import OutputError, TrainingError
from rational_sae.formats.residue import SUFFIX, split
from rational_sae.formats.saelens import CONFIG, WEIGHTS
from rational_sae.gates.gate import NARROWEST_POLE, POSITIVE_FLOOR, RationalGate, ReLUGate, ThresholdGate, TopKGate
from rational_sae.sae.cfg import KWARGS
from rational_sae.sae.model import SAE
from rational_sae.support.files import flush_file, write_whole
from rational_sae.support.outputs import CARD, CARD_MARK, PLAIN, WEIGHTS_MARK, check_sae_folder, written
from rational_sae.support.outputs import SAE as OUTPUT
from rational_sae.support.paths import at_home

WIDEST, SLACK = 1e6, 1.01
"""How far scales, thresholds in units of their scale, poles and the gain may go from 1 (heuristic: float32 resolves
1e-7; fits and trained gates stay within 1e3), and room for rounding at a bound that training enforces."""

SAELENS_VERSION = "6.20.0"
"""The oldest SAELens that reads what is written here; from 6 on it keeps custom metadata."""


PLAIN_FORMAT = "rational-sae"


def save(sae: SAE, folder: str | Path, card: str | None = None) -> None:
    """Write an SAE as a folder that SAELens 6 and `load` read, and its card (README.md, Markdown) if there is one.

    All of it or nothing; an earlier SAE of ours in the folder is replaced. Raises OutputError if the folder holds
    anything else or cannot be written, TrainingError if the SAE is not safe to save.

    >>> save(sae, "~/saes/mine")  # doctest: +SKIP
    """
    tensors, config = _contents(sae)
    texts = {CONFIG: json.dumps(config, indent=2) + "\n"} | ({CARD: f"{card}\n{CARD_MARK}\n"} if card else {})
    _write(folder, WEIGHTS, tensors, WEIGHTS_MARK, texts)


def save_plain(sae: SAE, folder: str | Path) -> None:
    """Write `sae.safetensors`: tensors in float32 and the config in the file's own header (docs/format.md). A centred
    SAE is of version 2, which a reader of version 1 refuses."""
    tensors, config = _contents(sae)
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(SUFFIX)}
    unsaid = ("dtype", "device", "reshape_activations")
    known = {"version": 2, "centred": True} if sae.centred else {"version": 1}
    config = {"format": PLAIN_FORMAT} | known | {k: v for k, v in config.items() if k not in unsaid}
    if isinstance(sae.gate, RationalGate):
        config["floor"] = POSITIVE_FLOOR
    _write(folder, PLAIN, kept, {"config": json.dumps(config)}, {})


def _write(
    where: str | Path, name: str, tensors: dict[str, Tensor], header: dict[str, str], texts: dict[str, str]
) -> None:
    """A folder with one file of tensors and some of text, whole or not at all."""
    folder = at_home(where)
    check_sae_folder(folder)
    try:
        with written(folder, OUTPUT) as partial:
            save_file(tensors, partial / name, header)
            flush_file(partial / name)
            for path, text in texts.items():
                write_whole(partial / path, text)
    except SafetensorError as error:
        cause = " ".join(str(error).split())
        raise OutputError(f"{folder}: cannot be written ({cause})", "free some space or name another") from error


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
        "architecture": gate.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": sae.normalisation,
        "reshape_activations": "none",
        "metadata": _metadata(sae),
    }
    if isinstance(gate, ThresholdGate):
        tensors["threshold"] = gate.threshold
    elif isinstance(gate, TopKGate):
        config |= {"k": gate.k, "rescale_acts_by_decoder_norm": False}
    elif isinstance(gate, RationalGate):
        check_safe(gate)
        config |= _numbers(gate)
        tensors |= {"threshold": gate.threshold, "scale": gate.scale}
        tensors |= split(tensors, ("threshold", "scale"))
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}, config


@torch.no_grad()
def _numbers(gate: RationalGate) -> dict[str, Any]:
    """What of a gate is numbers and not tensors."""
    return {
        "coefficients": gate.coefficients.to_dict(),
        "gain": float(gate.log_gain.exp()),
        "right_slope": gate.right_slope,
        "mode": gate.mode,
        "k": gate.k,
        "token_scale": asdict(gate.token) if gate.token else None,
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
        **({"seqpos_slice": list(known.seqpos_slice)} if known.seqpos_slice else {}),
        **({KWARGS: getattr(sae.cfg, KWARGS)} if sae.centred or KWARGS in known.extra else {}),
    }


@torch.no_grad()
def check_safe(gate: RationalGate) -> None:
    """Refuse a gate that would give NaN, or a hard one whose r is not positive on all of its support."""
    numbers = [gate.shape, gate.scale, gate.threshold, gate.log_gain.exp()]
    if not all(bool(part.isfinite().all()) for part in numbers) or not (gate.scale > 0).all():
        raise TrainingError("the gate is not finite, so the SAE was not saved", "train with a lower rate")
    ranges = {
        "a denominator": (gate.denominators, math.exp(NARROWEST_POLE) / SLACK, WIDEST),
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
    if gate.mode == "smooth" and float(gate.cut) != 0:
        raise TrainingError("the smooth gate is cut for a measurement, so the SAE was not saved", "end that first")
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
