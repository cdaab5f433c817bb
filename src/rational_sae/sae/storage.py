"""The ways of an SAE to files and to the hub. This room knows neither: `formats` and `publish` come after it, and offer
here what they can do when they are imported, as every name of `rational_sae` sees to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OFFERED_BY = {
    "from_pretrained": "rational_sae.formats",
    "save_pretrained": "rational_sae.formats",
    "push_to_hub": "rational_sae.publish",
}

_offered: dict[str, Callable[..., Any]] = {}


def offer(method: str, function: Callable[..., Any]) -> None:
    """Say what a method of `SAE` does. function: takes what the method takes."""
    assert method in OFFERED_BY, method
    _offered[method] = function


def offered(method: str) -> Callable[..., Any]:
    """What a method of `SAE` does. Raises RuntimeError naming the module to import if that has not been imported."""
    if method not in _offered:
        raise RuntimeError(f"SAE.{method}: nothing offers it yet; import {OFFERED_BY[method]}")
    return _offered[method]
