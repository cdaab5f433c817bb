"""The safe-Padé kernel: against the stored form's own evaluation, and its gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rational_sae.kernels import apply_safe_pade
from rational_sae.kernels.reference import CHUNK
from rational_sae.rational import SafePade, cached_fit, target, to_safe_pade

KINKED = SafePade(np.array([0.02, 0.6, 0.9, -0.4]), np.array([0.7, 1.5]), 0.1)


def designed(degrees: tuple[int, int], theta: float | None = None) -> SafePade:
    wanted = target("relu") if theta is None else target("jumprelu", threshold=theta, gap=theta / 5)
    fit = cached_fit(wanted, degrees).partial_fractions
    assert fit is not None
    return to_safe_pade(fit)


FORMS = {"kinked": KINKED, "relu (3,2)": designed((3, 2)), "jumprelu (9,8)": designed((9, 8), 0.3)}


def packed(form: SafePade, dtype: torch.dtype, right_slope: float = 0.8) -> Tensor:
    return torch.tensor([right_slope, *form.a, *form.b], dtype=dtype)


@pytest.mark.parametrize("name", FORMS)
def test_it_is_the_stored_form_on_the_interval_and_continued_outside_it(name: str) -> None:
    form = FORMS[name]
    t = torch.linspace(-3, 3, 3001, dtype=torch.float64).repeat(40).view(40, -1)  # more points than one chunk
    assert t.numel() > CHUNK
    wanted = form(t.clamp(-1, 1).numpy()) + 0.8 * np.maximum(t.numpy() - 1, 0)
    centre = torch.tensor(form.c, dtype=torch.float64)
    found = apply_safe_pade(t, packed(form, torch.float64), centre, form.type[0])
    assert np.abs(found.numpy() - wanted).max() < 1e-12
    single = apply_safe_pade(t.float(), packed(form, torch.float32), centre.float(), form.type[0])
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - wanted).max() < 3e-6


@pytest.mark.parametrize("name", FORMS)
def test_its_gradients_are_those_of_finite_differences(name: str) -> None:
    form = FORMS[name]
    # off the kinks of |S|, at u = 0 and where S changes sign, and off the ends of the interval
    t = torch.tensor([-1.4, -0.93, -0.51, -0.3, 0.05, 0.25, 0.34, 0.62, 0.97, 1.6], dtype=torch.float64)
    shape = packed(form, torch.float64)
    unit = shape.abs().clamp_min(1.0)  # coefficients reach 1e5, and a difference of 1e-6 is lost in them
    centre = torch.tensor(form.c, dtype=torch.float64)

    def relative(t: Tensor, gains: Tensor) -> Tensor:
        return apply_safe_pade(t, gains * unit, centre, form.type[0])

    inputs = (t.requires_grad_(), (shape / unit).requires_grad_())
    assert torch.autograd.gradcheck(relative, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_a_sum_over_many_chunks_is_the_sum_over_the_points() -> None:
    t = torch.rand(2 * CHUNK + 17, generator=torch.Generator().manual_seed(0)) * 3 - 1.5
    g = torch.randn(len(t), generator=torch.Generator().manual_seed(1))
    centre = torch.tensor(KINKED.c)
    fast = packed(KINKED, torch.float32).requires_grad_()
    (g * apply_safe_pade(t, fast, centre, 3)).sum().backward()
    plain = packed(KINKED, torch.float64).requires_grad_()
    u = t.double().clamp(-1, 1) - KINKED.c
    powers = torch.stack([u**i for i in range(4)])
    r = (plain[1:5, None] * powers).sum(0) / (1 + (plain[5:, None] * powers[1:3]).sum(0).abs())
    (g * (r + plain[0] * (t - 1).clamp_min(0))).sum().backward()
    assert fast.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(fast.grad.double(), plain.grad, rtol=1e-5, atol=1e-3)
