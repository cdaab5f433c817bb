"""A whole (tiny) upgrade of a transcoder: y in place of x wherever something is given back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny, save_tiny_text, tiny_transcoder
from torch import Tensor

import rational_sae
from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host, load_host
from rational_sae.data.reading import Reading
from rational_sae.data.text import open_text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import HostError, SettingsError, SourceError
from rational_sae.formats.save import save
from rational_sae.gates.relu import ReLUGate
from rational_sae.report.schema import check_report
from rational_sae.sae.model import SAE, Metadata
from rational_sae.steering import ablated, intervene
from rational_sae.upgrading.api import Options
from rational_sae.upgrading.headroom import headroom

pytestmark = pytest.mark.usefixtures("same_products")

INTO, OUT = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
SHORT: Options = {"type": (3, 2), "steps": 6, "batch_tokens": 64, "eval_tokens": 256, "controls": ("native",)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Model, text and a transcoder of one MLP: principal axes, both ways, and the decoder and skip that least
    squares finds."""
    root = tmp_path_factory.mktemp("transcoder")
    model, text = save_tiny("gemma2", root / "model"), save_tiny_text(root / "text.jsonl")
    tensors = tiny_transcoder(load_host(str(model)), text, INTO, OUT)
    known = Metadata(
        family="relu", model_name=str(model), hook_name=INTO, hook_name_out=OUT, context_size=16, prepend_bos=False
    )
    options: dict[str, Any] = {"apply_b_dec_to_input": False, "transcodes": True}
    save(SAE(**tensors, gate=ReLUGate(), metadata=known, **options), root / "teacher")
    return model, text, root / "teacher"


def reader_of(host: Host, text: Path) -> Reader:
    return Reader(host, host.pair(INTO, OUT), open_text(str(text)), Tokeniser(host.tokenizer, 16))


def test_what_is_read_is_both_places_side_by_side(inputs: tuple[Path, Path, Path]) -> None:
    host = load_host(str(inputs[0]))
    ids = torch.arange(4, 28).view(2, 12)
    pair = host.pair(INTO, OUT)
    parts = [host.residual(ids, host.hook(name)) for name in (INTO, OUT)]
    assert torch.equal(host.residual(ids, pair), torch.cat(parts, -1))
    assert host.width(pair) == 2 * host.d_model
    clean = host.model(input_ids=ids, use_cache=False).logits
    assert torch.equal(host.logits_from(ids, pair, parts[1], host.entering(ids, pair)), clean)
    with pytest.raises(HostError, match="comes before"):
        host.residual(ids, host.pair(OUT, INTO))


def test_an_upgrade(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, text, teacher = inputs
    done = rational_sae.upgrade(teacher, text, out=tmp_path / "out", cache=tmp_path / "cache", **SHORT)
    rows = done.rows
    assert rows["teacher"]["fvu"] < 0.9
    for name in ("init", "rsae", "control_native"):
        assert rows[name]["fvu"] == pytest.approx(rows["teacher"]["fvu"], abs=0.02)
        assert rows[name]["kl"] > 0
    assert check_report(done.report())["features"]["latents"]
    saved = rational_sae.load(tmp_path / "out" / "sae")
    assert saved.transcodes
    assert saved.metadata.hook_name_out == OUT
    assert json.loads((tmp_path / "out" / "sae" / "cfg.json").read_text())["architecture"] == "rational_skip_transcoder"

    found = rational_sae.evaluate([str(teacher), str(tmp_path / "out" / "sae")], text=text, eval_tokens=256)
    assert found.rows[str(tmp_path / "out" / "sae")]["fvu"] == pytest.approx(rows["rsae"]["fvu"], rel=1e-4)
    for key in ("fvu", "kl", "delta_ce"):
        assert found.rows[str(teacher)][key] == pytest.approx(known_answers(inputs)[key], rel=1e-3), key


@torch.no_grad()
def known_answers(inputs: tuple[Path, Path, Path]) -> dict[str, float]:
    """FVU of y, KL and ΔCE on the test tokens with the MLP's output replaced, by a plain hook on its module."""
    model, text, teacher = inputs
    sae, host = rational_sae.load(teacher), load_host(str(model))
    reader = reader_of(host, text)
    batches = list(reader.held_out("test", 256))
    error = variance = kl = delta = 0.0
    tokens = predictions = 0
    ys: list[Tensor] = []
    for batch in batches:
        stream = reader.stream(batch.input_ids)
        keep = reader.kept(stream, batch)
        x, y = stream[..., : host.d_model], stream[..., host.d_model :]
        error += float((y - sae(x))[keep].double().pow(2).sum())
        ys.append(y[keep].double())
        edited = torch.where(keep[..., None], sae(x), y)
        norm = host.blocks[1].post_feedforward_layernorm
        clean = host.model(input_ids=batch.input_ids).logits.log_softmax(-1)
        handle = norm.register_forward_hook(lambda *_args, edited=edited: edited)  # type: ignore[union-attr]
        moved = host.model(input_ids=batch.input_ids).logits.log_softmax(-1)
        handle.remove()
        where = keep[:, :-1]
        labels = batch.input_ids[:, 1:]
        special = torch.isin(labels, torch.tensor(host.tokenizer.all_special_ids))
        where = where & ~special
        p, q = clean[:, :-1][where], moved[:, :-1][where]
        kl += float((p.exp() * (p - q)).sum())
        delta += float((p - q).gather(-1, labels[where][:, None]).sum())
        predictions += int(where.sum())
        tokens += int(keep.sum())
    y = torch.cat(ys)
    variance = float((y - y.mean(0)).pow(2).sum())
    return {"fvu": error / variance, "kl": kl / predictions, "delta_ce": delta / predictions}


def test_what_does_not_apply_is_refused_saying_why(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, text, teacher = inputs
    with pytest.raises(SettingsError, match="another place than what it reads"):
        rational_sae.upgrade(teacher, text, looks=2, **{**SHORT, "controls": ()})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="objective"):
        rational_sae.upgrade(teacher, text, objective="mse+kl", **{**SHORT, "controls": ()})  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="transcoder"):
        headroom(str(teacher), Reading(text=str(text)), eval_tokens=256)
    weights, config = load_file(teacher / "sae_weights.safetensors"), json.loads((teacher / "cfg.json").read_text())
    del config["metadata"]["hook_name_out"]
    (tmp_path / "unsaid").mkdir()
    save_file(weights, tmp_path / "unsaid" / "sae_weights.safetensors")
    (tmp_path / "unsaid" / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="does not say what it predicts"):
        rational_sae.upgrade(tmp_path / "unsaid", text, **SHORT)


@torch.no_grad()
def test_steering_edits_the_output_and_leaves_the_input(inputs: tuple[Path, Path, Path]) -> None:
    model, _, teacher = inputs
    host, sae = load_host(str(model)), rational_sae.load(teacher)
    ids, pair = torch.arange(4, 28).view(2, 12), host.pair(INTO, OUT)
    x, y = host.residual(ids, pair).split(host.d_model, -1)
    latent = int((sae.encode(x) != 0).float().mean((0, 1)).argmax())
    gone = sae.decode(ablated(sae.encode(x), [latent])) - sae.decode(sae.encode(x))
    with intervene(host.model, sae, lambda z: ablated(z, [latent])):
        found = host.model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(found, host.logits_from(ids, pair, y + gone), rtol=1e-4, atol=1e-5)
    with intervene(host.model, sae, lambda z: z, error_term=False):
        found = host.model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(found, host.logits_from(ids, pair, sae(x)), rtol=1e-4, atol=1e-5)
