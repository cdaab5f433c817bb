"""Where in a model each kind of place is: a module of a block, and whether what goes in or what comes out.

    kind                    what is there
    resid_pre, resid_post   no module: the stream between two blocks, which `language_model` reads
    resid_mid               what goes into the MLP's norm; refused where attention and MLP stand side by side
    attn_in, mlp_in         what goes into attention and into the MLP: a norm's output
    hook_z                  what goes into the product that mixes the heads, side by side
    attn_raw, mlp_raw       what comes out of attention and of the MLP
    attn_out, mlp_out       what is added to the stream: the same, or what a norm behind them gives (Gemma 2 and 3)
    *_in_unscaled           what goes into the norm, divided by its root mean square: read and never replaced
    embed                   what comes out of the token embedding

`LAYOUTS` has the modules' names for each architecture; `tests/data/test_places.py` compares each with the block's own
arithmetic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rational_sae.data.hook_names import KINDS, Kind
from rational_sae.errors import HostError

Side = Literal["input", "output"]

Edit = Callable[[Tensor], Tensor]
"""[batch, context, width] in the model's dtype to the same."""


@dataclass(frozen=True)
class Layout:
    """Paths of a block's modules, within the block."""

    attn: str
    """Attention; what comes out is a tensor, or the first of a tuple."""
    mix: str
    """The linear map from all heads to the stream."""
    mlp: str = "mlp"
    """What reads the MLP's input."""
    mlp_end: str = "mlp"
    """What gives the MLP's output."""
    ln1: str | None = "input_layernorm"
    """The norm in front of attention."""
    ln2: str | None = "post_attention_layernorm"
    """The norm in front of the MLP alone."""
    attn_norm: str | None = None
    """A norm between attention and the stream."""
    mlp_norm: str | None = None
    """A norm between the MLP and the stream."""
    side_by_side: bool = False
    """Whether the MLP reads the block's input, not what attention made of it."""
    flat: bool = False
    """Whether the MLP and its norm see [batch · context, width]."""


LLAMA = Layout("self_attn", "self_attn.o_proj")
GEMMA_2 = Layout(
    "self_attn",
    "self_attn.o_proj",
    ln2="pre_feedforward_layernorm",
    attn_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)
OLMO_2 = Layout(
    "self_attn",
    "self_attn.o_proj",
    ln1=None,
    ln2=None,
    attn_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)
GPT_2 = Layout("attn", "attn.c_proj", ln1="ln_1", ln2="ln_2")
OPT = Layout(
    *("self_attn", "self_attn.out_proj", "fc1", "fc2"), ln1="self_attn_layer_norm", ln2="final_layer_norm", flat=True
)

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "gpt2": (GPT_2,),
    "gpt_neo": (Layout("attn", "attn.attention.out_proj", ln1="ln_1", ln2="ln_2"),),
    "gptj": (Layout("attn", "attn.out_proj", ln1="ln_1", ln2=None, side_by_side=True),),
    "gpt_neox": (Layout("attention", "attention.dense"),),
    "opt": (OPT,),
    "phi": (Layout("self_attn", "self_attn.dense", ln2=None, side_by_side=True),),
    "gemma2": (GEMMA_2,),
    "gemma3_text": (GEMMA_2,),
    "olmo2": (OLMO_2,),
    "olmo3": (OLMO_2,),
    # Three blocks of four have a recurrence in attention's place.
    "qwen3_5_text": (LLAMA, Layout("linear_attn", "linear_attn.out_proj")),
    "qwen3_next": (LLAMA, Layout("linear_attn", "linear_attn.out_proj")),
    **dict.fromkeys(
        (
            *("llama", "mistral", "ministral", "mixtral", "gemma", "phi3", "gpt_oss", "smollm3", "olmo"),
            *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
        ),
        (LLAMA,),
    ),
}
"""By `model_type` of the text model's config. The first counts whose modules a block has."""


@dataclass(frozen=True)
class Spot:
    """One side of a module."""

    kind: Kind
    module: str
    """Its path within the block."""
    side: Side
    in_model: bool = False
    """Whether the path is one within the model instead."""
    goes_on: bool = False
    """Whether the very tensor that the module reads is added to later: it is then replaced where it stands."""
    unscaled: bool = False
    """Whether the input is divided by its root mean square, and so can be read but not replaced."""
    flat: bool = False
    """Whether the module sees [batch · context, width]."""

    @property
    def is_added(self) -> bool:
        """Whether what is there is the stream, or added to it."""
        return self.goes_on or self.side == "output"


def spot(kind: Kind, block: nn.Module, config: Any, name: str) -> Spot:
    """Where a kind of place is in a block. config: of the text model; name: of the place, for the error.

    Raises HostError for an architecture that is not in the table, and for a place that its blocks do not have.
    """
    layout = _layout(block, config, name)
    norms = {"attn_in_unscaled": layout.ln1, "mlp_in_unscaled": layout.ln2}
    if kind in norms:
        return Spot(kind, _rms_norm(norms[kind], block, config, name), "input", unscaled=True)
    if kind == "resid_mid":
        if layout.side_by_side or getattr(config, "use_parallel_residual", False):
            raise HostError(
                f"{name[:200]!r}: in {config.model_type} attention and MLP stand side by side, with no stream between",
                "use an SAE of a block's input or output",
            )
        return Spot(kind, layout.ln2 or layout.mlp, "input", goes_on=True, flat=layout.flat)
    sides: dict[str, tuple[str, Side]] = {
        "attn_in": (layout.attn, "input"),
        "hook_z": (layout.mix, "input"),
        "attn_raw": (layout.attn, "output"),
        "attn_out": (layout.attn_norm or layout.attn, "output"),
        "mlp_in": (layout.mlp, "input"),
        "mlp_raw": (layout.mlp_end, "output"),
        "mlp_out": (layout.mlp_norm or layout.mlp_end, "output"),
    }
    module, side = sides[kind]
    return Spot(kind, module, side, flat=layout.flat and kind.startswith("mlp"))


