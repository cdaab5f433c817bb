"""Writing SAEs, as SAELens 6 folders or as one plain file: all of the SAE or nothing, and nothing unsafe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rational_sae.errors import OutputError, TrainingError
from rational_sae.formats.residue import SUFFIX, split
from rational_sae.formats.saelens import CONFIG, TRANSCODERS, WEIGHTS
from rational_sae.gates.hard import POSITIVE_FLOOR
from rational_sae.sae.cfg import KWARGS
from rational_sae.sae.model import SAE
from rational_sae.support.files import flush_file, write_whole
from rational_sae.support.outputs import CARD, CARD_MARK, PLAIN, WEIGHTS_MARK, check_sae_folder, written
from rational_sae.support.outputs import SAE as OUTPUT
from rational_sae.support.paths import at_home

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
    SAE is of version 2, one with further looks of 3: readers of earlier versions refuse them."""
    tensors, config = _contents(sae)
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(SUFFIX)}
    unsaid = ("dtype", "device", "reshape_activations")
    known = {"version": 3 if sae.looks is not None else 2 if sae.centred else 1}
    known |= {"centred": True} if sae.centred else {}
    config = {"format": PLAIN_FORMAT} | known | {k: v for k, v in config.items() if k not in unsaid}
    if sae.gate.family == "rational":
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
    sae.gate.check_safe()
    gate, offset = sae.gate, sae.gate.subtracted()
    b_enc = sae.b_enc if offset is None else sae.b_enc - offset
    tensors = {"W_enc": sae.W_enc, "b_enc": b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    config: dict[str, Any] = {
        "architecture": _architecture(sae),
        "d_in": sae.d_in,
        **({"d_out": sae.d_out} if sae.transcodes else {}),
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": sae.normalisation,
        # TransformerLens gives heads apart there; a module's path gives them side by side, as SAEs here read them.
        "reshape_activations": "hook_z" if (sae.metadata.hook_name or "").endswith("hook_z") else "none",
        "metadata": _metadata(sae),
    }
    if sae.W_skip is not None:
        tensors["W_skip"] = sae.W_skip
    config |= gate.to_config()
    if sae.looks is not None:
        config["looks"] = sae.looks.to_config()
    exact = gate.tensors() | ({} if sae.looks is None else sae.looks.tensors())
    tensors |= exact
    if gate.family == "rational":
        tensors |= split(tensors, exact)
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}, config


def _architecture(sae: SAE) -> str:
    """SAELens' name; of a transcoder with a TopK, which it has none of, one after the same rule."""
    if not sae.transcodes:
        return sae.gate.architecture
    found = {
        name
        for name, own in TRANSCODERS.items()
        if own == sae.gate.architecture and ("skip_" in name) == (sae.W_skip is not None)
    }
    return found.pop()


def _metadata(sae: SAE) -> dict[str, Any]:
    known = sae.metadata
    return {
        **known.extra,
        "sae_lens_version": SAELENS_VERSION,
        "sae_lens_training_version": known.extra.get("sae_lens_training_version"),
        "model_name": known.model_name,
        "hook_name": known.hook_name,
        **({"hook_name_out": known.hook_name_out} if sae.transcodes else {}),
        "prepend_bos": known.prepend_bos,
        "context_size": known.context_size,
        **({"seqpos_slice": list(known.seqpos_slice)} if known.seqpos_slice else {}),
        **({KWARGS: getattr(sae.cfg, KWARGS)} if sae.centred or KWARGS in known.extra else {}),
    }
