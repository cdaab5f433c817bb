"""Names of places in a model, as SAEs' configs write them: which is a boundary between two blocks, and what others are.

Block n reads the residual stream at boundary n and leaves it at boundary n + 1. Names that are read:

module paths            `model.layers.11`, or its end, `layers.11`; with `.output` (nnsight, Gemma Scope 2) or `.input`
TransformerLens to 2    `blocks.11.hook_resid_pre`, `blocks.11.hook_resid_post`
TransformerLens 3       `blocks.11.hook_in`, `blocks.11.hook_out`
dictionary_learning     `resid_post_layer_11`, `resid_pre_layer_11`
"""

from __future__ import annotations

import re

from rational_sae.errors import HostError

TRANSFORMER_LENS = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|in|resid_post|out)")

DICTIONARY = re.compile(r"resid_(post|out|pre|in)_layer_?(\d+)")

WITHOUT_SIDE = re.compile(r"resid_layer_?(\d+)|blocks\.(\d+)\.hook_resid|blocks\.(\d+)")
"""Names of a block that say neither its input nor its output."""

MODULE = re.compile(r"(.+?)\.(\d+)(?:\.(output|input)(?:\[0\]|\.0)?)?")

BLOCK = re.compile(r".*\.\d+(?:\.(?:output|input))?(?:\[0\]|\.0)?")
"""A name that may be that of a block in some model, whatever words come before the number."""

ELSEWHERE = (
    (r"resid_mid", "the residual stream inside a block, between attention and MLP"),
    (r"unembed|lm_head|logits|ln_final|ln_f\b|final_(layer_)?norm", "behind the last block"),
    (r"embed|\bwte\b|\bwpe\b", "an embedding"),
    (r"layer_?norm|\bnorm\b|ln_?\d|hook_normalized|hook_scale", "a layer norm"),
    (r"hook_mlp_in|\bmlp\.(hook_in|input)|\bmlp_in\b", "the input of an MLP"),
    (r"mlp_out|mlp_layer|mlp_\d|\bmlp(\.hook_out|\.output)?$", "the output of an MLP"),
    (r"\bmlp\b|hook_pre$|hook_post$", "inside an MLP"),
    (
        r"hook_z|o_proj\.input|\bo\.hook_in|attn\.c_proj\.input",
        "what attention heads give before they are mixed (hook_z)",
    ),
    (r"attn_in\b|attn\.(hook_in|input)$|attention\.(hook_in|input)$", "the input of attention"),
    (r"attn_out|att(n|ention)_layer|(self_)?att(n|ention)(\.hook_out|\.output)?$", "the output of attention"),
    (r"attn|attention|hook_[qkv]\b|hook_pattern", "inside attention"),
)
"""Parts of names of other places, and what is there. The first that is found counts."""

ONLY = "only the residual stream between two blocks is read"

REMEDY = "use an SAE of a block's input or output, such as blocks.N.hook_resid_post"


def boundary(name: str, path: str, depth: int) -> int | None:
    """The boundary of a name: 0 is the embedding, `depth` the last block's output; None for a name that is not known.

    path: of the model's list of blocks; depth: how many they are. Raises HostError for a name of another place, and for
    one that says neither input nor output.
    """
    found = _side(name, path)
    if found is not None:
        block, after = found
        return block + after if block < depth else None
    if without := WITHOUT_SIDE.fullmatch(name):
        block = next(group for group in without.groups() if group)
        raise HostError(
            f"{name!r} says neither the input nor the output of block {block}",
            f"give --hook blocks.{block}.hook_resid_pre or --hook blocks.{block}.hook_resid_post",
        )
    refuse_elsewhere(name)
    return None


def refuse_elsewhere(name: str) -> None:
    """Raise HostError for the name of a place that is no boundary in any model."""
    what = None if BLOCK.fullmatch(name) else elsewhere(name)
    if what:
        raise HostError(f"{name[:200]!r} is {what}; {ONLY}", REMEDY)


def elsewhere(name: str) -> str | None:
    """What is at a place that is no boundary, in words; None where its name does not tell."""
    return next((what for pattern, what in ELSEWHERE if re.search(pattern, name.lower())), None)


def residual_name(name: str, layer: int, *, side: str | None = None) -> str | None:
    """dictionary_learning's name of a residual place in TransformerLens' words; None for any other.

    side: `in` or `out`, what the run's buffer says of a name without one.
    """
    found = DICTIONARY.fullmatch(name)
    if found:
        return f"blocks.{layer}.hook_resid_{'post' if found[1] in ('post', 'out') else 'pre'}"
    if WITHOUT_SIDE.fullmatch(name) and side in ("in", "out"):
        return f"blocks.{layer}.hook_resid_{'post' if side == 'out' else 'pre'}"
    return None


def _side(name: str, path: str) -> tuple[int, bool] | None:
    """The block of a name, and whether it is the block's output."""
    if found := TRANSFORMER_LENS.fullmatch(name):
        return int(found[1]), found[2] in ("resid_post", "out")
    if found := DICTIONARY.fullmatch(name):
        return int(found[2]), found[1] in ("post", "out")
    found = MODULE.fullmatch(name)
    # sparsify names modules from the base model on: `layers.11` for `model.layers.11`.
    if found and f".{_plain(path)}".endswith(f".{_plain(found[1])}"):
        return int(found[2]), found[3] != "input"
    return None


def _plain(path: str) -> str:
    """A path without the part that only models with a vision tower have: `model.language_model.layers`."""
    return ".".join(part for part in path.split(".") if part != "language_model")
