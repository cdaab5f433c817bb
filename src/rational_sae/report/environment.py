"""Versions that decide a result."""

from __future__ import annotations

import platform


def environment() -> dict[str, str]:
    """Versions that decide a result."""
    from importlib.metadata import version

    import torch

    from rational_sae.kernels.selection import bfloat16_gains
    from rational_sae.support import distributed

    packages = ("rational-sae", "torch", "transformers", "numpy", "scipy", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability() + (" and AMX" if bfloat16_gains("cpu") else ""),
        "threads": str(torch.get_num_threads()),
        "processes": str(distributed.world()),
    } | {package: version(package) for package in packages}
