"""Dead latents that return: a latent that never fires is given the residual of a token that is explained badly.

A dead latent costs nothing and gives nothing, so a new direction is a pure gain of capacity. The direction is a
token's residual, drawn in proportion to its squared norm (the resampling of Bricken et al., "Towards Monosemanticity",
2023, who draw from the loss in the same way); encoder gain and threshold are then set in closed form, so that the
latent fires as often as the others do and takes off what least squares says.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rational_sae.sae.match_l0 import CHUNK
from rational_sae.sae.model import SAE

EXPECTED_FIRINGS = 200.0
"""Firings of the average latent before one that has not fired is called dead: its rate is then below 1/50 of the
average with near certainty. A wide dictionary has rare latents that are alive, and they must stay."""

LATEST = 0.25
"""Share of the run after which nothing is revived: what returns needs the rest to settle."""

EARLIEST = 0.05
"""Share of the run before which nothing is revived: the warm-up of the learning rate."""

FEWEST = 8
"""Tokens on which a revived latent fires at least, of those it is fitted on."""

SMALLEST_GAIN = 0.05

AT_ONCE = 256
"""Latents fitted at once: bounds memory to a few [n, AT_ONCE] float32."""


def revive_every(steps: int, batch_tokens: int, d_sae: int, l0: float) -> int | None:
    """Steps after which dead latents are known and revived, again and again until LATEST; None if the run is too short
    to tell."""
    tokens = EXPECTED_FIRINGS * d_sae / max(l0, 1e-6)
    step = max(round(EARLIEST * steps), -int(-tokens // batch_tokens), 1)
    return step if step <= LATEST * steps else None


@torch.no_grad()
def revive_(sae: SAE, dead: Tensor, x: Tensor, l0: float, seed: int) -> Tensor:
    """Give dead latents new directions, gains and thresholds, in place. Returns those that got one, [m] int64.

    sae: with a hard gate; dead: [m] int64; x: [n, d_in] float32, of which at most n latents are revived; l0: whose
    share l0 / d_sae of the tokens a revived latent fires on.
    """
    gate = sae.gate
    transition = gate.transition
    assert gate.has_threshold
    assert transition is not None
    dead = dead[: len(x)]
    if not len(dead):
        return dead
    centred, residual = _explained(sae, x)
    draw = torch.Generator().manual_seed(seed)
    # On the CPU whatever the device, so that all devices and processes draw alike.
    drawn = torch.multinomial(residual.pow(2).sum(-1).cpu(), len(dead), generator=draw).to(x.device)
    direction = normalize(residual[drawn], dim=-1)
    # A transcoder's residual is of another place than what it reads: the token itself gives the encoder's direction.
    read = normalize(centred[drawn] - centred.mean(0), dim=-1) if sae.transcodes else direction
    count = min(max(FEWEST, round(l0 / sae.d_sae * len(x))), len(x) - 1)
    pairs = zip(read.split(AT_ONCE), direction.split(AT_ONCE), strict=True)
    fitted = [_fit(into, out, centred, residual, count) for into, out in pairs]
    gain, bias, threshold = (torch.cat(values) for values in zip(*fitted, strict=True))
    alive = torch.ones(sae.d_sae, dtype=torch.bool, device=x.device)
    alive[dead] = False
    sae.W_enc[:, dead] = (read * gain[:, None]).T
    subtracted = sae.apply_b_dec_to_input or sae.transcodes
    sae.b_enc[dead] = bias if subtracted else bias - gain * (direction @ sae.b_dec)
    sae.W_dec[dead] = direction
    width = transition.half_width.clone()
    width[dead] = gate.like_living(width[alive], alive, threshold)
    gate.set_scales_(dead, gate.like_living(gate.scales()[alive], alive, threshold))
    gate.transition = replace(transition, half_width=width)
    gate.threshold[dead] = threshold
    return dead


def _explained(sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the encoder's columns read: [n, d_in], and what is left of what is to be given: [n, d_out]."""
    centred, residual = [], []
    for part in x.split(CHUNK):
        normalised, state = sae.normalise(part)
        h = sae.preactivations(part)
        left = sae.target(part) - sae.with_skip(sae.decode(sae.gate(h)[0], state), normalised)
        centred.append(normalised if sae.transcodes else normalised - sae.b_dec)
        residual.append(left if state is None else left / state.scale)
    return torch.cat(centred), torch.cat(residual)


def _fit(
    read: Tensor, direction: Tensor, centred: Tensor, residual: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gain, bias and threshold of new latents, [m] each, which fire on the `count` tokens that point their way the
    most. read: [m, d_in], of the encoder; direction: [m, d_out], of the decoder.

    The bias takes off the mean along the direction: it may be large and negative, and a threshold must be positive.
    """
    along = centred @ read.T
    mean = along.mean(0)
    along = along - mean
    top = along.topk(count + 1, dim=0)
    on, h = top.indices[:-1], top.values[:-1]
    missing = (residual @ direction.T).gather(0, on)
    gain = ((h * missing).sum(0) / h.pow(2).sum(0).clamp_min(1e-12)).clamp(SMALLEST_GAIN, 1.0)
    return gain, -gain * mean, gain * (top.values[-2] + top.values[-1]) / 2
