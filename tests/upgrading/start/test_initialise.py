"""The start of an upgrade, on the shipped teachers and the real model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from rational_sae.check.verify import reconstruction
from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.demo import FAMILIES, demo_settings
from rational_sae.formats import load
from rational_sae.gates.registry import TRAINED
from rational_sae.sae.model import SAE
from rational_sae.upgrading.start.calibrate import calibrate
from rational_sae.upgrading.start.initialise import canonical, rational_start
from rational_sae.upgrading.train.revive import revive_


@pytest.fixture(scope="module")
def activations(host: Host, news: Text) -> dict[str, Tensor]:
    reader = Reader(host, host.hook("model.layers.11"), news, Tokeniser(host.tokenizer))
    return {"calibration": reader.sample("calibration", 2048), "test": reader.sample("test", 2048)}


def teacher(family: str) -> SAE:
    return load(demo_settings(family).teacher)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shipped_teachers_explain_the_model(family: str, activations: dict[str, Tensor]) -> None:
    fvu, l0 = reconstruction(teacher(family), activations["test"])
    assert 0.08 < fvu < 0.3
    assert 20 < l0 < 130


@pytest.mark.parametrize("family", FAMILIES)
def test_canonical_units_change_nothing_and_can_be_undone(family: str, activations: dict[str, Tensor]) -> None:
    x, one = activations["test"][:512], teacher(family)
    sae, units = canonical(one, activations["calibration"])
    with torch.no_grad():
        wanted = one(x)
        scale = float(wanted.abs().max())
        assert (sae(x * units.input) / units.input - wanted).abs().max() < 1e-4 * scale
        assert float((x * units.input).norm(dim=-1).mean()) == pytest.approx(one.d_in**0.5, rel=0.05)
        assert float(sae.W_dec.norm(dim=-1).mean()) == pytest.approx(1, rel=1e-3)
        assert (units.undo_(sae)(x) - wanted).abs().max() < 1e-4 * scale


def test_a_decoder_row_of_no_length_gives_no_latent_a_scale_of_another_order(activations: dict[str, Tensor]) -> None:
    x, one = activations["calibration"], teacher("jumprelu")
    with torch.no_grad():
        one.W_dec[:3] *= torch.tensor([[1e-7], [1e-12], [0.0]])
        wanted = one(x)
    sae, units = canonical(one, x)
    start = rational_start(sae, x * units.input, (5, 4), TRAINED["hard"])
    finished = sae.with_gate(start.init)
    assert len(revive_(finished, torch.arange(3), x * units.input, 50.0, seed=0)) == 3
    start.init.check_safe()
    units.undo_(finished)
    start.init.check_safe()
    scale = start.init.scale.detach()
    assert float((scale / scale.median()).max()) < 1e4
    assert (units.undo_(canonical(one, x)[0])(x) - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("degrees", [(9, 8), (3, 2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_init_reproduces_the_teacher(family: str, degrees: tuple[int, int], activations: dict[str, Tensor]) -> None:
    one = teacher(family)
    sae, units = canonical(one, activations["calibration"])
    x = activations["calibration"] * units.input
    start = rational_start(sae, x, degrees, TRAINED["hard"])
    calibration = calibrate(start.init, sae, x)
    assert calibration.after <= calibration.before
    init = units.undo_(sae.with_gate(copy.deepcopy(start.init)))
    fvu, l0 = reconstruction(one, activations["test"])
    init_fvu, init_l0 = reconstruction(init, activations["test"])
    assert init_fvu == pytest.approx(fvu, rel=0.02)
    assert init_l0 == pytest.approx(l0, rel=0.05)
