"""Whether a step that selects in bfloat16 is quicker on this CPU: whole steps with and without, in turn.

    python benchmarks/selection.py                                            # half a minute on an idle core
    ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 python benchmarks/selection.py        # the same CPU as if it had no AMX

Prints one line a shape: median seconds of both steps and the ratio. `selection.bfloat16_gains` is read off here.
"""

from __future__ import annotations

import statistics
import time

import torch

from rational_sae.bench.ours import our_steps
from rational_sae.bench.problem import Shape, make_problem
from rational_sae.sae import sparse

SHAPES = (Shape(576, 1536, 512), Shape(576, 4608, 1024), Shape(768, 24576, 512))
REPEATS = 15


def main() -> None:
    torch.set_num_threads(1)
    for shape in SHAPES:
        step = our_steps(make_problem(shape))["sparse"]
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(REPEATS + 1):
            for rough, found in seconds.items():
                sparse.bfloat16_gains = lambda _device, rough=rough: rough
                began = time.perf_counter()
                step()
                found.append(time.perf_counter() - began)
        exact, rough = (statistics.median(seconds[kind][1:]) for kind in (False, True))
        print(
            f"{shape.d_in} x {shape.d_sae}, {shape.batch} tokens: float32 {exact:.4f} s, "
            f"bfloat16 {rough:.4f} s, ratio {rough / exact:.2f}"
        )


if __name__ == "__main__":
    main()
