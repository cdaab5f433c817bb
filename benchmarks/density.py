"""Where sparse products stop paying: a ReLU step, forward and backward, at rising density.

    python benchmarks/density.py        # about a minute on two cores

Prints one line a density: the share of active entries and the sparse step's time over the dense one's (medians of
interleaved repeats). `sparse.MOST_DENSE` is read off here.
"""

from __future__ import annotations

import statistics
import time

import torch

from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE
from rational_sae.sae.sparse import reconstruct

D_IN, D_SAE, BATCH, REPEATS = 576, 4608, 1024, 5
DENSITIES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)


def main() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, D_IN, generator=rng)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=rng), dim=-1)
    sae = SAE(W_dec.T, torch.zeros(D_SAE), W_dec, torch.zeros(D_IN), ReLUGate())
    for density in DENSITIES:
        with torch.no_grad():
            h = x @ W_dec.T
            sae.b_enc.fill_(-float(h.flatten().kthvalue(int((1 - density) * h.numel())).values))
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(REPEATS + 1):
            for sparse, found in seconds.items():
                began = time.perf_counter()
                sae.zero_grad(set_to_none=True)
                (x - reconstruct(sae, x, sparse=sparse).x_hat).pow(2).sum().backward()
                found.append(time.perf_counter() - began)
        ratio = statistics.median(seconds[True][1:]) / statistics.median(seconds[False][1:])
        print(f"density {density:.2f}: sparse / dense {ratio:.2f}")


if __name__ == "__main__":
    main()
