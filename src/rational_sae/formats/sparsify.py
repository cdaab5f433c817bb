"""EleutherAI's sparsify: encoder.{weight, bias}, W_dec, b_dec in safetensors, and cfg.json.

h = W_encᵀ(x − b_dec) + b_enc, z = the k largest of relu(h), x̂ = W_decᵀz + b_dec (sparsify/sparse_coder.py).
Transcoders, skip connections and groupmax are refused by name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from rational_sae.data.hook_names import parse
from rational_sae.errors import HostError, SourceError
from rational_sae.formats.checked import Config, Tensors, config_beside, read_config
from rational_sae.formats.containers import Contents
from rational_sae.formats.statements import other_weights, warnings_of
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata

FORMAT = "sparsify"
CONFIG = "cfg.json"
RUN_CONFIG = "config.json"
"""Of the whole training run, in the folder above."""

WEIGHTS = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}

REFUSED = {
    "transcode": "a transcoder predicts other activations than it reads; use an SAE",
    "skip_connection": "a skip connection passes x around the code; use an SAE without one",
    "signed": "a signed TopK keeps negative codes; use an SAE without",
    "normalize_io": "it scales its input and its output; use an SAE without",
}
"""Flags of the config that change the formula to one that no SAE here computes."""


def recognises(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is sparsify's."""
    return {"encoder.weight", "W_dec"} <= set(names)


def read(contents: Contents) -> SAE:
    """The SAE of a file of weights and the cfg.json beside it."""
    config = config_beside(contents.path, CONFIG)
    if config is None:
        raise SourceError(f"{contents.path.parent / CONFIG}: no such file, and only it has k", "put it there")
    for flag, remedy in REFUSED.items():
        if config.flag(flag, False):
            raise SourceError(f"{config.path}: {flag} is not supported", remedy)
    tensors = Tensors(contents)
    if "W_skip" in tensors:
        raise SourceError(f"{contents.path}: holds W_skip", REFUSED["skip_connection"])
    activation = config.word("activation") or "topk"
    if activation != "topk":
        raise SourceError(f"{config.path}: activation {activation[:80]!r} is not supported", "use one with topk")
    d_in = config.count("d_in")
    weights = tensors.weights(WEIGHTS, d_in, _width(config, d_in))
    tensors.all_read()
    gate = TopKGate(config.k(weights["W_enc"].shape[1]))
    return SAE(**weights, gate=gate, apply_b_dec_to_input=True, metadata=_metadata(contents, config))


def _width(config: Config, d_in: int) -> int:
    """d_sae; num_latents 0, or none, means so many times d_in."""
    if config.numbers.get("num_latents"):
        return config.count("num_latents")
    return d_in * config.count("expansion_factor")


def _metadata(contents: Contents, config: Config) -> Metadata:
    """What the SAE's own config says, and that of the run in the folder above, whose hookpoints, patterns among them,
    name folders."""
    folder = contents.path.parent
    found = Metadata(source=str(contents.path), format=FORMAT, family="topk", extra={"config": config.numbers})
    with contextlib.suppress(HostError):  # a name that says neither input nor output
        found.hook_name = folder.name if parse(folder.name) else None
    found.warnings = warnings_of(config.path, FORMAT, config.numbers)
    path = folder.parent / RUN_CONFIG
    if os.path.lexists(path):
        run = read_config(path)
        found.warnings += warnings_of(path, FORMAT, run.numbers)
        found.model_weights = other_weights(run.numbers)
        hookpoints = run.numbers.get("hookpoints")
        found.model_name = run.word("model")
        found.context_size = run.count("ctx_len") if "ctx_len" in run.numbers else None
        if isinstance(hookpoints, list) and folder.name in hookpoints:
            found.hook_name = folder.name
    return found
