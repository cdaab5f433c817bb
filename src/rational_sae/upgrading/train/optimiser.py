"""Adam over an SAE's parameters, in groups that have a learning rate and a clip of their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rational_sae.sae.model import SAE
from rational_sae.upgrading.settings import Settings

CLIP_WEIGHTS, CLIP_SHAPE = 1.0, 0.1
"""Largest gradient norm of a group. Apart, or the coefficients' gradient vanishes under the weights'."""


@dataclass(frozen=True)
class Group:
    """Parameters that are clipped together."""

    parameters: list[Tensor]
    lr: float
    clip: float


class Optimiser:
    """Steps, or refuses to. rate: factor on all learning rates."""

    def __init__(self, sae: SAE, settings: Settings, rate: float) -> None:
        self.sae = sae
        self.W_enc = sae.W_enc.detach().T.requires_grad_(sae.W_enc.requires_grad)
        """[d_sae, d_in], the encoder's own memory as it lies there: of a transposed parameter Adam makes a copy."""
        weights: list[Tensor] = [self.W_enc, sae.b_enc, *_of_decoder(sae), sae.b_dec]
        if sae.W_skip is not None:
            weights.append(sae.W_skip)
        own = sae.parameter_groups()
        self.groups = [
            Group(weights, settings.lr, CLIP_WEIGHTS),
            *(
                Group(list(own[kind]), lr, clip)
                for kind, lr, clip in (
                    ("threshold", settings.lr_threshold, CLIP_WEIGHTS),
                    ("shape", settings.lr_shape, CLIP_SHAPE),
                )
                if kind in own
            ),
        ]
        self.adam = torch.optim.Adam(
            [{"params": group.parameters, "lr": group.lr} for group in self.groups], betas=(0.9, 0.99), fused=True
        )
        self.rates = [rate * group.lr for group in self.groups]

    @property
    def parameters(self) -> list[Tensor]:
        """In the order of `state`."""
        return [parameter for group in self.groups for parameter in group.parameters]

    def zero(self) -> None:
        """Hold no gradients."""
        self.adam.zero_grad(set_to_none=True)

    def take_encoder_gradient(self) -> None:
        """Hand the gradient that `backward` gave to the SAE's W_enc to the view of it that is trained."""
        if self.sae.W_enc.grad is not None:
            self.W_enc.grad, self.sae.W_enc.grad = self.sae.W_enc.grad.T, None

    def step(self, fraction: float) -> bool:
        """Clip and step; False, and nothing done, if a gradient is not finite. fraction: of the learning rates."""
        if not self._clip():
            return False
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * fraction
        self.adam.step()
        self.zero()  # not held while the other candidates step
        return True

    def _clip(self) -> bool:
        gradients = [[p.grad for p in group.parameters if p.grad is not None] for group in self.groups]
        norms = [nn.utils.get_total_norm(group) for group in gradients]
        if not all(bool(torch.isfinite(norm)) for norm in norms):
            return False
        for group, norm in zip(self.groups, norms, strict=True):
            if float(norm) > group.clip:  # a pass over all gradients, and mostly for nothing
                nn.utils.clip_grads_with_norm_(group.parameters, group.clip, norm)
        return True

    def forget(self, latents: Tensor) -> None:
        """Drop what Adam remembers of these latents, [m] int64."""
        for parameter in self.parameters:
            for moment in self.adam.state.get(parameter, {}).values():
                if moment.shape == parameter.shape and self.sae.d_sae in moment.shape:
                    moment.index_fill_(moment.shape.index(self.sae.d_sae), latents, 0.0)

    def forget_all(self) -> None:
        self.adam.state.clear()

    def state(self) -> dict[str, Tensor]:
        """What Adam remembers, by the parameter's number and the moment's name."""
        return {
            f"{number}.{name}": value
            for number, parameter in enumerate(self.parameters)
            for name, value in self.adam.state.get(parameter, {}).items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back a `state()`."""
        for number, parameter in enumerate(self.parameters):
            kept = under(state, f"{number}.")
            if kept:
                self.adam.state[parameter] = {
                    name: torch.empty_like(like, device=parameter.device).copy_(value)
                    for name, value in kept.items()
                    for like in [parameter if value.shape == parameter.shape else value]
                }


def _of_decoder(sae: SAE) -> list[Tensor]:
    """W_dec, or what is trained of a map that it is seen through."""
    if not parametrize.is_parametrized(sae, "W_dec"):
        return [sae.W_dec]
    return [one for name, one in sae.named_parameters() if name.startswith("parametrizations.") and one.requires_grad]


def under(state: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    """Entries whose names begin so, by the rest of their names."""
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
