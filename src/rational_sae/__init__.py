"""Rational sparse autoencoders.

Importing this package is quick: everything loads on first use. It also makes SAELens able to load the
architecture "rational", whichever of the two packages is imported first.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rational_sae.export import save
    from rational_sae.rational import fit
    from rational_sae.sae import SAE
    from rational_sae.sources import load

    evaluate: Callable[..., Any]
    upgrade: Callable[..., Any]

__version__ = "0.1.0"

__all__ = ["SAE", "__version__", "evaluate", "fit", "load", "save", "upgrade"]

_HOMES = {
    "SAE": ("rational_sae.sae", "SAE"),
    "fit": ("rational_sae.rational", "fit"),
    "load": ("rational_sae.sources", "load"),
    "save": ("rational_sae.export", "save"),
}

_VERBS = {
    "evaluate": ("rational_sae.evaluate", "evaluate"),
    "upgrade": ("rational_sae.upgrade.job", "upgrade"),
}
"""Functions that share their name with a subpackage: the subpackage itself is made callable."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)
    if name in _VERBS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Verb(ModuleType):
    """A subpackage that is also the function of its name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        module, attribute = _VERBS[self.__name__.rpartition(".")[2]]
        return getattr(importlib.import_module(module), attribute)(*args, **options)


class _Package(ModuleType):
    """This package; the import system hands it its subpackages by setting attributes."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _VERBS and type(value) is ModuleType:
            value.__class__ = _Verb
        super().__setattr__(name, value)


def _register() -> None:
    """Tell SAELens about the architecture. A failure must not break `import sae_lens`."""
    try:
        importlib.import_module("rational_sae.saelens_plugin").register()
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


sys.modules[__name__].__class__ = _Package
if "sae_lens" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterSAELens())
