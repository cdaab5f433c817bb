"""SAEBench in an environment of its own: it pins numpy < 2 and datasets < 4, which this project must not.

    python benchmarks/saebench_env.py        # a few minutes, 3 GB; prints the interpreter's path

Made once, in the cache folder (`RSAE_CACHE`), and used by `saebench.py` and by the slow tests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from rational_sae.errors import RationalSAEError
from rational_sae.support.paths import cache_dir

SAEBENCH = "sae-bench==0.6.0"
TORCH = "torch==2.13.0"
"""First and by itself, so that no other torch is pulled in (constraints.txt says the same)."""

OURS = ("baryrat", "platformdirs")
"""What our SAELens plugin needs beyond SAEBench's own requirements; the package itself is read from src/."""

ROOT = Path(__file__).parents[1]

VARIABLES = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "JAXTYPING_DISABLE": "1"}
"""For its processes. JAXTYPING_DISABLE: with the jaxtyping that its own requirements bring in, SAEBench 0.6.0 refuses
its own tensors: `train_sklearn_probe` takes names of axes from its caller, where they have other sizes."""


def interpreter() -> Path:
    """The environment's Python. Raises RationalSAEError if the package index cannot be reached."""
    folder = cache_dir() / SAEBENCH.replace("==", "-")
    python, done = folder / "bin" / "python", folder / "done"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    _run([*install, TORCH])
    _run([*install, SAEBENCH, *OURS])
    if subprocess.run([python, "-c", "import torchvision"], capture_output=True, check=False).returncode:
        # The index has torchvision for CUDA builds of torch alone. SAEBench lists it and never imports it, but
        # transformers imports one that is there.
        _run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"])
    _run([str(python), "-c", "import sae_bench.evals.core.main, sae_bench.evals.sparse_probing.main"])
    done.touch()
    return python


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.strip()] or [f"exit {run.returncode}"]
        raise RationalSAEError(
            f"the environment of {SAEBENCH} could not be made: {lines[-1]}", "check that pip reaches a package index"
        )


if __name__ == "__main__":
    print(interpreter())
