"""Rational sparse autoencoders.

Importing this package is quick: everything loads on first use. It also makes SAELens able to load the
architecture "rational", whichever of the two packages is imported first.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rational_sae.evaluation.api import evaluate
    from rational_sae.formats import load
    from rational_sae.formats.save import save
    from rational_sae.rational import fit
    from rational_sae.sae.model import SAE
    from rational_sae.upgrading.api import upgrade

__version__ = "0.1.0"

__all__ = ["SAE", "__version__", "evaluate", "fit", "load", "save", "upgrade"]

_HOMES = {
    "SAE": ("rational_sae.sae.model", "SAE"),
    "evaluate": ("rational_sae.evaluation.api", "evaluate"),
    "fit": ("rational_sae.rational", "fit"),
    "load": ("rational_sae.formats", "load"),
    "save": ("rational_sae.formats.save", "save"),
    "upgrade": ("rational_sae.upgrading.api", "upgrade"),
}
"""Where each name lies; it is imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    """Tell SAELens about the architecture. A failure must not break `import sae_lens`."""
    try:
        importlib.import_module("rational_sae.formats.saelens_class").register()
    except Exception as error:
        line = str(error).partition("\n")[0]
        warnings.warn(f"SAELens cannot load rational SAEs: {line}", RuntimeWarning, stacklevel=2)


class _AfterSAELens:
    """A finder that finds sae_lens as the others would, and registers once it has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "sae_lens":
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        spec.loader.exec_module = execute_and_register
        return spec


if "sae_lens" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterSAELens())
