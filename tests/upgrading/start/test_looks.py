"""The looks that training starts from, and a whole job that has them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import save_tiny_teacher, save_tiny_text
from torch import Tensor

from rational_sae.formats import load
from rational_sae.gates.hard import HardGate
from rational_sae.gates.registry import TRAINED
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.publish.distil import fit_lines
from rational_sae.sae.candidates import CANDIDATES, candidate_floor, least_unit, units
from rational_sae.sae.match_l0 import solve_shift
from rational_sae.sae.model import SAE
from rational_sae.upgrading.job import run
from rational_sae.upgrading.run.write import write
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.initialise import rational_start
from rational_sae.upgrading.start.looks import designed_looks, hard_looks, untrained_fvu
from rational_sae.upgrading.train.candidate import Candidate

D_IN, D_SAE, N, ACTIVE = 32, 96, 4000, 6


def directions() -> Tensor:
    return torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def x() -> Tensor:
    """Sums of a few directions that overlap, so that one look takes some for others."""
    rng = torch.Generator().manual_seed(1)
    code = torch.zeros(N, D_SAE)
    code.scatter_(1, torch.rand(N, D_SAE, generator=rng).topk(ACTIVE).indices, 1.0)
    return (code * (1 + torch.rand(N, D_SAE, generator=rng))) @ directions()


@pytest.fixture
def one_look(x: Tensor) -> SAE:
    teacher = SAE(
        directions().T, torch.zeros(D_SAE), directions(), torch.zeros(D_IN), ThresholdGate(torch.full((D_SAE,), 0.8))
    )
    teacher.gate.shift_(solve_shift(teacher, x, ACTIVE))
    start = rational_start(teacher, x, (5, 4), TRAINED["hard"])
    return teacher.with_gate(start.init)


def test_there_are_as_many_candidates_as_said(one_look: SAE, x: Tensor) -> None:
    unit = units(one_look, least_unit(one_look))
    floor = candidate_floor(one_look, unit, x, ACTIVE)
    with torch.no_grad():
        listed = (one_look.preactivations(x) / unit > floor).sum(1).float().mean()
    assert float(listed.detach()) == pytest.approx(CANDIDATES * ACTIVE, rel=1e-3)


def test_thresholds_that_begin_near_zero_count_as_half_the_scale_through_all_of_training(x: Tensor) -> None:
    bias = torch.zeros(D_SAE)
    teacher = SAE(directions().T, bias, directions(), torch.zeros(D_IN), ReLUGate())
    with torch.no_grad():  # the bias that a ReLU has of this L0
        bias.fill_(-float(teacher.preactivations(x).flatten().sort(descending=True).values[ACTIVE * N]))
    relu = SAE(directions().T, bias, directions(), torch.zeros(D_IN), ReLUGate())
    start = rational_start(relu, x, (5, 4), TRAINED["hard"])
    sae = relu.with_gate(start.init)
    looks = designed_looks(sae, x, 2, ACTIVE, (5, 4)).looks
    assert torch.allclose(looks.unit, 2 * sae.gate.scales())  # of 4 times what a threshold counts as
    sae = sae.with_gate(start.init, looks)
    candidate = Candidate("rsae", sae, Settings(teacher="t", looks=2, hold_l0=False), x, ACTIVE)
    with torch.no_grad():
        start.init.shift_(0.6)  # as training raises them, above half of the scale
    candidate.step(x[:500], 1.0, 1)
    moved = start.init.threshold.detach()
    assert torch.allclose(looks.unit / looks.unit.mean(), moved / moved.mean(), rtol=1e-5)


@pytest.mark.parametrize("drift", [0.7, 1.3])
def test_training_keeps_their_number_though_preactivations_drift(one_look: SAE, x: Tensor, drift: float) -> None:
    sae = one_look.with_gate(one_look.gate, designed_looks(one_look, x, 2, ACTIVE, (5, 4)).looks)
    candidate = Candidate("rsae", sae, Settings(teacher="t", looks=2, hold_l0=False), x, ACTIVE)

    def listed() -> float:
        assert sae.looks is not None
        with torch.no_grad():
            return float((sae.first_look(x) > sae.looks.level).sum(1).float().mean())

    assert sae.looks is not None
    before = sae.looks.unit.clone()
    with torch.no_grad():
        sae.W_enc *= drift
        begun = one_look.gate.threshold.clone()  # type: ignore[union-attr]
    assert abs(listed() / (CANDIDATES * ACTIVE) - 1) > 0.1
    for number in range(1, 11):
        candidate.step(x[500 * (number % 8) :][:500], 1.0, number)
    assert listed() == pytest.approx(CANDIDATES * ACTIVE, rel=0.1)
    assert sae.looks is not None
    assert isinstance(sae.gate, HardGate)
    moved = sae.gate.threshold.detach()
    unit = sae.looks.unit
    assert torch.allclose(unit / unit.mean(), moved / moved.mean(), rtol=1e-5)
    assert float(unit.mean()) == pytest.approx(float(before.mean()), rel=1e-5)
    assert not torch.allclose(moved, begun, rtol=1e-2)


def test_untrained_looks_explain_more_at_the_same_l0_and_the_smooth_estimate_more_than_a_cut(
    one_look: SAE, x: Tensor
) -> None:
    plain = untrained_fvu(one_look, x, ACTIVE)
    two = designed_looks(one_look, x, 2, ACTIVE, (5, 4))
    three = designed_looks(one_look, x, 3, ACTIVE, (5, 4))
    hard = hard_looks(one_look, x, 2, ACTIVE)
    assert two.fvu < 0.9 * plain
    assert three.fvu <= two.fvu
    assert two.fvu < hard.fvu
    assert [len(found.looks) for found in (two, three, hard)] == [2, 3, 2]
    assert not any(look.shape.requires_grad for look in hard.looks)
    assert all(look.alpha.requires_grad for look in hard.looks)


def test_a_jumprelu_of_it_has_one_look_and_about_the_same_l0(one_look: SAE, x: Tensor) -> None:
    looks = designed_looks(one_look, x, 2, ACTIVE, (5, 4)).looks
    sae = one_look.with_gate(one_look.gate, looks)
    jumprelu = fit_lines(sae, x)
    assert jumprelu.looks is None
    with torch.no_grad():
        assert float((jumprelu.encode(x) != 0).sum()) == pytest.approx(float((sae.encode(x) != 0).sum()), rel=0.02)


def job(tmp_path: Path, model: Path, **options: object) -> Settings:
    text = save_tiny_text(tmp_path / "text.jsonl")
    teacher = save_tiny_teacher(tmp_path / "teacher", model, text, family="jumprelu")
    common = {"teacher": str(teacher), "text": str(text), "type": (3, 2), "steps": 24, "batch_tokens": 128}
    return Settings.model_validate({**common, "eval_tokens": 512, **options})


def test_a_job_with_two_looks_has_its_rows_and_is_read_back(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    settings = job(tmp_path, tiny_folders["llama"], looks=2)
    assert settings.controls == ("native", "identity", "one_look")
    done = run(settings, accept_implausible=True)
    assert {"init_looks", "one_look", "identity", "rsae"} <= done.saes.keys()
    assert done.saes["one_look"].looks is None
    assert done.saes["init"].looks is None
    for name in ("rsae", "identity", "init_looks"):
        looks = done.saes[name].looks
        assert looks is not None
        assert len(looks) == 2
    assert "rsae - one_look" in done.results.differences
    write(done, tmp_path / "out")
    found = load(tmp_path / "out" / "sae")
    assert isinstance(found.gate, HardGate)
    with torch.no_grad():
        x = done.calibration_x[:64]
        assert torch.equal(found.encode(x), done.saes["rsae"].encode(x))
    started, trained = done.saes["init_looks"].looks, done.saes["rsae"].looks
    assert started is not None
    assert trained is not None
    assert done.candidates["rsae"].kept_step == 0 or any(
        not torch.equal(a, b) for a, b in zip(started.parameters(), trained.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"looks": 2, "gate": "smooth"}, "thresholds"),
        ({"looks": 2, "refit_decoder": True}, "one look"),
        ({"looks": 1, "controls": ("one_look",)}, "above 1"),
        ({"looks": 4}, "less than or equal to 3"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings.model_validate({"teacher": "t", **options})