def embedding_spot(model: Any, name: str) -> Spot:
    """Where the token embedding comes out. Raises HostError if its scale is applied elsewhere."""
    module = model.get_input_embeddings()
    if "gemma" in model.config.model_type and not hasattr(module, "embed_scale"):
        raise HostError(
            f"{name[:200]!r}: this version of transformers scales the embedding of {model.config.model_type} behind it",
            "install transformers 5",
        )
    return Spot("embed", next(path for path, one in model.named_modules() if one is module), "output", in_model=True)


def value_biases(block: nn.Module, config: Any) -> Tensor | None:
    """What attention's heads, side by side, get from the biases of their values: [heads · width of a head]; None where
    it is not known where they are. Attention's weights sum to 1, so it is the same at every token.
    """
    attn = block.get_submodule(LAYOUTS[config.model_type][0].attn)
    joint: Any = getattr(attn, "c_attn", None)  # GPT-2: queries, keys and values
    if joint is not None:
        return joint.bias.chunk(3)[2]
    if not isinstance(values := getattr(attn, "v_proj", None), nn.Linear) or hasattr(attn, "sinks"):
        return None
    heads, own = config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    biases = torch.zeros(values.out_features, device=values.weight.device) if values.bias is None else values.bias
    return biases.view(own, -1).repeat_interleave(heads // own, 0).flatten()


def after_mixing(block: nn.Module, config: Any, kind: Kind, name: str) -> list[nn.Module]:
    """Modules between a place within attention or the MLP and the stream: the product that mixes the heads, and a norm
    behind. name: of the place, for the error."""
    layout = _layout(block, config, name)
    paths = {
        "hook_z": (layout.mix, layout.attn_norm),
        "attn_raw": (layout.attn_norm,),
        "mlp_raw": (layout.mlp_norm,),
    }
    return [block.get_submodule(path) for path in paths.get(kind, ()) if path is not None]


@contextlib.contextmanager
def edited_at(block: nn.Module, where: Spot, edit: Edit) -> Iterator[None]:
    """While open, every forward of a block (of the model, where `in_model` is set) goes on with edit(x) at a spot."""
    module = block.get_submodule(where.module)
    with contextlib.ExitStack() as stack:
        if where.flat:
            edit = _unflattened(block, edit, stack)
        if where.unscaled:
            handle = module.register_forward_pre_hook(at_input(_divided(module, edit)), with_kwargs=True)
        elif where.goes_on:
            handle = module.register_forward_pre_hook(_in_place(edit), with_kwargs=True)
        elif where.side == "input":
            handle = module.register_forward_pre_hook(at_input(edit), with_kwargs=True)
        else:
            handle = module.register_forward_hook(at_output(edit))
        stack.callback(handle.remove)
        yield


def at_input(edit: Edit):
    """A forward pre-hook, with keywords, that edits what a module reads."""

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return enter


def at_output(edit: Edit):
    """A forward hook that edits what a module gives: a tensor, or the first of a tuple."""

    def leave(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return edit(output) if isinstance(output, Tensor) else (edit(output[0]), *output[1:])

    return leave


def _layout(block: nn.Module, config: Any, name: str) -> Layout:
    modules = dict(block.named_modules())
    for layout in LAYOUTS.get(config.model_type, ()):
        if layout.attn in modules and getattr(config, "do_layer_norm_before", True):
            return layout
    kinds = "a block's input or output, such as blocks.N.hook_resid_post"
    raise HostError(
        f"{name[:200]!r}: where that is in a model of type {config.model_type} is not known", f"use an SAE of {kinds}"
    )


def _rms_norm(norm: str | None, block: nn.Module, config: Any, name: str) -> str:
    """Raise HostError unless it is an RMS norm, of which TransformerLens' `hook_normalized` is before the weights."""
    module = None if norm is None else block.get_submodule(norm)
    if norm is None or _epsilon(module) is None:
        raise HostError(
            f"{name[:200]!r} is in front of the weights of an RMS norm, and {config.model_type} has none there",
            f"use an SAE of {KINDS['mlp_in']}",
        )
    return norm


def _epsilon(norm: Any) -> float | None:
    """Of an RMS norm; None for any other."""
    if isinstance(norm, nn.LayerNorm):
        return None
    found = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return found if isinstance(found, float) else None


def _divided(norm: nn.Module, edit: Edit) -> Edit:
    epsilon = _epsilon(norm)
    assert epsilon is not None

    def read(x: Tensor) -> Tensor:
        wide = x.float()
        edit((wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)).to(x.dtype))
        return x

    return read


def _in_place(edit: Edit):
    """A pre-hook that replaces the tensor that a module reads, for those too that hold it already."""

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = args[0] if args else kwargs["hidden_states"]
        stream.copy_(edit(stream.clone()))  # the clone stays as it was, so that gradients of edit can be taken

    return enter


def _unflattened(block: nn.Module, edit: Edit, stack: contextlib.ExitStack) -> Edit:
    """An edit of [batch, context, width], of what a block flattens to [batch · context, width] before."""
    shape: list[torch.Size] = []

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shape[:] = [(args[0] if args else kwargs["hidden_states"]).shape[:-1]]

    stack.callback(block.register_forward_pre_hook(note, with_kwargs=True).remove)
    return lambda x: edit(x.view(*shape[0], -1)).reshape(x.shape) if x.dim() == 2 else edit(x)
