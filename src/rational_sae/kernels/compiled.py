"""The same by `torch.compile`: one fused loop, on CPU and GPU. Needs a C++ compiler, or Triton on a GPU.

On two cores a million points forward and backward take about a tenth of the reference's time, after some twenty
seconds of compiling (torch keeps the result on disk).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rational_sae.kernels import reference

FEWEST = 2
"""torch.compile compiles lengths 0 and 1 anew, for nothing."""

MOST_APART = 2
"""Degrees that are compiled apart. torch gives a function up after eight compilations, and dtypes count as well."""

_apart: set[int] = set()
"""Their numbers of coefficients."""


@torch.no_grad()  # a compilation is for one grad mode
def value(t: Tensor, shape: Tensor) -> Tensor:
    """As in reference.py."""
    if len(t) < FEWEST:
        return reference.value(t, shape)
    return _compiled(reference.value_of)(_any_length(t), _this_degree(shape))


@torch.no_grad()
def value_slope_sums(t: Tensor, g: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As in reference.py."""
    if len(t) < FEWEST:
        return reference.value_slope_sums(t, g, shape)
    r, slope, sums = _compiled(_value_slope_sums)(_any_length(t), _any_length(g), _this_degree(shape))
    return r, slope, reference.from_sums(sums, shape)


def _value_slope_sums(t: Tensor, g: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r, slope, terms = reference.value_slope_terms(t, g, shape)
    return r, slope, torch.cat([term.sum(-1, dtype=torch.float64).view(-1) for term in terms])


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True)


def _this_degree(shape: Tensor) -> Tensor:
    """The same coefficients, marked so that the first degrees are compiled apart: torch would make the number of poles
    a variable at the second one, and a loop over poles takes more than twice as long as poles written out."""
    shape = shape.detach()
    if shape.dtype == torch.float32 and (len(shape) in _apart or len(_apart) < MOST_APART):
        _apart.add(len(shape))
        torch._dynamo.mark_static(shape, 0)
    return shape


def _any_length(t: Tensor) -> Tensor:
    """The same tensor, marked so that one compilation serves every length."""
    t = t.detach()
    torch._dynamo.maybe_mark_dynamic(t, 0)
    return t
