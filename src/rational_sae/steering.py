"""Interventions on a language model through an SAE's codes: steering, ablation, or any other edit.

with intervene(model, sae, lambda z: ablated(z, [1042])):
    model.generate(**prompt)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rational_sae.data.language_model import Host
from rational_sae.errors import HostError
from rational_sae.sae.model import SAE

Edit = Callable[[Tensor], Tensor]
"""z: [batch, context, d_sae] → the codes to go on with, of the same shape. It may not change z in place."""


@contextlib.contextmanager
def intervene(model: Any, sae: SAE, edit: Edit, *, hook: str | None = None, error_term: bool = True) -> Iterator[None]:
    """While open, every forward of the model goes on with edited codes at the SAE's hook.

    model: a causal language model of transformers, or a `Host`. hook: default the SAE's own. error_term: what the SAE
    does not explain stays in, x + decode(edit(z)) − decode(z), so an edit that changes nothing changes nothing;
    without it the stream is decode(edit(z)) at every position, attention sinks included.

    Raises HostError if the model has no such hook, or another width.
    """
    host = model if isinstance(model, Host) else Host(type(model).__name__, model, None)
    name = hook or sae.metadata.hook_name
    if not name:
        raise HostError("the SAE's config names no hook", "give hook=")
    if host.d_model != sae.d_in:
        raise HostError(f"the SAE reads width {sae.d_in}, {host.name} has width {host.d_model}", "give its own model")

    def edited(x: Tensor) -> Tensor:
        state = sae.normalise(x.float())[1]
        z = sae.encode(x)
        x_hat = sae.decode(edit(z), state)
        return (x + (x_hat - sae.decode(z, state)) if error_term else x_hat).to(x.dtype)

    with host.edited(host.hook(name), edited):
        yield


def ablated(z: Tensor, latents: Sequence[int]) -> Tensor:
    """Codes with some latents set to 0. z: [..., d_sae]."""
    return steered(z, latents, 0.0)


def steered(z: Tensor, latents: Sequence[int], value: float) -> Tensor:
    """Codes with some latents set to a value, active or not. z: [..., d_sae]."""
    return z.index_fill(-1, torch.tensor(latents, device=z.device), value)
