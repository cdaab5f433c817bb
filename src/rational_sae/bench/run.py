"""All jobs of a shape in one run: interleaved repeats, medians, ratios and peak memory."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from rational_sae.bench.ours import our_jobs
from rational_sae.bench.peak import peak_bytes
from rational_sae.bench.peers import installed_peers
from rational_sae.bench.problem import POOL, Shape, make_problem
from rational_sae.data.reading import usable_device
from rational_sae.errors import SettingsError
from rational_sae.support.progress import Progress, Silent

SHAPES = (Shape(576, 4608, 1024), Shape(768, 24576, 1024), Shape(2304, 16384, 512))
"""SmolLM2 and an eightfold dictionary; GPT-2 small and 24 576 latents; Gemma-2-2B's width and 16 384 latents."""

REPEATS = 7

RATIOS = {
    "dense_over_relu": ("dense", "relu"),
    "sparse_over_encoder_product": ("sparse", "encoder_product"),
    "sparse_over_saelens_standard": ("sparse", "saelens_standard"),
    "sparse_over_saelens_topk": ("sparse", "saelens_topk"),
    "sparse_over_sparsify_topk": ("sparse", "sparsify_topk"),
    "sparse_over_dictionary_learning_topk": ("sparse", "dictionary_learning_topk"),
    "two_looks_over_sparse": ("two_looks", "sparse"),
    "two_looks_over_encoder_product": ("two_looks", "encoder_product"),
    "encode_two_looks_over_encode": ("encode_two_looks", "encode"),
    "encode_over_teacher": ("encode", "encode_teacher"),
    "gate_over_products": ("gate", "products"),
}
"""Name → (job, what it is compared with). A ratio is the median over repeats of the ratio within one repeat."""


def bench(
    shapes: Sequence[Shape] = SHAPES,
    *,
    repeats: int = REPEATS,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time everything at every shape, in float32. Raises SettingsError if the device cannot be used.

    Returns the first shape's `ratios`, `medians` (seconds) and `memory` (bytes), `shapes` with the same for each, and
    what the figures depend on. Ratios to tools that are not installed, or fail here (`failed` says why), are left out.
    """
    for shape in shapes:
        _check(shape, device)
    progress, device = progress or Silent(), usable_device(device)
    found = []
    for shape in shapes:
        progress.stage(f"{shape.d_in} × {shape.d_sae}, batch {shape.batch}", repeats + 1)
        found.append(bench_shape(shape, repeats=repeats, device=device, progress=progress))
    return {"schema": 1, **found[0], "shapes": found, "environment": environment(device)}


def bench_shape(shape: Shape, *, repeats: int, device: str, progress: Progress) -> dict[str, Any]:
    """One shape: all jobs in turn, again and again; the first round warms up and measures memory."""
    problem = make_problem(shape, device)
    jobs = our_jobs(problem)
    failed: dict[str, str] = {}
    for name, make in installed_peers().items():
        try:
            job = make(problem)
            job()
            jobs[name] = job
        except Exception as error:  # another tool that is broken here must not stop the benchmark
            failed[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
    memory: dict[str, Any] = {"allowed": allowed_bytes(shape)}
    for name, job in jobs.items():
        job()
        memory[name] = peak_bytes(job, problem.x.device)
    progress.advance()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            _synchronise(device)
            began = time.perf_counter()
            job()
            _synchronise(device)
            seconds[name].append(time.perf_counter() - began)
        progress.advance()
    return {
        "d_in": shape.d_in,
        "d_sae": shape.d_sae,
        "batch": shape.batch,
        "l0": shape.l0,
        "dtype": "float32",
        "ratios": {
            name: statistics.median(a / b for a, b in zip(seconds[job], seconds[base], strict=True))
            for name, (job, base) in RATIOS.items()
            if base in seconds
        },
        "medians": {name: statistics.median(times) for name, times in seconds.items()},
        "memory": memory,
        "failed": failed,
    }


def _check(shape: Shape, device: str) -> None:
    """Raise SettingsError if a shape has fewer latents than are to be active, or does not fit in memory."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("there is no CUDA device here", "give --device cpu")
    if shape.d_sae < shape.l0:
        raise SettingsError(f"{shape.d_sae} latents, of which {shape.l0} are to be active", "give a larger --d-sae")
    weights = 2 * shape.d_in * shape.d_sae
    # Weights, Adam's two moments, what a step may need, and the batches that steps take in turn.
    needed = 4 * (3 * weights + POOL * shape.batch * (shape.d_in + 4 * shape.l0)) + allowed_bytes(shape)
    free = psutil.virtual_memory().available
    if needed > free:
        raise SettingsError(
            f"{shape.d_in} × {shape.d_sae}, batch {shape.batch} needs {needed / 2**30:.3g} GiB of memory, "
            f"{free / 2**30:.3g} are free",
            "give smaller numbers",
        )


def allowed_bytes(shape: Shape) -> int:
    """What a step may need beyond weights and Adam's state: gradients and three [batch, d_sae] float32."""
    weights = 2 * shape.d_in * shape.d_sae + shape.d_in + shape.d_sae
    return 4 * (weights + 3 * shape.batch * shape.d_sae)


def environment(device: str) -> dict[str, str]:
    """What timings depend on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "load": f"{load:.1f}",
    }


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
