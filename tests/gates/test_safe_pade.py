"""The paper's gate: the function it starts from, training, units, and the way to disk and back."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from formats.test_save import KINKED, batch, make
from torch import Tensor

from rational_sae.errors import FitError, SourceError
from rational_sae.formats import load
from rational_sae.formats.saelens import CONFIG
from rational_sae.formats.save import save
from rational_sae.gates.gate import SMOOTH_EPSILON, RationalGate
from rational_sae.gates.safe_pade import SafePadeGate
from rational_sae.rational import PartialFractions, cached_fit, target

D = 24


def shape() -> PartialFractions:
    fit = cached_fit(target("jumprelu", threshold=0.3, gap=0.06), (9, 8))
    assert fit.partial_fractions is not None
    return fit.partial_fractions


@pytest.fixture
def scale() -> Tensor:
    return torch.linspace(2.0, 6.0, D)


@pytest.fixture
def h() -> Tensor:
    return 4 * torch.randn(64, D, generator=torch.Generator().manual_seed(0))


def smooth(scale: Tensor) -> RationalGate:
    return RationalGate(shape(), scale, 0.3 * scale, mode="smooth", gain=1.2, right_slope=0.9)


def test_it_starts_as_the_gate_in_partial_fractions(scale: Tensor, h: Tensor) -> None:
    one = smooth(scale)
    gate = SafePadeGate.of(one)
    (z, l0), (wanted, wanted_l0) = gate(h), one(h)
    assert ((z - wanted).abs() / scale).max() < 1e-5
    assert float(l0) == pytest.approx(float(wanted_l0), rel=1e-3)
    assert float(l0) == pytest.approx(float((z.abs() > SMOOTH_EPSILON * scale).sum() / len(h)))
    t = torch.linspace(-1, 1, 401)
    assert (gate.value(t) - torch.from_numpy(gate.coefficients(t.numpy())).float()).abs().max() < 1e-6
    assert gate.coefficients.type == (9, 8)
    assert abs(gate.partial_fractions(0.7) - one.partial_fractions(0.7)) < 1e-6


def test_every_number_but_the_centre_is_trained(scale: Tensor, h: Tensor) -> None:
    gate = SafePadeGate.of(smooth(scale))
    before = copy.deepcopy(gate.state_dict())
    optimizer = torch.optim.Adam([gate.shape, gate.log_scale, gate.log_gain], lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (gate(h)[0] - h.relu()).pow(2).mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gate.project_()
    assert losses[-1] < 0.9 * losses[0]
    moved = [name for name, value in gate.state_dict().items() if not torch.equal(value, before[name])]
    assert sorted(moved) == ["log_gain", "log_scale", "shape"]
    # Adam's steps do not grow with a coefficient: those of 1e4 stand still.
    assert ((gate.shape != before["shape"]) | (before["shape"].abs() > 1e4)).all()


def test_the_right_slope_is_kept_from_falling(scale: Tensor) -> None:
    gate = SafePadeGate.of(smooth(scale))
    with torch.no_grad():
        gate.shape[0] = -0.2
    gate.project_()
    assert gate.right_slope == 0.0


def test_a_kink_is_refused_in_partial_fractions_and_kept_in_its_own_form(scale: Tensor) -> None:
    gate = SafePadeGate(KINKED, scale, 0.3 * scale)
    found = gate.coefficients
    assert [found.c, *found.a, *found.b] == pytest.approx([KINKED.c, *KINKED.a, *KINKED.b], rel=1e-7)
    with pytest.raises(FitError):
        _ = gate.partial_fractions


def test_it_stays_float32_and_follows_a_change_of_units(scale: Tensor, h: Tensor) -> None:
    gate = SafePadeGate.of(smooth(scale))
    z = gate(h)[0]
    gate.to(torch.bfloat16)
    assert torch.equal(gate(h)[0], z)
    factor = torch.linspace(0.5, 2.0, D)
    gate.rescale_(factor)
    torch.testing.assert_close(gate(h * factor)[0], z * factor, rtol=1e-4, atol=1e-5)


def saved(folder: Path) -> Path:
    d_sae = 37
    save(make(SafePadeGate(KINKED, torch.full((d_sae,), 2.5), torch.ones(d_sae), gain=1.3)), folder)
    return folder


@torch.no_grad()
def test_a_folder_gives_the_same_codes_to_the_bit(tmp_path: Path) -> None:
    first = load(str(saved(tmp_path / "one")))
    save(first, tmp_path / "two")
    again = load(str(tmp_path / "two"))
    assert isinstance(again.gate, SafePadeGate)
    assert torch.equal(again.gate.shape, first.gate.shape)
    assert torch.equal(again.encode(batch()), first.encode(batch()))
    stored = json.loads((tmp_path / "two" / CONFIG).read_text())["coefficients"]
    assert (stored["form"], stored["version"]) == ("centred_safe_pade", 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "hard"}, "which mode 'hard' does not take"),
        ({"coefficients": {"form": "centred_safe_pade", "version": 2, "a": [0.0], "b": [], "c": 0.0}}, "version 2"),
        ({"coefficients": {"form": "centred_safe_pade", "version": 1, "a": [0.0], "c": 0.0}}, "lack b"),
    ],
)
def test_what_it_cannot_be_is_refused_by_name(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = saved(tmp_path / "sae") / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SourceError, match=reason):
        load(str(path.parent))
