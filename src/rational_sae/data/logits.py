"""What a direction that is written into a model does to its logits by itself, past all blocks: a logit lens."""

from __future__ import annotations

import torch
from torch import Tensor

from rational_sae.data.language_model import Hook, Host
from rational_sae.data.places import after_mixing
from rational_sae.errors import HostError

LOGITS_AT_ONCE = 1 << 24
"""Numbers of logits held at once: 64 MB in float32."""


@torch.no_grad()
def direct_logits(host: Host, hook: Hook, directions: Tensor) -> Tensor:
    """Direct effect of directions on the logits, through the model's own last norm and unembedding.

    directions: [n, width] as they are added at the hook (for a transcoder, where its output belongs). The stream is
    taken to hold nothing but the direction, and what the norm and the unembedding give for zeros is taken off; a
    direction's length then drops out where there is a norm. Returns [n, vocabulary] float32, each row less its mean,
    for a constant on all logits changes no prediction.

    Raises HostError if what is at the hook is not added to the residual stream, or the model has no unembedding.
    """
    written = _in_stream(host, hook.out or hook, directions)
    found = _unembedded(host, torch.cat([torch.zeros_like(written[:1]), written]))
    effects = found[1:] - found[0]
    return effects - effects.mean(-1, keepdim=True)


def rows_at_once(host: Host) -> int:
    """Directions whose logits fit in LOGITS_AT_ONCE."""
    return max(1, LOGITS_AT_ONCE // host.model.get_input_embeddings().weight.shape[0])


def _require_written(host: Host, hook: Hook) -> None:
    """Raise HostError if what is at a hook is not added to the residual stream, straight or by attention's mixing."""
    place = hook.out or hook
    if place.spot is not None and not place.is_added and place.spot.kind != "hook_z":
        raise HostError(
            f"what is at {place.name} is read by a part of the block and not added to the stream, so that it has no"
            " direct effect on logits",
            "use an SAE of the stream, of attn_out, mlp_out or hook_z",
        )
    if host.model.get_output_embeddings() is None:
        raise HostError(f"{host.name} has no unembedding", "use a causal language model")


def _in_stream(host: Host, hook: Hook, directions: Tensor) -> Tensor:
    """[n, d_model]: what is added to the stream for what is at the hook, less what is added for zeros."""
    _require_written(host, hook)
    directions = directions.to(host.device, host.model.dtype)
    if hook.spot is None or hook.spot.kind not in ("hook_z", "attn_raw", "mlp_raw"):
        return directions
    after = after_mixing(host.blocks[hook.boundary], host.model.config.get_text_config(), hook.spot.kind, hook.name)
    found = torch.cat([torch.zeros_like(directions[:1]), directions])
    for module in after:
        found = module(found[:, None])[:, 0]
    return found[1:] - found[0]


def _unembedded(host: Host, stream: Tensor) -> Tensor:
    """Logits of vectors that come out of the last block, before any soft cap. stream: [n, d_model]."""
    caught: list[Tensor] = []
    head = host.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _module, _args, output: caught.append(output.detach()))
    try:
        ids = torch.zeros(len(stream), 1, dtype=torch.int64)
        host.logits_from(ids, Hook("the last block's output", len(host.blocks)), stream[:, None])
    finally:
        handle.remove()
    return caught[0][:, -1].float()
