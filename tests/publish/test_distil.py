"""Distillation to JumpReLU: exact where a line is exact, best lines elsewhere, loadable with no custom class."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from random_sae import D_SAE, WAVY, gate_of_mode, make, sample

from rational_sae.data.language_model import Host
from rational_sae.data.reading import Reading
from rational_sae.data.text import Text
from rational_sae.errors import SourceError
from rational_sae.formats.save import save
from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.token_scaled import TokenScale
from rational_sae.gates.topk import TopKGate
from rational_sae.publish.distil import distil, exactly, fit_lines
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE, Metadata

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens

HOOK = "model.layers.1"
LINE = PartialFractions(0.07, 0.9, alpha=[], beta=[], x=[], eta=[])


def rational(mode: Any, shape: PartialFractions = WAVY, **options: Any) -> RationalGate:
    scale = 4.0 + torch.rand(D_SAE, generator=torch.Generator().manual_seed(3))
    options = {"gain": 1.3, "right_slope": shape.e1, "k": 5 if mode == "topk" else None} | options
    return gate_of_mode(mode, shape, scale, 0.2 * scale, **options)


@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
@torch.no_grad()
def test_a_straight_gate_is_distilled_exactly(normalisation: Any) -> None:
    sae, x = make(rational("hard", LINE), normalisation=normalisation), sample()
    found, wanted = fit_lines(sae, x).encode(x), sae.encode(x)
    assert torch.equal(found != 0, wanted != 0)
    assert (found - wanted).norm() < 1e-4 * wanted.norm()


@torch.no_grad()
def test_one_bar_for_all_tokens_keeps_the_mean_number_of_latents() -> None:
    sae, x = make(rational("hard", token=TokenScale(k=5, power=0.6, level=-1.0))), sample()
    found, wanted = fit_lines(sae, x).encode(x) != 0, sae.encode(x) != 0
    assert not torch.equal(found, wanted)
    assert float(found.sum()) == pytest.approx(float(wanted.sum()), rel=0.01)


@torch.no_grad()
def test_each_latent_gets_its_own_best_line_on_the_same_support() -> None:
    sae, x = make(rational("hard")), sample()
    found, wanted = fit_lines(sae, x), sae.encode(x)
    z, h = found.encode(x), sae.preactivations(x)
    assert ((z != 0) != (wanted != 0)).sum() <= 3  # a line at the cut itself may round to the other side
    for j in range(D_SAE):
        on = wanted[:, j] != 0
        if on.sum() < 300:
            continue
        line = torch.stack([h[on, j], torch.ones_like(h[on, j])], dim=1).double()
        best = torch.linalg.lstsq(line, wanted[on, j, None].double()).solution
        least = (line @ best - wanted[on, j, None]).norm()
        assert least <= (z[on, j] - wanted[on, j]).norm() < 1.05 * least + 1e-5


@torch.no_grad()
def test_a_latent_that_was_never_active_gets_the_common_line() -> None:
    gate = rational("hard", LINE)
    gate.threshold.data[0] = 1e4
    found = fit_lines(make(gate), sample())
    slope = float(found.W_enc[0, 0] / make(gate).W_enc[0, 0])
    assert slope == pytest.approx(1.3 * 0.9, rel=1e-3)


@torch.no_grad()
def test_a_line_that_would_lose_support_is_held_at_zero_there() -> None:
    steep = PartialFractions(-0.1, 1.0, alpha=[0.0], beta=[0.02], x=[0.2], eta=[-3.0])
    sae, x = make(rational("hard", steep)), sample()
    found = fit_lines(sae, x)
    assert (found.gate.threshold >= 0).all()
    lost = ((found.encode(x) != 0) != (sae.encode(x) != 0)).sum()
    assert lost <= 1e-3 * (sae.encode(x) != 0).sum()


@pytest.mark.parametrize("gate", [lambda: TopKGate(5), lambda: rational("topk")], ids=["topk", "rational topk"])
@torch.no_grad()
def test_a_count_per_token_becomes_a_threshold_of_the_same_l0(gate: Any) -> None:
    sae, x = make(gate()), sample()
    found = fit_lines(sae, x)
    assert float((found.encode(x) != 0).sum() / len(x)) == pytest.approx(
        float((sae.encode(x) != 0).sum() / len(x)), rel=1e-3
    )


def test_relu_and_jumprelu_are_converted_exactly() -> None:
    shifted = ReLUGate()
    shifted.shift_(0.3)
    jump, x = ThresholdGate(torch.full((D_SAE,), 0.4)), sample()
    for gate in (shifted, jump):
        sae = make(gate)
        found = exactly(sae)
        assert found is not None
        assert isinstance(found.gate, ThresholdGate)
        assert torch.allclose(found.encode(x), sae.encode(x), atol=1e-6)
    assert exactly(make(rational("hard"))) is None
    assert exactly(make(TopKGate(3))) is None


def test_a_smooth_gate_is_refused() -> None:
    with pytest.raises(SourceError, match="--gate hard"):
        fit_lines(make(rational("smooth")), sample())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_result_loads_in_plain_saelens_and_states_its_loss(
    tmp_path: Path, tiny_folders: dict[str, Path], tiny_hosts: dict[str, Host], tiny_text: Text
) -> None:
    text = tmp_path / "text.jsonl"
    splits: list[Any] = ["train", "validation", "test"]
    documents = [one for split in splits for one in tiny_text.documents(split)]
    text.write_text("\n".join(json.dumps({"text": one}) for one in documents))
    host_width, generator = 32, torch.Generator().manual_seed(0)
    square = torch.linalg.qr(torch.randn(host_width, host_width, generator=generator)).Q
    W = torch.cat([square, -square], dim=1)  # each coordinate by a pair of latents
    size = 3 * float(tiny_hosts["llama"].residual(torch.arange(4, 36)[None], tiny_hosts["llama"].hook(HOOK)).std())
    bent = PartialFractions(0.0, 0.9, alpha=[0.05], beta=[0.0], x=[0.4], eta=[-1.5])
    gate = HardGate(bent, size * torch.ones(64), 0.15 * size * torch.ones(64), right_slope=0.9)
    metadata = Metadata(model_name=str(tiny_folders["llama"]), hook_name=HOOK, context_size=32)
    sae = SAE(W, torch.zeros(64), 0.9 * W.T, torch.zeros(host_width), gate, metadata=metadata)
    save(sae, tmp_path / "sae")
    out = tmp_path / "jumprelu"
    command = [sys.executable, "-m", "rational_sae", "export", str(tmp_path / "sae"), "--as", "jumprelu"]
    options = ["--text", str(text), "--eval-tokens", "600", "--out", str(out), "--json", "-"]
    run = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert set(report["rows"]) == {"sae", "lines", "jumprelu"}
    assert report["rows"]["jumprelu"]["fvu"] < report["rows"]["lines"]["fvu"]
    assert f"FVU {report['rows']['jumprelu']['fvu']:.4f}" in " ".join(run.stderr.split())
    config = json.loads((out / "cfg.json").read_text())
    assert config["architecture"] == "jumprelu"
    assert config["metadata"]["distilled"]["fvu_change"] == report["differences"]["jumprelu - sae"]["fvu"]
    theirs = sae_lens.SAE.load_from_disk(out)
    assert type(theirs) is sae_lens.JumpReLUSAE
    again = distil(str(out))
    assert again.results is None, "a JumpReLU needs no activations"
    x = torch.randn(50, host_width, generator=generator)
    with torch.no_grad():
        assert torch.allclose(theirs.encode(x), again.sae.encode(x), atol=1e-5)
    run = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 2
    assert "--text" in run.stderr


def test_a_wrong_reading_is_refused_before_any_work(tmp_path: Path) -> None:
    save(make(rational("hard")), tmp_path / "sae")
    with pytest.raises(SourceError, match="names no model"):
        distil(str(tmp_path / "sae"), Reading(text="news"))
