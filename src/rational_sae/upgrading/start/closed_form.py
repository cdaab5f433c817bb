"""The best shape in closed form: with support, scales and poles fixed, x̂ is linear in the other coefficients.

So the shape (e₀, e₁, right slope, α_k, β_k) that reconstructs best is a small least-squares problem on x itself,
solved in seconds. It bounds what magnitude alone can gain with these poles while encoder,
decoder and support stay as they are; gains of selection lie outside it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from rational_sae.gates.rational import RationalGate
from rational_sae.kernels import LINEAR, linear_basis
from rational_sae.sae.entries import Entries
from rational_sae.sae.model import SAE

CHUNK = 512
"""Tokens at once: bounds the [coefficients, CHUNK, d_in] float32 of one part."""

RIDGE = 1e-9
"""Relative to the scaled Gram matrix's diagonal, towards the present shape: what the data do not see stays."""


@torch.no_grad()
def solve_shape_(gate: RationalGate, sae: SAE, x: Tensor) -> None:
    """Set a gate's linear coefficients to those with the least ‖x − x̂‖² under the SAE's weights. x: [n, d_in].

    gate: one that lists its entries; its support, scales, gain and poles stay.
    """
    count = LINEAR + (gate.shape.numel() - LINEAR) // 2
    gram = torch.zeros(count, count, dtype=torch.float64, device=x.device)
    right = torch.zeros(count, dtype=torch.float64, device=x.device)
    for part in x.split(CHUNK):
        columns, wanted = _columns(gate, sae, part)
        flat = columns.flatten(1)
        gram += (flat @ flat.T).double()
        right += (flat @ wanted.flatten()).double()
    present = gate.shape[:count].double()
    scale = gram.diagonal().clamp_min(1e-300).rsqrt()
    scaled = gram * scale[:, None] * scale
    scaled += RIDGE * torch.eye(count, dtype=torch.float64, device=x.device)
    change = torch.linalg.solve(scaled, scale * (right - gram @ present)) * scale
    if not bool(change.isfinite().all()):
        return  # nothing to learn from these activations: the present shape stays
    gate.shape[:count] = (present + change).to(gate.shape)
    gate.project_()


def _columns(gate: RationalGate, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """x̂ by each coefficient: [count, n, d_out], and what they should add up to: [n, d_out]."""
    read, state = sae.normalise(x)
    h = sae.preactivations(x)
    places = gate.places(h)
    value = h.flatten()[places]
    entries, value = Entries(places[value > 0], h.shape), value[value > 0]
    s = gate.scale[entries.latent]
    weights = linear_basis(value / s, gate.shape) * (s * gate.log_gain.exp())
    columns = torch.stack([entries.product(one, sae.W_dec) for one in weights])
    columns = columns if state is None else columns * state.scale
    return columns, sae.target(x) - sae.with_skip(sae.decode(x.new_zeros(1, sae.d_sae), state), read)


@torch.no_grad()
def rescaled(teacher: SAE, x: Tensor) -> SAE:
    """The teacher with its decoder scaled by the one factor that is best in least squares over x: [n, d_in]."""
    numerator, denominator = 0.0, 0.0
    for part in x.split(2048):
        read, state = teacher.normalise(part)
        z = teacher.encode(part)
        zero = teacher.decode(torch.zeros_like(z), state)
        offset = teacher.decode(z, state) - zero
        numerator += float(((teacher.target(part) - teacher.with_skip(zero, read)) * offset).sum(dtype=torch.float64))
        denominator += float(offset.pow(2).sum(dtype=torch.float64))
    result = copy.deepcopy(teacher)
    result.W_dec *= numerator / denominator
    return result
