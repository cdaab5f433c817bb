"""Gemma Scope: JumpReLUs in `params.npz` (Gemma 2) or, in lower case, `params.safetensors` (Gemma 3).

h = W_encᵀx + b_enc (b_dec is *not* subtracted), z = relu(h)·[h > θ], x̂ = W_decᵀz + b_dec
(Lieberum et al., arXiv 2408.05147, §3; Gemma Scope's tutorial notebook, class JumpReLUSAE).

Its transcoders compute the same of an MLP's input and predict its output; those with an `affine_skip_connection` A add
Aᵀx. Of Gemma 3 the config says so; of Gemma 2 only the name of the repository does, in whose folder the file lies.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from rational_sae.data.hook_names import BLOCK
from rational_sae.errors import SourceError
from rational_sae.formats.checked import Config, Tensors, config_beside
from rational_sae.formats.containers import Contents
from rational_sae.formats.repositories import CROSS_LAYER, transcoder_hooks
from rational_sae.formats.statements import warnings_of
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.model import SAE, Metadata

FORMAT = "Gemma Scope"
NAMES = frozenset({"W_enc", "W_dec", "b_enc", "b_dec", "threshold"})
CONFIG = "config.json"

SKIP = "affine_skip_connection"
"""[d_in, d_out], the other way round than W_skip."""

SKIPS = ("affine_connection", SKIP)
"""What configs call it."""

INTO, OUT = "hf_hook_point_in", "hf_hook_point_out"


def recognises(names: Collection[str], container: str) -> bool:
    """Whether a file is Gemma Scope's: five tensors in an .npz, or lower-case ones in a safetensors."""
    lower = {"w_enc", "w_dec"} <= set(names)
    return lower or (container == "npz" and {"W_enc", "W_dec"} <= set(names))


def read(contents: Contents) -> SAE:
    """The SAE or the transcoder of a file. Raises SourceError for those that read or predict several places."""
    tensors = Tensors(contents)
    config = config_beside(contents.path, CONFIG)
    spelled = {name: name if name in tensors else name.replace("W_", "w_") for name in NAMES}
    if any(len(contents.shapes.get(spelled[name], ())) > 2 for name in ("W_enc", "W_dec")):
        raise SourceError(f"{contents.path}: {CROSS_LAYER}", "use a per-layer one")
    hooks = transcoder_hooks(contents.path.as_posix())
    transcodes = _transcodes(tensors, config, by_name=hooks is not None)
    said = config.word("architecture") if config else None
    if said and said.lower().replace("_", "") != "jumprelu":
        raise SourceError(f"{contents.path}: a JumpReLU by its tensors, {said[:80]!r} by its config", "use another")
    if config is not None:
        config.without_k("a JumpReLU")
    d_out = tensors.shape(spelled["W_dec"], 2)[1] if transcodes else None
    weights = tensors.weights(spelled, d_out=d_out)
    W_skip: Tensor | None = None
    if transcodes and SKIP in tensors:
        W_skip = tensors.get(SKIP, weights["W_enc"].shape[0], weights["W_dec"].shape[1]).T
    # The ReLU acts too, so a negative threshold acts as 0.
    gate = ThresholdGate(tensors.get("threshold", weights["W_enc"].shape[1]).clamp_min(0.0))
    tensors.all_read()
    metadata = Metadata(source=str(contents.path), format=FORMAT, family="jumprelu", prepend_bos=True)
    if config is not None:
        metadata.hook_name = _block(config.word(INTO))
        metadata.hook_name_out = _block(config.word(OUT)) if transcodes else None
        metadata.model_name = config.word("model_name")
        metadata.extra = {"config": config.numbers}
        metadata.warnings = warnings_of(config.path, FORMAT, config.numbers)
    if transcodes and hooks is not None:
        metadata.hook_name, metadata.hook_name_out = (
            metadata.hook_name or hooks[0],
            metadata.hook_name_out or hooks[1],
        )
    options = {"transcodes": transcodes, "W_skip": W_skip}
    return SAE(**weights, gate=gate, apply_b_dec_to_input=False, metadata=metadata, **options)


def _block(hook: str | None) -> str | None:
    """A hook's name without `.output`, where that is a whole block's."""
    return (hook.removesuffix(".output") if BLOCK.fullmatch(hook) else hook) if hook else None


def _transcodes(tensors: Tensors, config: Config | None, *, by_name: bool) -> bool:
    """Whether a file holds a transcoder. by_name: whether the folders above it say so, which counts where nothing else
    does.

    Raises SourceError where config and tensors disagree, for an activation that is none of Gemma Scope's, and for what
    has several places.
    """
    skips = SKIP in tensors
    if config is None:
        return skips or by_name
    architecture = config.word("architecture")
    if architecture not in (None, "jump_relu"):
        raise SourceError(f"{config.path}: architecture {architecture[:80]!r} is not supported", "use a JumpReLU")
    kind, into, out = config.word("type"), config.word(INTO), config.word(OUT)
    if kind not in (None, "sae", "transcoder"):
        what = CROSS_LAYER if kind == "clt" else f"type {kind[:80]!r} is not supported"
        raise SourceError(f"{config.path}: {what}", "use an SAE or a per-layer transcoder")
    transcodes = kind == "transcoder" if kind else out not in (None, into) or skips or (out is None and by_name)
    if (transcodes and out is not None and out == into) or (not transcodes and out not in (None, into)):
        raise SourceError(
            f"{config.path}: type {kind!r}, but it reads {str(into)[:80]} and predicts {str(out)[:80]}",
            "check that the config belongs to the weights",
        )
    for key in SKIPS:
        if config.numbers.get(key) is not None and config.flag(key, False) != skips:
            found = "holds" if skips else "lacks"
            raise SourceError(
                f"{config.path}: {key} is {config.numbers[key]}, but the file {found} {SKIP}", "check which belongs"
            )
    return transcodes
