"""sha256 of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(*parts: Tensor | Mapping[str, Tensor]) -> str:
    """Of tensors with their names, types and shapes, in hexadecimal."""
    found = hashlib.sha256()
    for part in parts:
        for name, value in (part if isinstance(part, Mapping) else {"": part}).items():
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            # numpy has no bfloat16, so the bytes are taken.
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
