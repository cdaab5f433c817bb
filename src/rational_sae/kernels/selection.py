"""Finding the few entries of a large matrix that count. On a CPU NumPy is many times quicker than torch at this.

Of 4.7 million entries, on one core: `torch.gt` and `nonzero` take 8 and 22 ms, NumPy's 1 and 2 ms; ordering 40 000
indices takes 1.4 ms in torch and .3 ms by NumPy's radix sort of 16-bit numbers.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

RADIX_SORTED = 1 << 16
"""NumPy sorts integers below this by radix."""


def where_true(mask: Tensor) -> Tensor:
    """[m] int64: where a mask of any shape is true, flat and ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero()[:, 0]


def where_above(h: Tensor, level: Tensor) -> Tensor:
    """[m] int64: where h > level, flat and ascending; NaN is above nothing. h: [n, d_sae]; level: [d_sae] or []."""
    h, level = h.detach(), level.detach()
    if h.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(np.greater(h.numpy(), level.numpy())))
    return where_true(h > level)


def where_largest(h: Tensor, k: int) -> Tensor:
    """[n·k] int64: the k largest of each row of h: [n, d_sae], flat and ascending. Of equals any may be taken."""
    n, d_sae = h.shape
    first = torch.arange(0, n * d_sae, d_sae, device=h.device)
    return (_largest(h, k)[1].sort(dim=-1).values + first[:, None]).flatten()


def kth_largest(h: Tensor, k: int) -> Tensor:
    """[n]: the k-th largest of each row of h: [n, d_sae]."""
    return _largest(h, k)[0].amin(-1)


def _largest(h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and latents of the k largest of each row, in no order: [n, k] each.

    In two exact stages: the k largest lie in the k groups whose own maxima are largest.
    """
    n, d_sae = h.shape
    groups = round((k * d_sae) ** 0.5)
    depth = d_sae // groups
    if depth < 2:
        return h.topk(k, dim=-1, sorted=False)
    whole = groups * depth
    grouped = h[:, :whole].view(n, depth, groups)
    best = grouped.amax(1).topk(k, dim=-1, sorted=False).indices
    numbers = best[:, None, :] + torch.arange(0, whole, groups, device=h.device)[:, None]
    rest = torch.arange(whole, d_sae, device=h.device).expand(n, -1)
    candidates = torch.cat([numbers.flatten(1), rest], 1)
    values, chosen = h.gather(1, candidates).topk(k, dim=-1, sorted=False)
    return values, candidates.gather(1, chosen)


def stable_order(index: Tensor, size: int) -> Tensor:
    """[m] int64: the permutation that sorts index: [m] int64, all in [0, size), and keeps the order of equals."""
    if index.device.type == "cpu":
        small = index.numpy().astype(np.uint16 if size <= RADIX_SORTED else np.int64)
        return torch.from_numpy(np.argsort(small, kind="stable"))
    return index.argsort(stable=True)


@functools.cache
def bfloat16_gains(device: str) -> bool:
    """Whether this kind of device has matrix products in bfloat16 that pay.

    On a CPU those are AMX tiles: a step then takes .77 to .87 of its time by float32 products. AVX512-BF16 alone makes
    it 1.3 to 1.5 times slower, AVX-512 without it 3.5 times (docs/performance.md). It does not depend on a timing, so
    that two runs on one machine have the same bits.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.cpu._is_amx_tile_supported() and torch.backends.mkldnn.is_available()
