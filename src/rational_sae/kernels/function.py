"""The one function that everything calls, and the choice of back end.

Back ends (all compute in float32, or in float64 if t is float64; all take any number of poles):

`reference`  plain torch, any device
`compiled`   torch.compile, CPU and GPU
`triton`     Triton kernels, GPU
`auto`       Triton on CUDA, `compiled` for long differentiated vectors on a CPU, else the reference

A back end that cannot work here (no compiler, no Triton) is replaced by the reference, with one warning.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rational_sae.kernels import reference

Backend = Literal["auto", "reference", "compiled", "triton"]

BACKENDS: tuple[Backend, ...] = tuple(name for name in get_args(Backend) if name != "auto")

_MODULES = {"compiled": "rational_sae.kernels.compiled", "triton": "rational_sae.kernels.triton_kernel"}

COMPILE_FROM = 1 << 20
"""Points from which `auto` compiles for a CPU. A smooth gate has several millions a step, and a step then saves a
tenth of a second; a hard gate has 100 000 and would never earn the compiling."""

_failed: set[str] = set()
"""Back ends that did not work here, each warned about once."""


def apply_rational(t: Tensor, shape: Tensor, backend: Backend = "auto") -> Tensor:
    """r(t), differentiable once in both arguments; nothing but them is kept for the backward pass.

    t: any shape, strides and floating dtype; shape: [LINEAR + 4K]. Returns the shape of t, in float32 (float64 if t
    is). NaN gives NaN; ±1e30 gives the continuations of reference.py.
    """
    return _Rational.apply(t, shape, backend)


def rational_value(t: Tensor, shape: Tensor, backend: Backend = "auto") -> Tensor:
    """r(t), not recorded for gradients. As `apply_rational`."""
    return _value(t, shape, backend, differentiated=False)


def value_slope_sums(t: Tensor, g: Tensor, shape: Tensor, backend: Backend = "auto") -> tuple[Tensor, Tensor, Tensor]:
    """r(t), r′(t) and Σ_i g_i ∂r(t_i)/∂shape in one pass, not recorded for gradients.

    t, g: of one shape; shape: [LINEAR + 4K]. Returns two of the shape of t, and [LINEAR + 4K] of the dtype of shape,
    summed in float64 at the end.
    """
    points, coefficients = _prepared(t, shape)
    weights = g.detach().to(points.dtype).reshape(-1).contiguous()
    chosen = _automatic(points, differentiated=True) if backend == "auto" else backend
    r, slope, sums = _call(chosen, "value_slope_sums", points, weights, coefficients)
    return r.view(t.shape), slope.view(t.shape), sums.to(shape.dtype)


class _Rational(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, shape: Tensor, backend: Backend) -> Tensor:
        ctx.save_for_backward(t, shape)
        ctx.backend = backend
        return _value(t, shape, backend, differentiated=any(ctx.needs_input_grad))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        t, shape = ctx.saved_tensors
        _, slope, sums = value_slope_sums(t, grads[0], shape, ctx.backend)
        return (grads[0] * slope).to(t.dtype), sums, None


def _prepared(t: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    """t: [n] and shape, contiguous, in the dtype that is computed in."""
    dtype = torch.float64 if t.dtype == torch.float64 else torch.float32
    return t.detach().to(dtype).reshape(-1).contiguous(), shape.detach().to(dtype).contiguous()


def _value(t: Tensor, shape: Tensor, backend: Backend, *, differentiated: bool) -> Tensor:
    points, coefficients = _prepared(t, shape)
    chosen = _automatic(points, differentiated=differentiated) if backend == "auto" else backend
    return _call(chosen, "value", points, coefficients).view(t.shape)


def _call(chosen: str, name: str, *arguments: Tensor) -> Any:
    if chosen != "reference" and chosen not in _failed:
        try:
            return getattr(importlib.import_module(_MODULES[chosen]), name)(*arguments)
        except Exception as error:  # compilers fail in many ways; whatever is wrong with the data fails below as well
            _failed.add(chosen)
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            warnings.warn(
                f"the {chosen} kernel does not work here ({line}); plain torch is used", RuntimeWarning, stacklevel=2
            )
    return getattr(reference, name)(*arguments)


def _automatic(t: Tensor, *, differentiated: bool) -> str:
    if t.device.type == "cuda":
        return "triton" if _has_triton() else "compiled"
    return "compiled" if t.device.type == "cpu" and differentiated and len(t) >= COMPILE_FROM else "reference"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
