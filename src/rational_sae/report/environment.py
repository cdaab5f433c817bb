"""Versions that decide a result."""

from __future__ import annotations

import platform


def environment() -> dict[str, str]:
    """Versions that decide a result."""
    from importlib.metadata import version

    import torch

    from rational_sae import distributed

    packages = ("rational-sae", "torch", "transformers", "numpy", "scipy", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "processes": str(distributed.world()),
    } | {package: version(package) for package in packages}
