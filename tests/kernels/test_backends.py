"""Every back end against the float64 formula: values, gradients, extremes, dtypes, strides; and a broken one.

Triton runs through its interpreter here, without a GPU.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rational_sae.kernels import (
    BACKENDS,
    LINEAR,
    apply_rational,
    compiled,
    function,
    rational_value,
    value_slope_sums,
)
from rational_sae.kernels.function import Backend

POLES = (0, 1, 3, 4, 6)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A back end that really runs: its replacement by the reference would warn, and a warning is an error."""
    if request.param == "triton":
        pytest.importorskip("triton", reason="triton cannot be installed here")
    assert request.param not in function._failed
    yield request.param
    assert request.param not in function._failed


def coefficients(poles: int, seed: int = 0) -> Tensor:
    """[LINEAR + 4·poles] float32, poles 0.05 to 1.6 from the real line."""
    rng = torch.Generator().manual_seed(seed)
    free = torch.rand(LINEAR + 3 * poles, generator=rng) * 2 - 1
    return torch.cat([free, torch.rand(poles, generator=rng) * 3.5 - 3.0])


def formula(t: np.ndarray, shape: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """r(t) and ∂r(t)/∂shape: [LINEAR + 4K, n], in float64, written once more and plainly."""
    e0, e1, slope, *rest = shape.double().tolist()
    alpha, beta, x, eta = np.array(rest).reshape(4, -1, 1)
    inside, right, y = np.clip(t, -1, 1), np.maximum(t - 1, 0), np.exp(eta)
    d = inside - x
    q = d**2 + y**2
    r = e0 + e1 * inside + slope * right + ((alpha * d + beta * y) / q).sum(0)
    by_x = -alpha / q + 2 * d * (alpha * d + beta * y) / q**2
    by_eta = beta * y / q - 2 * y**2 * (alpha * d + beta * y) / q**2
    return r, np.concatenate([np.ones_like(t)[None], inside[None], right[None], d / q, y / q, by_x, by_eta])


@pytest.mark.parametrize("poles", POLES)
def test_value_and_gradients_equal_the_float64_formula(backend: Backend, poles: int) -> None:
    shape = coefficients(poles)
    rng = torch.Generator().manual_seed(1)
    t = (torch.rand(3000, generator=rng) * 3 - 1.5).requires_grad_()
    g = torch.randn(3000, generator=rng)
    shape.requires_grad_()
    value = apply_rational(t, shape, backend)
    (g * value).sum().backward()
    wanted, basis = formula(t.detach().double().numpy(), shape.detach())
    size = np.abs(wanted).max()
    assert np.abs(value.detach().numpy() - wanted).max() < 3e-6 * size
    assert shape.grad is not None
    assert t.grad is not None
    by_shape = basis @ g.double().numpy()
    scale = np.abs(basis) @ np.abs(g.double().numpy())
    assert (np.abs(shape.grad.numpy() - by_shape) < 1e-6 * scale + 1e-9).all()
    step = 1e-6
    points = t.detach().double().numpy()
    smooth = np.abs(np.abs(points) - 1) > 1e-5
    slope = (formula(points + step, shape.detach())[0] - formula(points - step, shape.detach())[0]) / (2 * step)
    assert np.abs(t.grad.numpy() / g.numpy() - slope)[smooth].max() < 1e-4 * max(1.0, np.abs(slope).max())


@pytest.mark.parametrize("poles", [0, 2])
def test_gradcheck(backend: Backend, poles: int) -> None:
    if backend == "compiled" and poles == 0:
        pytest.skip("one compilation in float64 is enough")
    t = torch.tensor([-3.0, -0.9, -0.2, 0.3, 0.8, 1.7], dtype=torch.float64, requires_grad=True)
    shape = coefficients(poles).double().requires_grad_()
    assert torch.autograd.gradcheck(apply_rational, (t, shape, backend))


def test_far_points_are_on_the_continuations_and_nan_stays_nan(backend: Backend) -> None:
    shape = coefficients(3)
    t = torch.tensor([-1e30, -2.0, 1e30, torch.nan, 0.5])
    r, slope, sums = value_slope_sums(t, torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])[:5], shape, backend)
    left = float(formula(np.array([-1.0]), shape)[0][0])
    assert r[:2].tolist() == pytest.approx([left, left], rel=1e-5)
    assert float(r[2]) == pytest.approx(1e30 * float(shape[2]), rel=1e-5)
    assert slope[:3].tolist() == pytest.approx([0.0, 0.0, float(shape[2])])
    assert r[3].isnan()
    assert slope[3].isnan()
    assert r[4].isfinite()
    assert sums.isnan().any(), "a NaN that has a weight, even 0, is not hidden"
    finite = value_slope_sums(t[:3], torch.ones(3), shape, backend)[2]
    assert finite.isfinite().all()
    assert float(finite[2]) == pytest.approx(1e30, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_shape_strides_and_dtype(backend: Backend, dtype: torch.dtype) -> None:
    shape = coefficients(3)
    t = torch.linspace(-1.2, 1.2, 60).view(3, 4, 5).transpose(0, 2)[:, ::2].to(dtype).requires_grad_()
    r = apply_rational(t, shape, backend)
    assert r.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert r.shape == t.shape
    wanted = torch.from_numpy(formula(t.detach().double().flatten().numpy(), shape)[0]).view_as(r)
    assert torch.allclose(r.double(), wanted, atol=1e-5)
    r.sum().backward()
    assert t.grad is not None
    assert (t.grad.dtype, t.grad.shape) == (dtype, t.shape)


@pytest.mark.parametrize("n", [0, 1])
def test_no_point_and_one_point(backend: Backend, n: int) -> None:
    shape = coefficients(3)
    r, slope, sums = value_slope_sums(torch.full((n,), 0.5), torch.ones(n), shape, backend)
    assert (r.shape, slope.shape, sums.shape) == ((n,), (n,), shape.shape)
    assert float(sums[0]) == n


def test_two_runs_give_the_same_bits(backend: Backend) -> None:
    shape = coefficients(4)
    t = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    first, second = (value_slope_sums(t, t.cos(), shape, backend) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_but_the_arguments_is_kept_for_the_backward_pass() -> None:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    t, shape = torch.randn(100, requires_grad=True), coefficients(4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        apply_rational(t, shape)
    assert [tensor.data_ptr() for tensor in kept] == [t.data_ptr(), shape.data_ptr()]


def test_without_a_compiler_there_is_one_warning_and_the_same_values() -> None:
    code = """
import warnings, torch
from rational_sae.kernels import rational_value
shape, t = torch.tensor([0.1, 0.5, 1.0, 0.2, 0.3, 0.1, -1.0]), torch.linspace(-2, 2, 99)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    found = [rational_value(t, shape, "compiled") for _ in range(3)]
assert all(torch.equal(one, rational_value(t, shape, "reference")) for one in found)
ours = [str(w.message) for w in seen if "kernel does not work here" in str(w.message)]
assert len(ours) == 1, ours
assert "plain torch is used" in ours[0]
"""
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_first_degrees_are_compiled_apart_and_once_for_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compilation for any degree loops over poles, and took more than twice as long; but torch allows eight."""
    compilations: list[torch.fx.GraphModule] = []

    def seen(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        compilations.append(graph)
        return graph

    monkeypatch.setattr(
        compiled, "_compiled", functools.cache(lambda f: torch.compile(f, fullgraph=True, backend=seen))
    )
    monkeypatch.setattr(compiled, "_apart", set())
    torch._dynamo.reset()
    assert compiled.MOST_APART == 2
    expected = {(2, 50): 1, (4, 60): 2, (2, 70): 2, (4, 80): 2, (3, 90): 3, (5, 50): 3, (6, 60): 3, (2, 80): 3}
    for (poles, length), count in expected.items():
        rational_value(torch.randn(length), coefficients(poles), "compiled")
        assert len(compilations) == count
    torch._dynamo.reset()


def test_the_automatic_choice_compiles_only_long_differentiated_vectors_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(function, "COMPILE_FROM", 100)
    assert function._automatic(torch.zeros(100), differentiated=True) == "compiled"
    assert function._automatic(torch.zeros(99), differentiated=True) == "reference"
    assert function._automatic(torch.zeros(100), differentiated=False) == "reference"
    assert function._automatic(torch.zeros(100, device="meta"), differentiated=True) == "reference"
    assert torch.equal(
        rational_value(torch.zeros(4), coefficients(1)),
        torch.zeros(4) + rational_value(torch.zeros(1), coefficients(1), "reference"),
    )
