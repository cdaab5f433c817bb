"""A second device, for tests on machines without one: tensors that lie there compute on the CPU, mix with tensors of
the CPU no more than CUDA's do, and cannot be read by NumPy.

    with other_device() as other:
        x = torch.randn(3).to(other.device)     # x.device is "other:0"
        x + torch.ones(3)                        # RuntimeError, as on CUDA
        x.numpy()                                # TypeError, as on CUDA

To torch it is a device like any other (of the type that is left free for back ends from outside), so autograd,
optimizers, `load_state_dict`, `.to(device)` and factories with `device=` take the ways that they take on a GPU. What it
cannot show: the GPU's own arithmetic, its memory, and code that asks for CUDA by name.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "other"

CROSSES = ("aten::copy_", "aten::_to_copy", "aten::_copy_from")
"""What moves values between devices."""

INDEXES = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
"""What takes its indices, the second argument, from the CPU too."""

TAKES_SCALARS = (
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::index_fill",
    "aten::index_fill_",
)
"""What takes a single number from the CPU, beside everything that works point by point."""


@dataclass
class Seen:
    """The device while it is open, and what was done on it."""

    device: torch.device
    operations: Counter[str] = field(default_factory=Counter)
    """How often each ran."""
    drawn: set[str] = field(default_factory=set)
    """Those that drew from the device's own random numbers, which no checkpoint keeps."""


class OtherTensor(torch.Tensor):
    """A tensor on the other device."""

    inner: Tensor
    """The same on the CPU."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> OtherTensor:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(NAME, 0),
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, None)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{self.inner!r} on {NAME}"

    def numpy(self, *, force: bool = False) -> Any:  # type: ignore[override]
        raise TypeError(f"can't convert {self.device} device type tensor to numpy.")

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, OtherTensor), "its device cannot be changed in place"
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner


class _Everywhere(TorchDispatchMode):
    """Also sees what makes tensors on the device out of nothing."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.seen)


def _run(func: Any, args: Any, kwargs: dict[str, Any], seen: Seen | None) -> Any:
    """One operation of torch, on the CPU; what it gives is put where it would lie."""
    name = func._schema.name
    asked = kwargs.get("device")
    tensors = list(_tensors((*args, *kwargs.values())))
    here = [one for one in tensors if isinstance(one, OtherTensor)]
    on_device = bool(here) if asked is None else torch.device(asked).type == NAME
    if not here and not on_device:
        return func(*args, **kwargs)
    _require_together(name, func, args, kwargs, tensors, here)
    _require_own_generator(name, args, kwargs, on_device)
    if seen is not None:
        seen.operations[name] += 1
        if torch.Tag.nondeterministic_seeded in func.tags:
            seen.drawn.add(name)
    if asked is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if name == "aten::_fused_sdp_choice":
        return 0  # the plain formula: the fused ones are each of one device
    found = func(*_each(_inner, args), **{key: _each(_inner, value) for key, value in kwargs.items()})
    known = {id(one.inner): one for one in here}  # what is changed in place stays the same object
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)
    for one in here:
        assert one.shape == one.inner.shape, f"{name} resizes, which this stand-in does not follow"

    def placed(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        return known[id(one)] if id(one) in known else OtherTensor(one)

    return _each(placed, found) if on_device else found


def _tensors(values: Any) -> Iterator[Tensor]:
    """Those among arguments, which are tensors, lists of them, or something else."""
    for one in values:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, list | tuple):
            yield from _tensors(one)


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """A value, or what is in a list or a tuple, changed."""
    if isinstance(value, list | tuple):
        return type(value)([_each(change, one) for one in value])
    return change(value)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OtherTensor) else value


def _require_together(
    name: str, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor], here: list[OtherTensor]
) -> None:
    """Raise RuntimeError where a GPU would: tensors of both devices in one operation."""
    if not here or name in CROSSES:
        return
    elsewhere = [one for one in tensors if not isinstance(one, OtherTensor)]
    if name in INDEXES and isinstance(args[0], OtherTensor):
        indices = {id(one) for one in args[1]}
        elsewhere = [one for one in elsewhere if id(one) not in indices]
    scalars = torch.Tag.pointwise in func.tags or name in TAKES_SCALARS
    written = func._schema.is_mutable and not isinstance(args[0], OtherTensor)
    if elsewhere and (written or not scalars or any(one.dim() for one in elsewhere)):
        shapes = ", ".join(str(list(one.shape)) for one in elsewhere)
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} got {shapes} on cpu beside {NAME}:0")


def _require_own_generator(name: str, args: Any, kwargs: dict[str, Any], on_device: bool) -> None:
    for one in [*args, *kwargs.values()]:
        if on_device and isinstance(one, torch.Generator) and one.device.type != NAME:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu': {name}")


_kernels: list[torch.library.Library] = []
"""Held for as long as the process lives."""


def _register() -> None:
    """Make the device known to torch, once a process."""
    if _kernels:
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)
    kernels = torch.library.Library("aten", "IMPL", "PrivateUse1")
    # What `torch.tensor(…, device=)` calls, past every mode.
    kernels.impl("empty.memory_format", _empty)
    kernels.impl("empty_strided", _empty_strided)
    kernels.impl("_copy_from", _copy_from)
    _kernels.append(kernels)


def _empty(size: Any, *, dtype: Any = None, **_options: Any) -> Tensor:
    return OtherTensor(torch.empty(size, dtype=dtype))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_options: Any) -> Tensor:
    return OtherTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    values = source.inner if isinstance(source, OtherTensor) else source
    (target.inner if isinstance(target, OtherTensor) else target).copy_(values)
    return target


@contextlib.contextmanager
def other_device() -> Iterator[Seen]:
    """While open, torch has the device `other:0`."""
    if not hasattr(torch._C, "_acc"):
        pytest.skip("this torch takes no device from Python")
    _register()
    seen = Seen(torch.device(NAME, 0))
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # a module keeps its parameters, as on the way to CUDA
    try:
        # Autograd's threads were started for the devices that there were.
        with torch.autograd.set_multithreading_enabled(False), _Everywhere(seen):
            yield seen
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
