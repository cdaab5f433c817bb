"""Files that version 0.1.0 wrote still load: exported SAEs with their codes, settings, a report, a checkpoint.

`stored/v0.1.0.json` holds them as text: path → content, of binary and long files the zlib stream in base64.
"""

from __future__ import annotations

import base64
import html
import json
import zlib
from pathlib import Path

import pytest
import torch

import rational_sae
from rational_sae.gates.base import Gate
from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.topk import TopKGate
from rational_sae.rational import cached_fit, target
from rational_sae.report import read_report, render
from rational_sae.report.decision import verdict_of
from rational_sae.sae.model import SAE
from rational_sae.upgrading.run.checkpoint import Checkpoints
from rational_sae.upgrading.settings import Settings, read_settings
from rational_sae.upgrading.train.candidate import Candidate

STORED = json.loads((Path(__file__).parent / "stored" / "v0.1.0.json").read_text(encoding="utf-8"))
TEXTS = (".json", ".yaml", ".jsonl")
SAES = sorted({Path(name).parts[1] for name in STORED if name.startswith("saes/")})


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stored")
    for name, content in STORED.items():
        plain = name.endswith(TEXTS) and not content.startswith("eN")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if plain else zlib.decompress(base64.b64decode(content)))
    return root


@pytest.mark.parametrize("name", SAES)
def test_an_exported_sae_gives_the_codes_that_it_gave(name: str, stored: Path) -> None:
    known = json.loads((stored / "known.json").read_text(encoding="utf-8"))
    sae, x = rational_sae.load(str(stored / "saes" / name)), torch.tensor(known["x"])
    wanted = known["saes"][name]
    torch.testing.assert_close(sae.encode(x).detach(), torch.tensor(wanted["z"]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(sae(x).detach(), torch.tensor(wanted["x_hat"]), atol=1e-5, rtol=1e-5)
    assert sae.metadata.hook_name == "blocks.1.hook_resid_post"


def test_settings_are_read_as_they_were_meant(stored: Path) -> None:
    found = Settings.model_validate(read_settings(stored / "job" / "settings.yaml"))
    assert (found.type, found.steps, found.controls, found.gate) == ((3, 2), 12, ("native",), "hard")


def test_a_report_is_read_and_rendered(stored: Path) -> None:
    report = read_report(stored / "job")
    assert set(report["rows"]) >= {"teacher", "init", "rsae", "control_native"}
    page = html.unescape(render(report))
    assert verdict_of(report) in page


def test_a_checkpoint_goes_on_where_it_was(stored: Path) -> None:
    found = Checkpoints(stored / "job" / "checkpoint").newest()
    assert found is not None
    assert found.step == 4
    x = torch.randn(512, 32, generator=torch.Generator().manual_seed(0))
    for key, gate in {"rsae": _rational(), "control_native": TopKGate(4)}.items():
        tensors = {name.removeprefix(f"{key}/"): v for name, v in found.tensors.items() if name.startswith(f"{key}/")}
        d_sae = len(tensors["sae.b_enc"])
        sae = SAE(
            torch.zeros(32, d_sae), torch.zeros(d_sae), torch.zeros(d_sae, 32), torch.zeros(32), _sized(gate, d_sae)
        )
        candidate = Candidate(key, sae, Settings(teacher="synthetic", type=(3, 2), steps=12), x, 4.0)
        candidate.restore(tensors, found.state["candidates"][key])
        again, numbers = candidate.state()
        assert all(torch.equal(again[name], value) for name, value in tensors.items())
        assert numbers["curve"]["step"] == [1, 2, 3, 4]
        candidate.step(x, 1.0, 5)
        assert candidate.curve.step[-1] == 5


def _rational() -> RationalGate:
    fit = cached_fit(target("jumprelu", threshold=0.1, gap=0.02), (3, 2)).partial_fractions
    assert fit is not None
    return HardGate(fit, torch.ones(1), torch.ones(1))


def _sized(gate: Gate, d_sae: int) -> Gate:
    if isinstance(gate, RationalGate):
        return HardGate(gate.partial_fractions, torch.ones(d_sae), torch.full((d_sae,), 0.1))
    return gate
