"""Matrix products in float32 by the quicker of the two libraries that torch has on a CPU.

torch multiplies float32 matrices by MKL, which uses AVX-512 on Intel's processors alone. oneDNN, which comes with torch
too, uses it on AMD's: on one core of an EPYC 230 GFLOP/s, where MKL had 105 (1 024 × 576 × 1 536; MKL 2024.2, oneDNN
3.12). Both sum in float32, in orders of their own.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LEAST_ROWS = 16
"""Rows of a product below which oneDNN's start costs more than it gains (16 rows: 1.7 times as quick, one: .6)."""


@functools.cache
def onednn_gains() -> bool:
    """Whether oneDNN multiplies float32 quicker than MKL here. It does not depend on a timing, so that two runs on one
    machine have the same bits."""
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and _processor_of_amd()
        and onednn_works()
    )


def _processor_of_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False


@functools.cache
def onednn_works() -> bool:
    """Whether this build of torch has the operator, which is torch.compile's and may change."""
    try:
        product = _onednn(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]), torch.tensor([1.0, 1.0]))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return product.tolist() == [[12.0, 18.0]]


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """With a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _onednn(gradients[0].contiguous(), weight.T, None), None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, as `torch.nn.functional.linear`: [..., n] of x: [..., m], weight: [n, m] and bias: [n].

    Differentiable in all three. By oneDNN where that is quicker; sums are then in another order.
    """
    tensors = [x, weight] if bias is None else [x, weight, bias]
    large = x.dim() > 1 and x.numel() >= LEAST_ROWS * x.shape[-1]
    if not (large and onednn_gains() and all(_is_plain(one) for one in tensors)):
        return functional.linear(x, weight, bias)
    if not torch.is_grad_enabled() or not any(one.requires_grad for one in tensors):
        return _onednn(x, weight, bias)
    if any(one.requires_grad for one in tensors[1:]):
        return functional.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def _is_plain(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.layout == torch.strided


class _QuickProducts(TorchFunctionMode):
    """Sends the products of other people's modules through `linear`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear:
            return linear(*args, **(kwargs or {}))
        if func is torch.addmm and len(args) == 3 and not kwargs:  # GPT-2's
            return linear(args[1], args[2].T, args[0]) if args[0].dim() == 1 else func(*args)
        return func(*args, **(kwargs or {}))


def quick_products() -> contextlib.AbstractContextManager[Any]:
    """While open, a model's linear layers multiply as `linear` does; nothing changes where that gains nothing."""
    return _QuickProducts() if onednn_gains() else contextlib.nullcontext()
