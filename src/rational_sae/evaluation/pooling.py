"""Texts → one vector a text: codes averaged over the positions that count, for any number of SAEs in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from rational_sae.data.activations import Reader
from rational_sae.report.rows import ACTIVATIONS
from rational_sae.sae.model import SAE


@dataclass(frozen=True)
class Pooled:
    """Mean codes of texts."""

    rows: dict[str, sparse.csr_matrix]
    """For each SAE [n, d_sae] float32, and [n, d_in] for `activations`. Sparse, because codes are: a task stays small
    in memory whatever the width."""
    counted: NDArray[np.bool_]
    """[n] whether a text has a position that counts; the others have zeros."""


@torch.no_grad()
def pooled(
    reader: Reader, saes: dict[str, SAE], texts: list[str], *, progress: Callable[[int], None] = lambda _texts: None
) -> Pooled:
    """Mean over each text's counted positions of its codes and residual vectors.

    Positions count as everywhere else: no special token and, by default, no attention sink. progress is told of every
    few texts done.
    """
    parts: dict[str, list[sparse.csr_matrix]] = {name: [] for name in [ACTIVATIONS, *saes]}
    order: list[Tensor] = []
    for batch in reader.tokeniser.one_each(texts):
        stream = reader.stream(batch.input_ids)
        keep = reader.kept(stream, batch)
        x, owner = stream[keep].float(), keep.nonzero()[:, 0]
        share = 1 / keep.sum(-1).clamp(min=1)
        for name, part in parts.items():
            z = x[:, : reader.d_in] if name == ACTIVATIONS else saes[name].encode(x)
            mean = torch.zeros(len(keep), z.shape[1], device=z.device).index_add_(0, owner, z) * share[:, None]
            part.append(sparse.csr_matrix(mean.cpu().numpy()))
        order.append(torch.where(keep.any(-1).cpu(), batch.document, -1))
        progress(len(batch.document))
    if not order:
        return Pooled({}, np.zeros(len(texts), dtype=bool))
    placed = torch.cat(order).numpy()
    counted = np.zeros(len(texts), dtype=bool)
    counted[placed[placed >= 0]] = True
    rows = {name: _placed(sparse.vstack(part, format="csr"), placed, len(texts)) for name, part in parts.items()}
    return Pooled(rows, counted)


def _placed(rows: Any, place: NDArray[np.int64], size: int) -> sparse.csr_matrix:
    """The rows in the order of the texts; those with place −1, and texts without a row, are zeros."""
    found = place >= 0
    move = sparse.csr_matrix(
        (np.ones(found.sum(), dtype=np.float32), (place[found], np.flatnonzero(found))), shape=(size, len(place))
    )
    moved: Any = move @ rows
    return moved.tocsr()
