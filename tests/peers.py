"""Other people's libraries, as the owners of the formats that are read here: their own code builds and saves the SAEs.

Only the modules that define SAEs are imported, under a bare package: the packages' own `__init__` would pull trainers,
loggers and plotting. dictionary-learning pins an nnsight of 2024, so its wheel is fetched, checked, and not installed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from saebench_env import VARIABLES

from rational_sae.data.embedded import Part, download_wheel
from rational_sae.support.paths import cache_dir

DICTIONARY_LEARNING = Part(
    "dictionary-learning==0.1.0",
    "211116f9cc6fde643ea447f11da1c1ea9d0174dd9460e2031ae95b2724622ca5",
    "dictionary_learning",
)


def dictionary_learning(module: str) -> Any:
    """A module of dictionary_learning 0.1.0, such as `dictionary` or `trainers.top_k`."""
    wheel = cache_dir() / "peers" / "dictionary_learning-0.1.0-py3-none-any.whl"
    if not wheel.exists():
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wheel.parent) as scratch:
            os.replace(download_wheel(DICTIONARY_LEARNING, Path(scratch)), wheel)
    with _bare("dictionary_learning", wheel / "dictionary_learning", "trainers"):
        return importlib.import_module(f"dictionary_learning.{module}")


def sparsify() -> Any:
    """sparsify's module of SparseCoder, with SparseCoderConfig in it."""
    spec = PathFinder.find_spec("sparsify")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    with _bare("sparsify", Path(spec.submodule_search_locations[0])), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("sparsify.sparse_coder")


def sae_lens() -> Any:
    """SAELens, which is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("sae_lens")


_imported: dict[str, dict[str, ModuleType]] = {}
"""What was imported under each bare package, so that its classes stay the same ones."""


@contextlib.contextmanager
def _bare(name: str, path: Path, *subpackages: str) -> Iterator[None]:
    """A package of which nothing has been run, so that its modules can be imported one by one. On leaving it is gone
    from `sys.modules`: others may want the whole package."""

    def inside() -> list[str]:
        return [one for one in sys.modules if one == name or one.startswith(f"{name}.")]

    whole = {one: sys.modules.pop(one) for one in inside()}
    if name not in _imported:
        _imported[name] = {name: _package(name, path)}
        _imported[name] |= {f"{name}.{one}": _package(f"{name}.{one}", path / one) for one in subpackages}
    sys.modules |= _imported[name]
    try:
        yield
    finally:
        _imported[name] = {one: sys.modules.pop(one) for one in inside()}
        sys.modules |= whole


def _package(name: str, path: Path) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = [str(path)]
    return package


def run_there(python: Path, code: str, arrays: dict[str, Any], folder: Path, *arguments: Any) -> Any:
    """What a script of SAEBench's environment wrote to `theirs.json`, given `codes.npz` and its arguments as JSON."""
    np.savez(folder / "codes.npz", **arrays)
    run = subprocess.run(
        [python, "-c", code, *map(json.dumps, arguments)],
        cwd=folder,
        env={**os.environ, **VARIABLES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads((folder / "theirs.json").read_text())
