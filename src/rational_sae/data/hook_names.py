"""Names of places in a model, as SAEs' configs write them, read into a `Place`: which block, and what of it.

Names that are read:

module paths            `model.layers.11`, or its end, `layers.11`; a part of a block, `model.layers.11.mlp`; with
                        `.output` (nnsight, Gemma Scope 2), `.output[0]` or `.input`; `model.model.layers[11].output[0]`
TransformerLens to 2    `blocks.11.hook_resid_pre`, `blocks.11.hook_mlp_out`, `blocks.11.attn.hook_z`
TransformerLens 3, 4    `blocks.11.hook_in`, `blocks.11.hook_out`, `blocks.11.mlp.hook_out`
dictionary_learning     `resid_post_layer_11`, `mlp_out_layer1`, `attention_layer_3`
sparsify                hookpoints, which are module paths of the base model: `layers.11.mlp`, `h.3`

Where a place is in a model is for `places` to say: norms, for one, stand elsewhere in each architecture.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from rational_sae.errors import HostError

Kind = Literal[
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_in",
    "attn_in_unscaled",
    "hook_z",
    "attn_raw",
    "attn_out",
    "mlp_in",
    "mlp_in_unscaled",
    "mlp_raw",
    "mlp_out",
    "embed",
]

KINDS: dict[Kind, str] = {
    "resid_pre": "the input of a block",
    "resid_mid": "the residual stream inside a block, between attention and MLP",
    "resid_post": "the output of a block",
    "attn_in": "the input of attention: a layer norm's output",
    "attn_in_unscaled": "the input of attention before a layer norm's weights",
    "hook_z": "what attention heads give before they are mixed (hook_z)",
    "attn_raw": "the output of attention, before a norm behind it",
    "attn_out": "the output of attention, as it is added to the residual stream",
    "mlp_in": "the input of an MLP: a layer norm's output",
    "mlp_in_unscaled": "the input of an MLP before a layer norm's weights",
    "mlp_raw": "the output of an MLP, before a norm behind it",
    "mlp_out": "the output of an MLP, as it is added to the residual stream",
    "embed": "the output of the token embedding",
}
"""What is there, in words. `_unscaled` is TransformerLens' `hook_normalized`, which its RMS norms put before their
weights, and its layer norms behind them. `_raw` and `_out` differ where blocks have norms behind attention and MLP, as
Gemma 2 and 3 do."""


@dataclass(frozen=True)
class Place:
    """A place in a model."""

    layer: int
    """Number of the block, from 0; 0 too for the embedding."""
    kind: Kind
    """Which of `KINDS`."""


TRANSFORMER_LENS = re.compile(r"blocks\.(\d+)\.(.+)")

IN_BLOCK: Mapping[str, Kind] = {
    "hook_resid_pre": "resid_pre",
    "hook_in": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "ln2.hook_in": "resid_mid",
    "hook_mlp_in": "resid_mid",  # where the MLP's branch leaves the stream, before its norm
    "hook_resid_post": "resid_post",
    "hook_out": "resid_post",
    "ln1.hook_normalized": "attn_in_unscaled",
    "ln1.hook_out": "attn_in",
    "attn.hook_in": "attn_in",
    "hook_z": "hook_z",
    "attn.hook_z": "hook_z",
    "attn.o.hook_in": "hook_z",
    "attn.hook_out": "attn_raw",
    "attn.o.hook_out": "attn_raw",
    "hook_attn_out": "attn_out",
    "ln1_post.hook_out": "attn_out",
    "ln2.hook_normalized": "mlp_in_unscaled",
    "ln2.hook_out": "mlp_in",
    "mlp.hook_in": "mlp_in",
    "mlp.hook_out": "mlp_raw",
    "mlp.out.hook_out": "mlp_raw",
    "hook_mlp_out": "mlp_out",
    "ln2_post.hook_out": "mlp_out",
}
"""What follows `blocks.N.` in TransformerLens, and in its bridges from version 3 on."""

EMBEDDING = re.compile(r"hook_embed|embed\.hook_out|(?:.+\.)?(?:embed_tokens|embed_in|wte)(?:\.output)?")

DICTIONARY = re.compile(r"(resid|mlp|attn|attention)(?:_(post|out|pre|in))?_layer_?(\d+)")

SUBMODULES: Mapping[tuple[str, str | None], Kind] = {
    ("resid", "pre"): "resid_pre",
    ("resid", "in"): "resid_pre",
    ("resid", "post"): "resid_post",
    ("resid", "out"): "resid_post",
    ("attn", None): "attn_raw",
    ("attn", "out"): "attn_raw",
    ("attn", "post"): "attn_raw",
    ("attn", "in"): "attn_in",
    ("attn", "pre"): "attn_in",
    ("mlp", None): "mlp_raw",
    ("mlp", "out"): "mlp_raw",
    ("mlp", "post"): "mlp_raw",
    ("mlp", "in"): "mlp_in",
    ("mlp", "pre"): "mlp_in",
}
"""dictionary_learning reads the output of a module, or its input: nothing behind a norm that follows it."""

WITHOUT_SIDE = re.compile(r"resid_layer_?(\d+)|blocks\.(\d+)\.hook_resid|blocks\.(\d+)")
"""Names of a block that say neither its input nor its output."""

MODULE = re.compile(r"(.+?)\.(\d+)(?:\.(?!output\b|input\b)(.+?))?(?:\.(output|input)(?:\[0\]|\.0)?)?")
"""A module's path: the list of blocks, the number, a path inside the block, and which side of it."""

