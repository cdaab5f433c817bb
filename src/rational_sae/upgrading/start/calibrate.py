"""Calibration: the designed gate, refitted in ℓ2 to the teacher's gate over its real pre-activations (paper, step 1).

The uncut r is fitted on both sides of the threshold: on the active side alone r(t) = t is optimal, the poles vanish and
their gradients with them. Active and inactive entries weigh the same in sum; the transition, where the hard gate's cut
decides and not r, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from rational_sae.gates.rational import RationalGate
from rational_sae.kernels import LINEAR, rational_value
from rational_sae.sae.match_l0 import CHUNK
from rational_sae.sae.model import SAE

POINTS = 20_000
"""Pre-activations fitted, half of them active."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Root-mean-square error of the gate against the teacher's, in units of t, before and after."""

    before: float
    after: float


def calibrate(gate: RationalGate, teacher: SAE, x: Tensor, *, seed: int = 0, apply: bool = True) -> Calibration:
    """Refit the shape of a gate in place, unless only its present error is asked for. x: [n, d_in], canonical units."""
    t, wanted, weight = _points(gate, teacher, x, seed)
    start = gate.shape.detach().double().cpu().numpy()
    free = np.array([i for i in range(len(start)) if i != LINEAR - 1])  # the right slope lies outside the domain

    def residual(parameters: Array) -> Array:
        shape = start.copy()
        shape[free] = parameters
        value = rational_value(torch.from_numpy(t), torch.from_numpy(shape)).numpy()
        return weight * (value - wanted)

    before = float(np.sqrt(np.mean(residual(start[free]) ** 2)))
    if not apply:
        return Calibration(before, before)
    fitted = least_squares(residual, start[free], method="trf", x_scale="jac", max_nfev=60)
    after = float(np.sqrt(np.mean(residual(fitted.x) ** 2)))
    if np.isfinite(fitted.x).all() and after < before:
        with torch.no_grad():
            gate.shape[torch.from_numpy(free)] = torch.from_numpy(fitted.x).to(gate.shape)
        gate.project_()
    return Calibration(before, min(before, after))


@torch.no_grad()
def _points(gate: RationalGate, teacher: SAE, x: Tensor, seed: int) -> tuple[Array, Array, Array]:
    """t, the teacher's code at t, and square-root weights: [POINTS] float64 each."""
    active, inactive = [], []
    for part in x.split(CHUNK):
        h = teacher.preactivations(part)
        z, _ = teacher.gate(h)
        t, wanted = h / gate.scale, z / gate.scale
        edge = gate.threshold / gate.scale
        band = (t > edge - 2 * gate.transition.half_width / gate.scale) & (z == 0)
        on, off = (z != 0) & (t <= 1.0), (z == 0) & ~band & (t >= -1.0)
        active.append(torch.stack([t[on], wanted[on]]))
        inactive.append(torch.stack([t[off], wanted[off]])[:, :: max(1, int(off.sum() // max(1, on.sum())))])
    rng = torch.Generator().manual_seed(seed)  # on the CPU whatever the device, so that all devices draw alike
    chosen = []
    for part in (torch.cat(active, 1), torch.cat(inactive, 1)):
        places = torch.randperm(part.shape[1], generator=rng)[: POINTS // 2]
        chosen.append(part[:, places.to(part.device)].double().cpu().numpy())
    t, wanted = np.concatenate(chosen, axis=1)
    sizes = np.concatenate([np.full(part.shape[1], part.shape[1]) for part in chosen])
    return t, wanted, np.sqrt(0.5 * len(t) / sizes)
