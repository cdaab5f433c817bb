"""Transcoders in the layouts of published ones, from a folder through upgrade, evaluate and export to SAELens."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from tiny import save_tiny, save_tiny_text, tiny_transcoder
from torch import Tensor
from typer.testing import CliRunner

from rational_sae.cli import app
from rational_sae.data.language_model import load_host
from rational_sae.formats import load

BAR = 0.05
"""Thresholds of Gemma Scope's."""

SHORT = ["--type", "3,2", "--steps", "6", "--batch-tokens", "64", "--eval-tokens", "256", "--context", "16"]


def gemma_scope_2(folder: Path, p: dict[str, Tensor], model: Path) -> Path:
    stored = {name.lower(): tensor for name, tensor in p.items() if name != "W_skip"}
    stored |= {"affine_skip_connection": p["W_skip"].T, "threshold": torch.full_like(p["b_enc"], BAR)}
    config = {"architecture": "jump_relu", "model_name": str(model), "width": len(p["b_enc"]), "type": "transcoder"}
    config |= {"hf_hook_point_in": "model.layers.1.pre_feedforward_layernorm.output", "affine_connection": True}
    config |= {"hf_hook_point_out": "model.layers.1.post_feedforward_layernorm.output", "l0": 10}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "params.safetensors")
    return folder


def gemma_scope_1(folder: Path, p: dict[str, Tensor], _model: Path) -> Path:
    place = folder / "gemma-scope-2b-pt-transcoders" / "layer_1" / "width_16k" / "average_l0_10"
    place.mkdir(parents=True)
    stored = p | {"threshold": torch.full_like(p["b_enc"], BAR)}
    np.savez(place / "params.npz", allow_pickle=False, **{name: tensor.numpy() for name, tensor in stored.items()})
    return place


def circuit_tracer(folder: Path, p: dict[str, Tensor], model: Path) -> Path:
    config = {"model_name": str(model), "model_kind": "transcoder_set", "feature_input_hook": "mlp.hook_in"}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"feature_output_hook": "mlp.hook_out"}))
    stored = p | {"W_enc": p["W_enc"].T}
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "layer_1.safetensors")
    return folder / "layer_1.safetensors"


LAYOUTS: dict[str, tuple[Callable[[Path, dict[str, Tensor], Path], Path], str, str, str, bool]] = {
    "Gemma Scope 2, affine": (gemma_scope_2, "gemma3", "mlp.hook_in", "hook_mlp_out", True),
    "Gemma Scope": (gemma_scope_1, "gemma2", "ln2.hook_normalized", "hook_mlp_out", False),
    "circuit-tracer": (circuit_tracer, "qwen3", "mlp.hook_in", "mlp.hook_out", False),
}
"""What writes one, the model, what is read and predicted in TransformerLens' names, whether it has W_skip."""


def run(*command: str) -> str:
    done = CliRunner().invoke(app, list(command))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_goes_the_whole_way(layout: str, tmp_path: Path) -> None:
    write, family, into, out, skip = LAYOUTS[layout]
    model, text = save_tiny(family, tmp_path / "model"), save_tiny_text(tmp_path / "text.jsonl", 2000)
    host = load_host(str(model))
    gemma, hooks = family.startswith("gemma"), (f"blocks.1.{into}", f"blocks.1.{out}")
    known = {"threshold": BAR if gemma else 0.0, "bos": gemma, "tokens": 3000}
    tensors = tiny_transcoder(host, text, *hooks, skip=skip, **known)
    teacher = str(write(tmp_path / "teacher", tensors, model))
    reading = ["--model", str(model), "--text", str(text)]  # a clone of Gemma Scope's does not name the model

    run("upgrade", teacher, *reading, *SHORT, "--control", "native", "--out", str(tmp_path / "out"))
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert rows["teacher"]["fvu"] < 0.9
    for name in ("init", "rsae", "control_native"):
        assert rows[name]["fvu"] == pytest.approx(rows["teacher"]["fvu"], abs=0.02)

    mine, figures = str(tmp_path / "out" / "sae"), tmp_path / "figures.json"
    run("evaluate", teacher, mine, *reading, "--eval-tokens", "256", "--context", "16", "--json", str(figures))
    again = json.loads(figures.read_text())["rows"]
    assert again[mine]["fvu"] == pytest.approx(rows["rsae"]["fvu"], rel=1e-4)
    assert again[teacher]["delta_ce"] == pytest.approx(rows["teacher"]["delta_ce"], rel=1e-4)

    run("export", mine, "--as", "saelens", "--out", str(tmp_path / "exported"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens

        import rational_sae.saelens  # noqa: F401 - so that SAELens knows our architectures
    theirs, ours = sae_lens.SAE.load_from_disk(tmp_path / "exported"), load(mine)
    x = host.residual(torch.arange(4, 28).view(2, 12), host.hook(hooks[0]))
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours(x), rtol=1e-4, atol=1e-5)
    said = theirs.cfg.metadata
    assert host.pair(said.hook_name, said.hook_name_out).same_place(host.pair(*hooks))
    assert theirs.cfg.architecture() == f"rational_{'skip_' if skip else ''}transcoder"
