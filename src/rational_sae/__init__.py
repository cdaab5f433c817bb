"""Rational sparse autoencoders.

>>> import rational_sae
>>> sae = rational_sae.SAE.from_pretrained("path/to/sae")  # doctest: +SKIP

Importing this package is quick: what is heavy is imported when a name is first asked for. SAELens learns the
architecture "rational" by `import rational_sae.saelens`, in any order.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rational_sae.evaluation.api import evaluate
    from rational_sae.formats import load
    from rational_sae.formats.save import save
    from rational_sae.rational import fit
    from rational_sae.sae.model import SAE
    from rational_sae.upgrading.api import upgrade
    from rational_sae.upgrading.on_tensors import calibrate, finetune, measure

__version__ = "0.1.0"

__all__ = ["SAE", "__version__", "calibrate", "evaluate", "finetune", "fit", "load", "measure", "save", "upgrade"]

_HOMES = {
    "SAE": ("rational_sae.sae.model", "SAE"),
    "calibrate": ("rational_sae.upgrading.on_tensors", "calibrate"),
    "evaluate": ("rational_sae.evaluation.api", "evaluate"),
    "finetune": ("rational_sae.upgrading.on_tensors", "finetune"),
    "fit": ("rational_sae.rational", "fit"),
    "load": ("rational_sae.formats", "load"),
    "measure": ("rational_sae.upgrading.on_tensors", "measure"),
    "save": ("rational_sae.formats.save", "save"),
    "upgrade": ("rational_sae.upgrading.api", "upgrade"),
}
"""Where each name lies; it is imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _tell_saelens()
    if name != "fit":  # which knows of no SAE, and of no torch
        importlib.import_module("rational_sae.publish")  # gives SAEs their way to files and the hub
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _tell_saelens() -> None:
    """Spare `import rational_sae.saelens` where SAELens has been imported already."""
    if "sae_lens" in sys.modules:
        _register()


@functools.cache
def _register() -> None:
    """A failure is told once and stops nobody who came for something else."""
    try:
        importlib.import_module("rational_sae.saelens")
    except Exception as error:
        line = str(error).partition("\n")[0]
        warnings.warn(f"SAELens cannot load rational SAEs: {line}", RuntimeWarning, stacklevel=2)


_tell_saelens()