BRACKETS = re.compile(r"\[(\d+)\]")
"""nnsight's way to an element: `layers[11]`, `output[0]`."""

ATTENTION = ("attn", "self_attn", "attention", "self_attention", "attn.attention", "linear_attn")

MLPS = ("mlp", "feed_forward", "ffn", "block_sparse_moe")

PROJECTIONS = (
    *("self_attn.o_proj", "self_attn.out_proj", "self_attn.dense", "attn.c_proj", "attn.out_proj", "attn.o_proj"),
    *("attention.dense", "attn.attention.out_proj", "self_attention.dense"),
)
"""Where attention's heads are mixed, in the block of each architecture."""

SIDES: Mapping[str, tuple[Kind | None, Kind | None]] = {
    **dict.fromkeys(ATTENTION, ("attn_in", "attn_raw")),
    **dict.fromkeys(PROJECTIONS, ("hook_z", "attn_raw")),
    **dict.fromkeys(MLPS, ("mlp_in", "mlp_raw")),
    **dict.fromkeys(("mlp.c_proj", "mlp.down_proj", "mlp.dense_4h_to_h", "mlp.fc_out", "mlp.fc2"), (None, "mlp_raw")),
    **dict.fromkeys(("ln_1", "input_layernorm"), ("resid_pre", "attn_in")),
    "ln_2": ("resid_mid", "mlp_in"),
    "pre_feedforward_layernorm": ("resid_mid", "mlp_in"),
    "post_feedforward_layernorm": ("mlp_raw", "mlp_out"),
}
"""What goes into a module of a block, and what comes out of it."""

POST_ATTENTION = "post_attention_layernorm"
"""Behind attention in Gemma 2, Gemma 3 and OLMo 2, in front of the MLP everywhere else: the block tells."""

POST_MLP = "post_feedforward_layernorm"
"""A block that has it has norms behind attention and MLP."""

BLOCK = re.compile(r".*\.\d+(?:\.(?:output|input))?(?:\[0\]|\.0)?")
"""A name that may be that of a block in some model, whatever words come before the number."""

ELSEWHERE = (
    (r"unembed|lm_head|logits|ln_final|ln_f\b|final_(layer_)?norm", "behind the last block"),
    (r"embed|\bwte\b|\bwpe\b", "an embedding"),
    (r"layer_?norm|\bnorm\b|ln_?\d|hook_normalized|hook_scale", "a layer norm"),
    (r"\bmlp|hook_pre$|hook_post$", "inside an MLP"),
    (r"hook_attn_in", "the input of attention, once a head"),
    (r"attn|attention|hook_[qkv]\b|hook_pattern", "inside attention"),
)
"""Parts of names of what is no place that an SAE reads, and what is there. The first that is found counts."""

REMEDY = "use an SAE of the stream or of what attention or an MLP adds to it, such as blocks.N.hook_resid_post"


