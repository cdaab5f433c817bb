"""Whole (tiny) upgrades at parts of a block: all that is measured at the stream is measured there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import save_tiny, save_tiny_teacher, save_tiny_text

import rational_sae
from rational_sae.errors import SourceError
from rational_sae.report.schema import check_report
from rational_sae.upgrading.api import Options

SHORT: Options = {"type": (3, 2), "steps": 6, "batch_tokens": 64, "eval_tokens": 256, "controls": ("native",)}
HOOKS = {"mlp_out": "blocks.1.hook_mlp_out", "hook_z": "model.layers.1.self_attn.o_proj.input"}
WIDTHS = {"mlp_out": 32, "hook_z": 48}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model whose heads, side by side, are wider than its stream, and a text."""
    root = tmp_path_factory.mktemp("places")
    return save_tiny("mistral", root / "model"), save_tiny_text(root / "text.jsonl")


@pytest.mark.parametrize("place", HOOKS)
def test_an_upgrade_at_a_part_of_a_block(place: str, inputs: tuple[Path, Path], tmp_path: Path) -> None:
    model, text = inputs
    teacher = save_tiny_teacher(tmp_path / "teacher", model, text, HOOKS[place], family="jumprelu")
    done = rational_sae.upgrade(teacher, text, out=tmp_path / "out", cache=tmp_path / "cache", **SHORT)
    assert done.sae.d_in == WIDTHS[place]
    rows = done.rows
    assert rows["teacher"]["fvu"] < 0.1
    for name in ("init", "rsae", "control_native"):
        assert rows[name]["fvu"] == pytest.approx(rows["teacher"]["fvu"], abs=0.01)
    for name in ("teacher", "init", "rsae"):
        assert 0 < rows[name]["kl"] < 1
        assert abs(rows[name]["delta_ce"]) > 0
    report = check_report(done.report())
    assert report["features"]["latents"]
    assert HOOKS[place] in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    found = rational_sae.evaluate([str(teacher), str(tmp_path / "out" / "sae")], text=text, eval_tokens=256)
    assert found.rows[str(tmp_path / "out" / "sae")]["fvu"] == pytest.approx(rows["rsae"]["fvu"], rel=1e-5)
    assert found.rows[str(teacher)]["kl"] == pytest.approx(rows["teacher"]["kl"], rel=1e-4)


def test_saes_of_two_places_are_not_compared(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    model, text = inputs
    one, other = (
        save_tiny_teacher(tmp_path / place, model, text, f"blocks.1.{place}")
        for place in ("hook_mlp_out", "hook_attn_out")
    )
    with pytest.raises(SourceError, match="evaluate SAEs of one hook together"):
        rational_sae.evaluate([str(one), str(other)], text=text, eval_tokens=256)


def test_the_cache_gives_the_same_bits_and_knows_the_place(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    from rational_sae.data.cache import ActivationCache
    from rational_sae.data.language_model import load_host

    host, ids = load_host(str(inputs[0])), torch.arange(4, 28).view(2, 12)
    for _ in range(2):
        for name in ("blocks.1.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.1.hook_resid_pre", "blocks.1.hook_z"):
            hook = host.hook(name)
            assert torch.equal(ActivationCache(tmp_path, host, hook).stream(ids), host.residual(ids, hook))
