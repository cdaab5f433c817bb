"""The decoder that least squares would choose for an SAE's own codes, by conjugate gradients (CGLS)."""

from __future__ import annotations

import torch
from torch import Tensor

from rational_sae.kernels.selection import where_true
from rational_sae.sae.entries import Entries
from rational_sae.sae.match_l0 import CHUNK
from rational_sae.sae.model import SAE

MAX_ITERATIONS, PATIENCE = 40, 3
"""Iterations, and how many without a better validation FVU end them. Stopping early is the regularisation: with some
hundred observations a latent, the converged decoder fits noise."""


@torch.no_grad()
def refit_decoder_(sae: SAE, x: Tensor, validation: Tensor) -> float:
    """Move W_dec towards the least ‖x − x̂‖² and keep the iterate that is best on validation. Returns that FVU.

    x, validation: [n, d_in] float32 each, on the SAE's device. The SAE's gate has exact zeros; encoder, gate and b_dec
    stay, and so does the support.
    """
    entries, code, rest = _problem(sae, x)
    held, held_code, held_rest = _problem(sae, validation)
    best, least, worse = sae.W_dec.clone(), _square(held_rest), 0
    gradient = entries.transposed_product(code, rest)
    direction, square = gradient.clone(), _square(gradient)
    for _ in range(MAX_ITERATIONS):
        image = entries.product(code, direction)
        step = square / max(_square(image), 1e-300)
        sae.W_dec += step * direction
        rest -= step * image
        held_rest -= step * held.product(held_code, direction)
        found = _square(held_rest)
        worse = 0 if found < least else worse + 1
        if found < least:
            best, least = sae.W_dec.clone(), found
        if worse == PATIENCE:
            break
        gradient = entries.transposed_product(code, rest)
        before, square = square, _square(gradient)
        direction = gradient + (square / max(before, 1e-300)) * direction
    sae.W_dec.copy_(best)
    wanted = sae.target(validation)
    return least / _square(wanted - wanted.mean(0))


def _problem(sae: SAE, x: Tensor) -> tuple[Entries, Tensor, Tensor]:
    """Codes as a sparse matrix, weighted so that errors count in the units of x, and x − x̂: [n, d_in]."""
    places, values, rest = [], [], []
    for start, part in zip(range(0, len(x), CHUNK), x.split(CHUNK), strict=True):
        z = sae.encode(part).flatten()
        found = where_true(z != 0)
        places.append(found + start * sae.d_sae)
        values.append(z[found])
        read, state = sae.normalise(part)
        rest.append(sae.target(part) - sae.with_skip(sae.decode(z.view(len(part), -1), state), read))
    entries = Entries(torch.cat(places), torch.Size([len(x), sae.d_sae]))
    code, state = torch.cat(values), sae.normalise(x)[1]
    return entries, code if state is None else code * state.scale[entries.row, 0], torch.cat(rest)


def _square(matrix: Tensor) -> float:
    return float(matrix.pow(2).sum(dtype=torch.float64))
