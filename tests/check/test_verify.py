"""Verification on load: figures on real activations, and the likely formula when the stored one is wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rational_sae.check.alternatives import likely_formula
from rational_sae.check.verify import out_of_range, reconstruction, verify
from rational_sae.errors import ImplausibleSAEError
from rational_sae.gates.base import Gate
from rational_sae.gates.hard import HardGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE

D_IN, D_SAE, K = 64, 64, 4


def dictionary() -> Tensor:
    """[d_sae, d_in], orthonormal rows: codes are read off exactly."""
    return torch.linalg.qr(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(0))).Q


def centre() -> Tensor:
    return 2 * torch.randn(D_IN, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def x() -> Tensor:
    """[1024, d_in] activations: a few rows of the dictionary, a centre, and a little noise."""
    numbers = torch.Generator().manual_seed(2)
    z = torch.zeros(1024, D_SAE)
    places = torch.rand(1024, D_SAE, generator=numbers).topk(K, dim=-1).indices
    z.scatter_(1, places, 8 + 4 * torch.rand(1024, K, generator=numbers))
    return z @ dictionary() + centre() + 0.3 * torch.randn(1024, D_IN, generator=numbers)


def sae(gate: Gate, **options: bool) -> SAE:
    """The SAE that made the activations, apart from its gate."""
    rows = dictionary()
    return SAE(rows.T, torch.zeros(D_SAE), rows, centre(), gate, **options)


GATES = {"topk": TopKGate(K), "threshold": ThresholdGate(torch.full((D_SAE,), 6.5))}


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES.keys())
def test_the_right_formula_is_left_alone(gate: Gate, x: Tensor) -> None:
    right = sae(copy.deepcopy(gate))
    verified = verify(right, x)
    assert (verified.likely, verified.warnings) == (None, ())
    assert (verified.fvu, verified.l0) == reconstruction(right, x)
    assert verified.fvu < 0.5
    assert verified.out_of_range is None


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES.keys())
def test_a_confused_b_dec_is_named(gate: Gate, x: Tensor) -> None:
    right = sae(copy.deepcopy(gate))
    wrong = sae(copy.deepcopy(gate), apply_b_dec_to_input=False)
    likely = verify(wrong, x, accept_implausible=True).likely
    assert likely is not None
    assert likely.changes == ("b_dec subtracted",)
    assert likely.fvu == pytest.approx(reconstruction(right, x)[0], rel=0.2)
    # The other way round: the biases fold b_dec, so subtracting it again is the mistake.
    folded = sae(copy.deepcopy(gate), apply_b_dec_to_input=True)
    folded.b_enc.data = -right.b_dec.detach() @ right.W_enc.detach()
    likely = verify(folded, x, accept_implausible=True).likely
    assert likely is not None
    assert likely.changes == ("b_dec not subtracted",)


def test_a_forgotten_scale_is_named(x: Tensor) -> None:
    wrong = sae(copy.deepcopy(GATES["threshold"]))
    wrong.rescale_input_(D_IN**0.5 / float(x.norm(dim=-1).mean()))
    likely = verify(wrong, x, accept_implausible=True).likely
    assert likely is not None
    assert likely.changes == ("x scaled to mean norm √d_in",)


def test_a_forgotten_centring_is_named(x: Tensor) -> None:
    """An SAE of centred activations, given some with an offset that differs from token to token."""
    away = torch.eye(D_IN) - torch.full((D_IN, D_IN), 1 / D_IN)
    rows = dictionary() @ away
    centred = SAE(rows.T, torch.zeros(D_SAE), rows, centre() @ away, copy.deepcopy(GATES["threshold"]))
    assert verify(centred, x @ away).likely is None
    offset = 10 * torch.randn(len(x), 1, generator=torch.Generator().manual_seed(4))
    likely = verify(centred, x @ away + offset, accept_implausible=True).likely
    assert likely is not None
    assert likely.changes == ("x centred over d_in",)
    assert likely.fvu == pytest.approx(reconstruction(centred, x @ away)[0], rel=0.2)


@pytest.mark.parametrize("known", [True, False])
def test_a_topk_read_as_relu_is_named(x: Tensor, known: bool) -> None:
    """With a positive bias every latent passes a ReLU. A k in the files is used; else one is guessed, and said so."""
    wrong = sae(ReLUGate())
    wrong.b_enc.data += 3.0
    if known:
        wrong.metadata.extra["k"] = K
    with pytest.raises(ImplausibleSAEError, match=r"the formula may be wrong; likely: (TopK|a threshold)") as caught:
        verify(wrong, x)
    assert "--accept" not in str(caught.value), "headroom and export have no option to go on"
    likely = verify(wrong, x, accept_implausible=True).likely
    assert likely is not None
    assert "guess" in likely.changes[0] or known
    assert likely.l0 == pytest.approx(K, rel=0.05)
    assert likely.fvu < 0.3


def test_noise_has_no_likely_formula() -> None:
    noise = torch.randn(512, D_IN, generator=torch.Generator().manual_seed(3))
    verified = verify(sae(TopKGate(K)), noise, accept_implausible=True)
    assert verified.likely is None
    assert verified.warnings


def test_trying_formulas_leaves_the_sae_as_it_was(x: Tensor) -> None:
    one = sae(TopKGate(K), apply_b_dec_to_input=False)
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    gate = one.gate
    likely_formula(one, x)
    assert (one.gate, one.apply_b_dec_to_input, one.normalisation) == (gate, False, "none")
    assert all(torch.equal(before[name], tensor) for name, tensor in one.state_dict().items())


def test_share_out_of_range(x: Tensor) -> None:
    line = PartialFractions(0.0, 1.0, alpha=[], beta=[], x=[], eta=[])  # type: ignore[arg-type]
    scale = torch.full((D_SAE,), 10.0)
    one = sae(HardGate(line, scale, torch.full((D_SAE,), 6.5)))
    h = one.preactivations(x)
    expected = float((h > 10.0).sum() / (h > 6.5).sum())
    assert 0.1 < expected < 0.9
    assert out_of_range(one, x) == pytest.approx(expected)
    assert verify(one, x, accept_implausible=True).out_of_range == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["relu", "jumprelu", "topk"])
def test_corrupted_demo_teachers_on_the_embedded_model(family: str) -> None:
    """Each confusion of a trained SAE is named on real activations, and the right formula is not accused."""
    from rational_sae.data.reading import Reading
    from rational_sae.formats import load

    teacher = load(str(Path(__file__).parents[2] / "demo" / "teachers" / family))
    x = Reading(text="news").open(teacher).sample("calibration", 512)
    right = verify(teacher, x)
    assert right.likely is None
    flipped = copy.deepcopy(teacher)
    flipped.apply_b_dec_to_input = not teacher.apply_b_dec_to_input
    unscaled = copy.deepcopy(teacher)
    unscaled.rescale_input_(teacher.d_in**0.5 / float(x.norm(dim=-1).mean()))
    for wrong, word in ((flipped, "b_dec"), (unscaled, "mean norm √d_in")):
        likely = verify(wrong, x, accept_implausible=True).likely
        assert likely is not None
        assert word in ", ".join(likely.changes)
        assert likely.fvu == pytest.approx(right.fvu, rel=0.1)
        assert likely.l0 == pytest.approx(right.l0, rel=0.1)
    if family != "relu":
        likely = verify(teacher.with_gate(ReLUGate()), x, accept_implausible=True).likely
        assert likely is not None
        assert ("TopK (k near 32" if family == "topk" else "threshold") in likely.changes[0]
