"""Interventions on a language model through an SAE's codes: steering, ablation, or any other edit.

with intervene(model, sae, lambda z: ablated(z, [1042])):
    model.generate(**prompt)
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rational_sae.data.language_model import Hook, Host
from rational_sae.data.reading import settle
from rational_sae.errors import HostError
from rational_sae.sae.cfg import KWARGS
from rational_sae.sae.model import SAE

Edit = Callable[[Tensor], Tensor]
"""z: [batch, context, d_sae] → the codes to go on with, of the same shape. It may not change z in place."""


@contextlib.contextmanager
def intervene(model: Any, sae: SAE, edit: Edit, *, hook: str | None = None, error_term: bool = True) -> Iterator[None]:
    """While open, every forward of the model goes on with edited codes at the SAE's hook.

    model: a causal language model of transformers, or a `Host`. hook: default the SAE's own. error_term: what the SAE
    does not explain stays in, x + decode(edit(z)) − decode(z), so an edit that changes nothing changes nothing;
    without it the stream is decode(edit(z)) at every position, attention sinks included. A transcoder reads at its own
    hook, and what is there goes on as it is; its output is edited where it belongs.

    Raises HostError if the model has no such hook, or another width.
    """
    host = model if isinstance(model, Host) else Host(type(model).__name__, model, None)
    name = hook or sae.metadata.hook_name
    if not name:
        raise HostError("the SAE's config names no hook", "give hook=")
    place = host.pair(name, sae.metadata.hook_name_out or "") if sae.transcodes else host.hook(name)
    if (width := host.width(replace(place, out=None))) != sae.d_in:
        raise HostError(f"the SAE reads width {sae.d_in}, {host.name} has width {width} there", "give its own model")

    read: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        read[:] = [x.clone()]
        return x

    def edited(x: Tensor) -> Tensor:
        source = read[0] if sae.transcodes else x
        normalised, state = sae.normalise(source.float())
        z = sae.encode(source)
        x_hat = sae.decode(edit(z), state)
        if error_term:
            return (x + (x_hat - sae.decode(z, state))).to(x.dtype)
        return sae.with_skip(x_hat, normalised).to(x.dtype)

    sae = _settled(sae, host, place)
    with contextlib.ExitStack() as stack:
        if place.out is not None:
            stack.enter_context(host.noted(place, note))
        stack.enter_context(host.edited(place.out or place, edited))
        yield


def _settled(sae: SAE, host: Host, hook: Hook) -> SAE:
    """The SAE itself, or a copy that is settled if its config states another form of the model."""
    stated = sae.metadata.extra.get(KWARGS) or {}
    if not (sae.centred or stated.get("fold_value_biases")):
        return sae
    own = copy.deepcopy(sae)
    settle(own, host, hook)
    return own


@torch.no_grad()
def maxima(model: Any, sae: SAE, input_ids: Tensor, *, hook: str | None = None) -> Tensor:
    """Each latent's largest code over some text: [d_sae] float32, the scale on which a strength means something.

    input_ids: [batch, context] int64. Its first position, where most models keep no meaning, is left out. Raises
    HostError as `intervene` does.

    >>> peak = maxima(model, sae, tokenizer(text, return_tensors="pt").input_ids)[220]  # doctest: +SKIP
    >>> with intervene(model, sae, lambda z: steered(z, [220], 2 * peak)): ...  # doctest: +SKIP
    """
    found = torch.zeros(sae.d_sae)

    def seen(z: Tensor) -> Tensor:
        found.copy_(torch.maximum(found, z[:, 1:].flatten(0, 1).amax(0).float().cpu()))
        return z

    with intervene(model, sae, seen, hook=hook):
        (model.model if isinstance(model, Host) else model)(input_ids=input_ids)
    return found


def ablated(z: Tensor, latents: Sequence[int]) -> Tensor:
    """Codes with some latents set to 0. z: [..., d_sae]."""
    return steered(z, latents, 0.0)


def steered(z: Tensor, latents: Sequence[int], value: float | Tensor) -> Tensor:
    """Codes with some latents set to a value, active or not. z: [..., d_sae]."""
    return z.index_fill(-1, torch.tensor(latents, device=z.device), float(value))