def parse(name: str, path: str | None = None, parts: Collection[str] | None = None) -> Place | None:
    """The place of a name; None for one that is none of those above.

    path: of the model's list of blocks, which a module's path must start with; None takes any list.
    parts: names of a block's own modules, which tell what post_attention_layernorm is; without them it is not known.
    Raises HostError for a name of a block that says neither input nor output.

    >>> parse("blocks.8.hook_resid_pre")
    Place(layer=8, kind='resid_pre')
    >>> parse("model.layers.7.self_attn.o_proj.input")
    Place(layer=7, kind='hook_z')
    """
    if EMBEDDING.fullmatch(name):
        return Place(0, "embed")
    if (found := TRANSFORMER_LENS.fullmatch(name)) and found[2] in IN_BLOCK:
        return Place(int(found[1]), IN_BLOCK[found[2]])
    if found := DICTIONARY.fullmatch(name):
        kind = SUBMODULES.get((found[1].replace("attention", "attn"), found[2]))
        if kind:
            return Place(int(found[3]), kind)
    if place := _module(name, path, parts):
        return place
    if without := WITHOUT_SIDE.fullmatch(name):
        block = next(group for group in without.groups() if group)
        raise HostError(
            f"{name!r} says neither the input nor the output of block {block}",
            f"give --hook blocks.{block}.hook_resid_pre or --hook blocks.{block}.hook_resid_post",
        )
    return None


def refuse_elsewhere(name: str) -> None:
    """Raise HostError for the name of a place that no model gives, before one is loaded."""
    what = elsewhere(name)
    if what:
        raise HostError(f"{name[:200]!r} is {what}, where no SAE is read", REMEDY)


def elsewhere(name: str) -> str | None:
    """What is at a place that is not read, in words; None for one that is, and where its name does not tell."""
    if BLOCK.fullmatch(name) or WITHOUT_SIDE.fullmatch(name) or POST_ATTENTION in name or parse(name):
        return None
    return next((what for pattern, what in ELSEWHERE if re.search(pattern, name.lower())), None)


def residual_name(name: str, layer: int, *, side: str | None = None) -> str | None:
    """dictionary_learning's name of a residual place in TransformerLens' words; None for any other.

    side: `in` or `out`, what the run's buffer says of a name without one. A module's name gets it too, if it is its
    input: `mlp_in_layer_3`.
    """
    found = DICTIONARY.fullmatch(name)
    if found and found[1] != "resid" and not found[2] and side == "in":
        return f"{found[1]}_in_layer_{found[3]}"
    if found and found[1] == "resid" and found[2]:
        return f"blocks.{layer}.hook_resid_{'post' if found[2] in ('post', 'out') else 'pre'}"
    if WITHOUT_SIDE.fullmatch(name) and side in ("in", "out"):
        return f"blocks.{layer}.hook_resid_{'post' if side == 'out' else 'pre'}"
    return None


def _module(name: str, path: str | None, parts: Collection[str] | None) -> Place | None:
    """The place of a module's path."""
    found = MODULE.fullmatch(BRACKETS.sub(r".\1", name))
    if not found:
        return None
    blocks, layer, inside, side = found.groups()
    if path is not None and not _same_list(_plain(path), _plain(blocks)):
        return None
    if path is None and blocks == "blocks" and not (inside or side):
        return None  # TransformerLens' word for a list, and a model's: which is for the model to say
    if inside is None:
        return Place(int(layer), "resid_pre" if side == "input" else "resid_post")
    kind = _side_of(inside, side == "input", parts)
    return Place(int(layer), kind) if kind else None


def _same_list(path: str, named: str) -> bool:
    """Whether one is the other's end. sparsify names modules from the base model on, `layers.11` for `model.layers.11`;
    nnsight from what it wraps the model in, `model.model.layers[11]`."""
    return f".{path}".endswith(f".{named}") or f".{named}".endswith(f".{path}")


def _side_of(inside: str, into: bool, parts: Collection[str] | None) -> Kind | None:
    """What goes into a module of a block, or comes out of it."""
    if inside != POST_ATTENTION:
        sides = SIDES.get(inside, (None, None))
        return sides[0] if into else sides[1]
    if parts is None:
        return None
    if POST_MLP in parts:
        return "attn_raw" if into else "attn_out"
    return None if into else "mlp_in"


def _plain(path: str) -> str:
    """A path without the part that only models with a vision tower have: `model.language_model.layers`."""
    return ".".join(part for part in path.split(".") if part != "language_model")
