"""Gemma Scope: JumpReLUs in `params.npz` (Gemma 2) or, in lower case, `params.safetensors` (Gemma 3).

h = W_encᵀx + b_enc (b_dec is *not* subtracted), z = relu(h)·[h > θ], x̂ = W_decᵀz + b_dec
(Lieberum et al., arXiv 2408.05147, §3; Gemma Scope's tutorial notebook, class JumpReLUSAE).
"""

from __future__ import annotations

from collections.abc import Collection

from rational_sae.data.hook_names import BLOCK
from rational_sae.errors import SourceError
from rational_sae.formats.checked import Config, Tensors, config_beside
from rational_sae.formats.containers import Contents
from rational_sae.formats.statements import warnings_of
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.model import SAE, Metadata

FORMAT = "Gemma Scope"
NAMES = frozenset({"W_enc", "W_dec", "b_enc", "b_dec", "threshold"})
CONFIG = "config.json"


def recognises(names: Collection[str], container: str) -> bool:
    """Whether a file holds a Gemma Scope SAE: five tensors in an .npz, or lower-case ones in a safetensors."""
    lower = {"w_enc", "w_dec"} <= set(names)
    return lower or (container == "npz" and {"W_enc", "W_dec"} <= set(names))


def read(contents: Contents) -> SAE:
    """The SAE of a file. Raises SourceError for transcoders."""
    tensors = Tensors(contents)
    config = config_beside(contents.path, CONFIG)
    transcoder = config is not None and _is_transcoder(config)
    if "affine_skip_connection" in tensors or transcoder:
        raise SourceError(
            f"{contents.path}: a transcoder{' with a skip connection' if not transcoder else ''}",
            "use an SAE: a transcoder predicts other activations than it reads",
        )
    said = config.word("architecture") if config else None
    if said and said.lower().replace("_", "") != "jumprelu":
        raise SourceError(f"{contents.path}: a JumpReLU by its tensors, {said[:80]!r} by its config", "use another")
    if config is not None:
        config.without_k("a JumpReLU")
    spelled = {name: name if name in tensors else name.replace("W_", "w_") for name in NAMES}
    weights = tensors.weights(spelled)
    # The ReLU acts too, so a negative threshold acts as 0.
    gate = ThresholdGate(tensors.get("threshold", weights["W_enc"].shape[1]).clamp_min(0.0))
    tensors.all_read()
    metadata = Metadata(source=str(contents.path), format=FORMAT, family="jumprelu", prepend_bos=True)
    if config is not None:
        hook = config.word("hf_hook_point_in") or ""
        metadata.hook_name = (hook.removesuffix(".output") if BLOCK.fullmatch(hook) else hook) or None
        metadata.model_name = config.word("model_name")
        metadata.extra = {"config": config.numbers}
        metadata.warnings = warnings_of(config.path, FORMAT, config.numbers)
    return SAE(**weights, gate=gate, apply_b_dec_to_input=False, metadata=metadata)


def _is_transcoder(config: Config) -> bool:
    """Whether a config of Gemma Scope 2 is of anything but an SAE, which goes out where it comes in. Raises SourceError
    for an activation that is none of Gemma Scope's."""
    architecture = config.word("architecture")
    if architecture not in (None, "jump_relu"):
        raise SourceError(f"{config.path}: architecture {architecture[:80]!r} is not supported", "use a JumpReLU")
    into, out = config.word("hf_hook_point_in"), config.word("hf_hook_point_out")
    return config.word("type") not in (None, "sae") or out not in (None, into)
