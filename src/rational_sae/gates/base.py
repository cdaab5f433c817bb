"""What every gate offers, and all that the rest of the program asks of one.

A gate takes pre-activations h to codes z, elementwise or per token. Everything inside is float32, whatever the
autocast. A forward also returns the L0 of the batch, whose backward is the threshold's: it moves thresholds and
pre-activations, never the shape. A gate knows its own parameters, formula, numbers on disk and bounds, so no other room
asks which gate it has. A new gate is one file here and one line in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from rational_sae.gates.transition import Transition
from rational_sae.kernels.selection import where_above


class Numbers(Protocol):
    """A stored config whose every access checks; `rational_sae.formats.checked.Config` is one."""

    numbers: dict[str, Any]

    def number(self, key: str, default: float) -> float: ...

    def k(self, d_sae: int) -> int: ...

    def wrong(self, key: str, wanted: str) -> Exception: ...


class Float32Module(nn.Module):
    """Moves devices, but stays float32: `sae.to(torch.bfloat16)` must not round it."""

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        kept = [tensor.data for tensor in self._numbers()]
        super()._apply(fn, recurse)
        for before, after in zip(kept, self._numbers(), strict=True):
            if after.dtype != before.dtype:
                after.data = before.to(after.device)
        return self

    def _numbers(self) -> list[Tensor]:
        """The floating-point tensors of this module alone."""
        own = [*self.parameters(recurse=False), *self.buffers(recurse=False)]
        return [tensor for tensor in own if tensor.is_floating_point()]


class Gate(Float32Module):
    """h: [n, d_sae] float32 everywhere."""

    architecture: ClassVar[str]
    """What SAELens calls an SAE with this gate."""

    family: ClassVar[str]
    """What people call an SAE with this gate: relu, jumprelu, topk or rational."""

    elementwise: ClassVar[bool] = True
    """Whether a latent's code depends on its own pre-activation alone, so that L0 follows a threshold."""

    exact_zeros: ClassVar[bool] = True
    """Whether inactive latents read exactly 0."""

    lists_entries: ClassVar[bool] = True
    """Whether `places` and `codes` give all that `forward` gives, so that a step can leave the other entries out."""

    has_threshold: ClassVar[bool] = False
    """Whether each latent has a `threshold` of its own, [d_sae], that gets a gradient and is checked on every code."""

    k: int | None = None
    """How many latents of a token are active at most, where that is the rule."""

    threshold: Tensor
    """[d_sae], where `has_threshold`."""

    transition: Transition | None = None
    """How a threshold gets its gradient, where there is one."""

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """z: [n, d_sae] float32 and l0: scalar, the mean number of active latents."""
        h = h.float()
        places = self.places(h)
        code, l0 = self.codes(h.flatten().index_select(0, places), places % h.shape[-1], len(h))
        return h.new_zeros(h.numel()).scatter_(0, places, code).view_as(h), l0

    def level(self) -> Tensor | None:
        """[d_sae] or []: `places` lists the entries above it; None where a token's other entries matter."""
        return None

    def places(self, h: Tensor) -> Tensor:
        """[m] int64, ascending flat indices into h of the entries that can have a code, or a gradient if it is
        recorded; all others are 0."""
        level = self.level()
        if level is None:
            raise NotImplementedError
        return where_above(h, level)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Codes of listed entries and the mean number of active latents over so many tokens.

        value: [m] float32 pre-activations; latent: [m] int64. Returns code: [m] float32 and l0: scalar.
        """
        raise NotImplementedError

    def margin(self, h: Tensor) -> Tensor:
        """How far each entry is above its threshold, in the units of `shift_`: active where margin > 0."""
        raise NotImplementedError

    def shift_(self, amount: float) -> None:
        """Raise every threshold by the same amount, each in its own unit; where nothing can move, only 0 is allowed."""
        if amount:
            raise NotImplementedError

    def rescale_(self, factor: Tensor) -> None:
        """Follow a change of units h → h·factor, z → z·factor. factor: [d_sae] or [1], positive."""

    def scales(self) -> Tensor:
        """[d_sae]: the unit in which each latent's pre-activations are of order 1, as far as the gate knows."""
        raise NotImplementedError

    def set_scales_(self, latents: Tensor, scales: Tensor) -> None:
        """Give latents, [m] int64, other scales, [m], where the gate keeps any."""

    def like_living(self, living: Tensor, alive: Tensor, threshold: Tensor) -> Tensor:
        """What latents of these thresholds, [m], have where living ones have `living`, [k]: in proportion to the
        threshold. alive: [d_sae] bool, the living ones."""
        return threshold * (living / self.threshold[alive].clamp_min(1e-12)).median()

    def parameter_groups(self) -> dict[str, list[Tensor]]:
        """Trainable parameters by what they are: `threshold` (thresholds and scales) and `shape`. Learning rate and
        clipping are the optimiser's."""
        return {}

    def project_(self, points: int = 256) -> None:
        """Keep the gate where it is safe, after any step. points: on which it may look at its support."""

    def settle_(self) -> None:
        """Forget what was moved for a measurement alone."""

    def check_safe(self) -> None:
        """Raise TrainingError if the gate must not be saved as a success."""

    def above_epsilon(self, z: Tensor) -> Tensor:
        """[n, d_sae] bool: which codes count for `l0_eps`; those that are not 0, where zeros are exact."""
        return z != 0

    def out_of_range(self, h: Tensor) -> Tensor | None:
        """[n, d_sae] bool: entries outside the interval that the gate was designed on; None where there is none."""
        return None

    def as_jumprelu(self, d_sae: int) -> Tensor | None:
        """[d_sae]: the thresholds of the JumpReLU that computes the same, an offset apart; None if none does."""
        return None

    def thresholded(self) -> Gate | None:
        """The same magnitudes under a bar for each latent and no other rule; None where there are no such bars."""
        return None

    def under(self, threshold: Tensor) -> Gate:
        """The same magnitudes where h_j > threshold_j, for a gate without thresholds of its own. threshold: [d_sae]."""
        raise NotImplementedError

    def subtracted(self) -> Tensor | None:
        """What the gate takes off every pre-activation, which b_enc can take over: [], or None if there is nothing."""
        return None

    def title(self) -> str:
        """What a model card calls it."""
        return self.architecture

    def formula(self) -> str:
        """z_j of h_j in mathematics."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Its numbers for people: k, degrees, spreads of scales and thresholds."""
        return {}

    def to_config(self) -> dict[str, Any]:
        """Its numbers as cfg.json has them."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The rest of what is stored, by name: [d_sae] float32 each."""
        return {}

    def state_beside(self) -> dict[str, Tensor]:
        """Tensors that training moves and that are no parameters, for a checkpoint."""
        return {} if self.transition is None else {"half_width": self.transition.half_width.clone()}

    def restore_beside_(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back `state_beside`."""
        if self.transition is not None:
            width = torch.empty_like(self.transition.half_width).copy_(tensors["half_width"])
            self.transition = replace(self.transition, half_width=width)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move the transition too, which is no parameter."""
        super()._apply(fn, recurse)
        if self.transition is not None:
            self.transition = self.transition.to(self.threshold.device)
        return self


def mean_active(code: Tensor, tokens: int) -> Tensor:
    """Scalar: codes that are not 0, a token."""
    return (code != 0).sum() / max(1, tokens)


def spread(values: Tensor) -> dict[str, float]:
    """Least, median and largest."""
    return {"min": float(values.min()), "median": float(values.median()), "max": float(values.max())}
