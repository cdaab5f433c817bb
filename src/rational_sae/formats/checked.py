"""What every reader checks alike: the numbers of a config and the tensors of a file.

The record that all readers give is `rational_sae.sae.model.SAE` itself: it holds the whole formula.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from rational_sae.errors import SourceError
from rational_sae.formats.containers import Contents, one_line, read_bytes


@dataclass
class Config:
    """A JSON object, and the file that it is from. Every access checks."""

    path: Path
    numbers: dict[str, Any]

    def wrong(self, key: str, wanted: str) -> SourceError:
        found = f"is {self.numbers[key]!r:.80}" if key in self.numbers else "is missing"
        return SourceError(f"{self.path}: {key} {found}, expected {wanted}", "save the SAE again")

    def count(self, key: str) -> int:
        value = self.numbers.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, "a positive integer")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.numbers.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.wrong(key, "a finite number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.numbers.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def word(self, key: str) -> str | None:
        """Text, or None where there is none."""
        value = self.numbers.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def inner(self, key: str, *, optional: bool = False) -> Config:
        """The object under a key; an empty one where there is none. optional: null counts as none."""
        value = self.numbers.get(key, {})
        if value is None and optional:
            value = {}
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Config(self.path, value)

    def without_k(self, kind: str) -> None:
        """Refuse a config with a k where the code is that of an element-wise gate. kind: what it is read as."""
        if self.numbers.get("k") is not None:
            raise SourceError(
                f"{self.path}: k is {self.numbers['k']!r:.80}, but {kind} has none",
                "say in the config which gate it has",
            )

    def k(self, d_sae: int) -> int:
        """The k of a TopK."""
        k = self.count("k")
        if k > d_sae:
            raise self.wrong("k", f"at most d_sae, {d_sae}")
        return k


def read_config(path: Path) -> Config:
    """A JSON object. Raises SourceError if there is none in the file."""
    try:
        numbers = json.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # malformed, not UTF-8, or nested without end
        raise SourceError(f"{path}: not JSON ({one_line(error)})", "download it again") from error
    if not isinstance(numbers, dict):
        raise SourceError(f"{path}: not a JSON object", "download it again")
    return Config(path, numbers)


MAX_YAML = 1 << 20
"""Bytes of a YAML file. Those of SAEs take kilobytes, and it is read a hundred times more slowly than JSON."""

DEEPEST_YAML = 50
"""Lists and objects within one another; readers of YAML recurse."""


def read_yaml(path: Path) -> Config:
    """A YAML object of what JSON can hold. Raises SourceError if there is none in the file, or if it refers to parts of
    itself, by which a small file can stand for any amount."""
    import yaml

    content = read_bytes(path)
    if len(content) > MAX_YAML:
        raise SourceError(f"{path}: larger than {MAX_YAML >> 20} MiB, so it is no config", "check the file")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text, depth = content.decode("utf-8-sig"), 0
        for event in yaml.parse(text, Loader=loader):
            opens, closes = (isinstance(event, kind) for kind in (yaml.CollectionStartEvent, yaml.CollectionEndEvent))
            depth += opens - closes
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST_YAML:
                raise ValueError("it refers to itself, or is nested too deeply")
        numbers = json.loads(json.dumps(yaml.load(text, Loader=loader)))
    except Exception as error:  # of its constructors, which raise what they happen to; TypeError: a date or a set
        raise SourceError(f"{path}: not YAML of a config ({one_line(error)})", "download it again") from error
    if not isinstance(numbers, dict):
        raise SourceError(f"{path}: not a YAML object", "download it again")
    return Config(path, numbers)


def config_beside(weights: Path, usual: str) -> Config | None:
    """The config in the folder of a file of weights: the file of the usual name, or the only JSON file there."""
    path = weights.parent / usual
    if not os.path.lexists(path):
        others = sorted(weights.parent.glob("*.json"))
        if len(others) != 1:
            return None
        path = others[0]
    return read_config(path)


class Weights(TypedDict):
    """The four tensors of every SAE, in float32 and in our orientation."""

    W_enc: Tensor
    """[d_in, d_sae]"""
    b_enc: Tensor
    """[d_sae]"""
    W_dec: Tensor
    """[d_sae, d_in]"""
    b_dec: Tensor
    """[d_in]"""


def fold_decoder_norm(weights: Weights) -> None:
    """Move the decoder's row norms into the encoder: codes are then selected by what they add to x̂."""
    norm = weights["W_dec"].norm(dim=-1)
    weights["W_enc"] = weights["W_enc"] * norm
    weights["b_enc"] = weights["b_enc"] * norm
    weights["W_dec"] = weights["W_dec"] / norm.where(norm > 0, 1.0)[:, None]


