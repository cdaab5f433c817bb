"""float32 numbers that survive a cast to bfloat16: what the cast rounds off is kept beside them.

A float32 has 24 significant bits and a bfloat16 has 8, so three bfloat16 numbers add up to any float32 exactly:
v = bf16(v) + r₁ + r₂ with r₁ = bf16(v − bf16(v)) and r₂ the rest. `NAME` holds v itself, for every other reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

SUFFIX = "_residue"


def split(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """`NAME_residue`: [2, …] float32, each exactly a bfloat16, for the float32 tensors of these names."""
    found = {}
    for name in names:
        rest = tensors[name].detach().float() - tensors[name].detach().bfloat16().float()
        first = rest.bfloat16().float()
        found[name + SUFFIX] = torch.stack([first, rest - first]).contiguous()
    return found


def join_(tensors: dict[str, Any], names: Iterable[str]) -> None:
    """Put the float32 tensors of these names back after a cast, and take the residues out. Without residues, or
    after a cast to another dtype, a tensor is only made float32."""
    for name in names:
        residue = tensors.pop(name + SUFFIX, None)
        if name not in tensors:
            continue
        rounded = tensors[name]
        tensors[name] = rounded.float()
        if residue is not None and rounded.dtype == torch.bfloat16:
            first, rest = residue.float()
            tensors[name] = tensors[name] + (first + rest)
