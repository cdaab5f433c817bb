"""Texts → one vector a text: the codes at its last token, for any number of SAEs in one pass.

As sae-probes reads them: a text longer than the context keeps its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from rational_sae.data.activations import Reader
from rational_sae.report.rows import ACTIVATIONS
from rational_sae.sae.model import SAE


@dataclass(frozen=True)
class LastCodes:
    """Codes at the last token of distinct texts."""

    place: dict[str, int]
    """Text → its row. Texts whose last position does not count have none."""
    x: NDArray[np.float32]
    """[n, d_in] what the SAEs read."""
    z: dict[str, Any]
    """For each SAE [n, d_sae] in SciPy's CSR form, because codes are sparse."""

    def of(self, row: str, texts: Sequence[str]) -> Any:
        """[len(texts), d_sae] of an SAE (CSR), [len(texts), d_in] for `activations`."""
        places = [self.place[text] for text in texts]
        return self.x[places] if row == ACTIVATIONS else self.z[row][places]

    def with_others(self, others: LastCodes) -> LastCodes:
        """These and others of other texts."""
        start = len(self.x)
        return LastCodes(
            self.place | {text: start + row for text, row in others.place.items()},
            np.concatenate([self.x, others.x]),
            {name: sparse.vstack([z, others.z[name]], format="csr") for name, z in self.z.items()},
        )


@torch.no_grad()
def last_codes(
    reader: Reader,
    saes: dict[str, SAE],
    ends: dict[str, list[int]],
    *,
    progress: Callable[[int], None] = lambda _tokens: None,
) -> LastCodes:
    """ends: text → its last tokens (`Tokeniser.ends`), none of them empty. progress is told of tokens read."""
    texts = sorted(ends, key=lambda text: len(ends[text]))
    place: dict[str, int] = {}
    xs: list[NDArray[np.float32]] = [np.zeros((0, reader.d_in), dtype=np.float32)]
    zs: dict[str, list[sparse.csr_matrix]] = {
        name: [sparse.csr_matrix((0, sae.d_sae), dtype=np.float32)] for name, sae in saes.items()
    }
    for batch in reader.tokeniser.at_ends([ends[text] for text in texts]):
        stream = reader.stream(batch.input_ids)
        keep = reader.kept(stream, batch)
        x = stream[keep].float()
        counted = batch.document[keep.any(-1).cpu()]
        place |= {texts[i]: len(place) + n for n, i in enumerate(counted.tolist())}
        xs.append(x[:, : reader.d_in].cpu().numpy())
        for name, sae in saes.items():
            zs[name].append(sparse.csr_matrix(sae.encode(x).float().cpu().numpy()))
        progress(sum(len(ends[texts[i]]) for i in batch.document.tolist()))
    return LastCodes(place, np.concatenate(xs), {name: sparse.vstack(z, format="csr") for name, z in zs.items()})
