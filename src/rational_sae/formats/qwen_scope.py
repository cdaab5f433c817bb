"""Qwen Scope: a TopK of each layer in `layerN.sae.pt`, and one config.json for all of them.

h = W_encᵀx + b_enc (b_dec is *not* subtracted), z = the k largest of relu(h), x̂ = W_decᵀz + b_dec; both matrices are
stored transposed. k is in config.json or in the repository's name, SAE-Res-MODEL-W32K-L0_50.
"""

from __future__ import annotations

import os
import re

from rational_sae.errors import SourceError
from rational_sae.formats.checked import Config, Tensors, read_config
from rational_sae.formats.containers import Contents
from rational_sae.formats.statements import warnings_of
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata

FORMAT = "Qwen Scope"
CONFIG = "config.json"
KIND = "topk_sae"

WEIGHTS = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec.T", "b_dec": "b_dec"}

REPOSITORY = re.compile(r".*SAE-Res-(.+)-W\d+K-L0_(\d+)")
"""The model and k."""

LAYER = re.compile(r"layer_?(\d+)\.sae\.pt")


def recognises(contents: Contents) -> bool:
    """Whether a file is Qwen Scope's: four tensors, and the config or the name of a folder above that says so."""
    if contents.container != "torch" or contents.shapes.keys() != set(WEIGHTS):
        return False
    config = _config(contents)
    return _repository(contents) is not None if config is None else config.numbers.get("model_type") == KIND


def read(contents: Contents) -> SAE:
    """The SAE of a file of weights and the config.json beside it."""
    config, named = _config(contents), _repository(contents)
    given = config or Config(contents.path, {"k": int(named[2])} if named else {})
    d_in, d_sae = (given.count(key) if key in given.numbers else None for key in ("d_model", "d_sae"))
    tensors = Tensors(contents)
    weights = tensors.weights(WEIGHTS, d_in, d_sae)
    tensors.all_read()
    gate = TopKGate(given.k(weights["W_enc"].shape[1]))
    place, layer = given.word("hook_point"), LAYER.fullmatch(contents.path.name)
    if place not in (None, "resid_post"):
        raise SourceError(f"{given.path}: hook_point {place[:80]!r} is not supported", "use one of resid_post")
    metadata = Metadata(
        source=str(contents.path),
        format=FORMAT,
        family="topk",
        model_name=given.word("base_model") or (f"Qwen/{named[1]}" if named else None),
        hook_name=f"blocks.{layer[1]}.hook_resid_post" if layer else None,
    )
    if config is not None:
        metadata.extra = {"config": config.numbers}
        metadata.warnings = warnings_of(config.path, FORMAT, config.numbers)
    return SAE(**weights, gate=gate, apply_b_dec_to_input=False, metadata=metadata)


def _config(contents: Contents) -> Config | None:
    path = contents.path.parent / CONFIG
    return read_config(path) if os.path.lexists(path) else None


def _repository(contents: Contents) -> re.Match[str] | None:
    """The name of a folder above that is the repository's, as a clone has it and as the hub's cache has it."""
    found = (REPOSITORY.fullmatch(folder.name) for folder in contents.path.parents)
    return next((one for one in found if one), None)