def fold_gated(weights: Weights, r_mag: Tensor, b_gate: Tensor) -> Tensor:
    """The thresholds, [d_sae], of the JumpReLU that a gated SAE with one encoder is; `weights` has b_mag as b_enc.

    With y = W_encᵀx, a latent is 1[y + b_gate > 0]·relu(m), m = exp(r_mag)·y + b_mag. In terms of m the first factor is
    1[m > θ], θ = b_mag − exp(r_mag)·b_gate (Rajamanoharan et al., arXiv 2404.16014, §3.2). Raises SourceError if it
    is beyond float32.
    """
    slope = r_mag.exp()
    weights["W_enc"] = weights["W_enc"] * slope
    if not (weights["W_enc"].isfinite().all() and (slope * b_gate).isfinite().all()):
        raise SourceError(f"exp(r_mag) reaches {float(slope.max())}", "the SAE is broken; use another")
    return (weights["b_enc"] - slope * b_gate).clamp_min(0.0)


class Tensors:
    """Tensors of one file. Each is checked when it is asked for; at the end, all must have been.

    What a reader does not know may change the formula, so a file that holds such a tensor, or such a text or number
    beside its tensors, is refused.
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.path = contents.path
        self._left = {*contents.shapes, *contents.plain}

    def __contains__(self, name: str) -> bool:
        return name in self.contents.shapes

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a tensor with so many dimensions, none of them 0."""
        shape = self._shape(name)
        if len(shape) != ndim or 0 in shape:
            raise SourceError(f"{self.path}: {name} is {list(shape)}, expected {ndim} dimensions", "check the file")
        return shape

    def get(self, name: str, *shape: int) -> Tensor:
        """A tensor as float32, of this shape, and finite."""
        found = self._shape(name)
        if found != shape:
            raise SourceError(f"{self.path}: {name} is {list(found)}, expected {list(shape)}", "check the config")
        tensor = self._take(name)
        if not tensor.is_floating_point():
            raise SourceError(f"{self.path}: {name} is {tensor.dtype}, expected floating point", "save it again")
        tensor = tensor.float()
        if not tensor.isfinite().all():
            raise SourceError(f"{self.path}: {name} holds NaN or infinity", "the SAE is broken; use another")
        return tensor

    def integer(self, name: str) -> int:
        """A scalar integer."""
        self.shape(name, 0)
        tensor = self._take(name)
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise SourceError(f"{self.path}: {name} is {tensor.dtype}, expected an integer", "save it again")
        return int(tensor)

    def weights(
        self,
        names: Mapping[str, str],
        d_in: int | None = None,
        d_sae: int | None = None,
        *,
        d_out: int | None = None,
    ) -> Weights:
        """The four tensors. names: what the file calls each; `.T` after a name means stored transposed.

        d_in, d_sae: what the config says, if it does; d_out: of a transcoder.
        """
        name, transposed = _split(names["W_enc"])
        stored = self.shape(name, 2)
        width = stored[::-1] if transposed else stored
        d_in, d_sae = d_in or width[0], d_sae or width[1]

        def part(name: str, *shape: int) -> Tensor:
            stored, transposed = _split(names[name])
            return self.get(stored, *shape[::-1]).T if transposed else self.get(stored, *shape)

        return Weights(
            W_enc=part("W_enc", d_in, d_sae),
            b_enc=part("b_enc", d_sae),
            W_dec=part("W_dec", d_sae, d_out or d_in),
            b_dec=part("b_dec", d_out or d_in),
        )

    def ignore(self, *names: str) -> None:
        """What does not belong to the formula, such as training statistics, or is read elsewhere."""
        self._left -= set(names)

    def all_read(self) -> None:
        """Refuse a file with tensors, or text and numbers beside them, that nobody asked for."""
        if self._left:
            names = ", ".join(sorted(self._left))[:300]
            raise SourceError(
                f"{self.path}: holds what its architecture does not have ({names})",
                "check that the config belongs to the weights",
            )

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self.contents.shapes:
            held = ", ".join(sorted(self.contents.shapes))[:300] or "nothing"
            raise SourceError(f"{self.path}: tensor {name} is missing (it holds {held})", "download it again")
        return self.contents.shapes[name]

    def _take(self, name: str) -> Tensor:
        self._left.discard(name)
        return self.contents.get(name)


def _split(name: str) -> tuple[str, bool]:
    return name.removesuffix(".T"), name.endswith(".T")
