"""Nanda's 1L-Sparse-Autoencoder and what was made from it: NAME.pt and NAME_cfg.json.

Kissane and Krzyzanowski's SAEs of attention heads (hook_z) are such.

h = W_encᵀ(x − b_dec) + b_enc, z = relu(h), x̂ = W_decᵀz + b_dec. Of hook_z, x is all heads side by side.
"""

from __future__ import annotations

import os
from pathlib import Path

from rational_sae.errors import SourceError
from rational_sae.formats.checked import Config, Tensors, read_config
from rational_sae.formats.containers import Contents
from rational_sae.formats.statements import warnings_of
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.cfg import KWARGS
from rational_sae.sae.model import SAE, Metadata

FORMAT = "1L-Sparse-Autoencoder"

FOLDING = "fold_value_biases"
"""TransformerLens' word for it, as SAELens keeps it."""

WEIGHTS = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


def recognises(contents: Contents) -> bool:
    """Whether a file is one of these: four tensors, and a NAME_cfg.json that names an activation of TransformerLens."""
    if contents.container != "torch" or contents.shapes.keys() != set(WEIGHTS):
        return False
    return _config(contents.path) is not None


def read(contents: Contents) -> SAE:
    """The SAE of a file of weights and the config of its name. Raises SourceError for one of a single head."""
    config = _config(contents.path)
    if config is None:
        raise SourceError(f"{contents.path.stem}_cfg.json: no such file", "put it beside the weights")
    head = config.numbers.get("head")
    if config.flag("per_head", False) or (head is not None and head != "cat"):
        raise SourceError(f"{config.path}: an SAE of one attention head", "use one of all heads")
    d_in, d_sae = (config.count(key) if key in config.numbers else None for key in ("act_size", "dict_size"))
    tensors = Tensors(contents)
    weights = tensors.weights(WEIGHTS, d_in, d_sae)
    tensors.all_read()
    metadata = Metadata(
        source=str(contents.path),
        format=FORMAT,
        family="relu",
        model_name=config.word("model_name"),
        hook_name=config.word("act_name"),
        context_size=config.count("seq_len") if "seq_len" in config.numbers else None,
        prepend_bos=True,  # TransformerLens' default, which its buffer takes
        # HookedTransformer.from_pretrained folds biases of values into those behind the heads, unless told otherwise.
        extra={"config": config.numbers, KWARGS: {FOLDING: True}},
    )
    metadata.warnings = warnings_of(config.path, FORMAT, config.numbers)
    return SAE(**weights, gate=ReLUGate(), apply_b_dec_to_input=True, metadata=metadata)


def _config(weights: Path) -> Config | None:
    """The config of a file of weights, or the only one beside it."""
    path = weights.with_name(f"{weights.stem}_cfg.json")
    if not os.path.lexists(path):
        others = sorted(weights.parent.glob("*_cfg.json"))
        if len(others) != 1:
            return None
        path = others[0]
    config = read_config(path)
    return config if "act_name" in config.numbers else None
