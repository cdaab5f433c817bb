"""`hub:` and `saelens:`: from a folder in the hub's cache layout without a network, and from a server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from format_cases import COMMIT, Shape, cached, filled, gemma_scope, openai, sparsify
from huggingface_hub import constants
from tiny import TINY_WIDTH, save_tiny, save_tiny_text, tiny_model

from rational_sae.data.reading import Reading
from rational_sae.errors import MissingExtraError, SourceError
from rational_sae.formats import load, release
from rational_sae.formats.hub import wanted


def refused(name: str, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(name)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; HF_HUB_OFFLINE is set for all tests."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_offline_reads_the_cache(cache: Path) -> None:
    folder = cached(cache, "someone/saes")
    sparsify(folder / "layers.3", Shape())
    run = {"model": "EleutherAI/pythia-160m", "hookpoints": ["layers.3", "layers.4"], "ctx_len": 2048}
    (folder / "config.json").write_text(json.dumps(run))
    found = load("hub:someone/saes/layers.3")
    assert (found.metadata.format, found.d_sae) == ("sparsify", 37)
    assert (found.metadata.model_name, found.metadata.hook_name) == ("EleutherAI/pythia-160m", "layers.3")
    assert (found.metadata.source, found.metadata.context_size) == ("hub:someone/saes/layers.3", 2048)
    refused("hub:someone/saes", "name one: layers.3")
    run["hookpoints"] = ["layers.*"]  # a pattern, as it was given
    (folder / "config.json").write_text(json.dumps(run))
    assert load("hub:someone/saes/layers.3").metadata.hook_name == "layers.3"
    refused("hub:someone/saes/layers.9", "layers.9", "not in the local cache")
    refused("hub:someone/else", "HF_HUB_OFFLINE", "not in the local cache")


def test_a_release_of_saelens(cache: Path) -> None:
    path = "layer_20/width_16k/average_l0_71"
    gemma_scope("npz")(cached(cache, "google/gemma-scope-2b-pt-res") / path, Shape())
    found = load(f"saelens:gemma-scope-2b-pt-res/{path}")
    known = found.metadata
    assert (known.format, known.model_name, known.hook_name) == (
        "Gemma Scope",
        "gemma-2-2b",
        "blocks.20.hook_resid_post",
    )
    refused("saelens:gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_7", "nearest: layer_20/width_16k/average_l0")
    refused("saelens:gemma-scope-2b-pt-rex/x", "no release", "gemma-scope-2b-pt-res")
    refused("saelens:temporal-sae-gemma-2-2b/blocks.12.hook_resid_post", "'temporal'")
    refused("saelens:gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "embeddings")


def test_a_release_scales_what_saelens_scales(cache: Path) -> None:
    import peers

    lens = peers.sae_lens()
    table = release.table()
    row = table["gemma-2b-res-jb"]["saes"]
    scaled = next(one for one in row if "norm_scaling_factor" in one)
    config = lens.StandardSAEConfig(d_in=13, d_sae=37, normalize_activations="expected_average_only_in")
    theirs = lens.StandardSAE(config)
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        parameter.data.normal_()
    theirs.save_model(cached(cache, table["gemma-2b-res-jb"]["repo_id"]) / scaled["path"])
    ours = load(f"saelens:gemma-2b-res-jb/{scaled['id']}")
    theirs.fold_activation_norm_scaling_factor(scaled["norm_scaling_factor"])
    x = torch.randn(50, 13)
    with torch.no_grad():
        assert (ours(x) - theirs(x)).norm() <= 1e-5 * theirs(x).norm()


@torch.no_grad()
def test_a_release_is_read_on_its_model_with_no_other_option(cache: Path, tmp_path: Path) -> None:
    """`rsae … saelens:gpt2-small-res-jb/blocks.2.hook_resid_pre --text FILE`: TransformerLens' name of the model is
    the hub's, and its writing weights were centred."""
    import peers

    lens = peers.sae_lens()
    save_tiny("gpt2", cached(cache, "gpt2"))
    entry = release.table()["gpt2-small-res-jb"]
    row = next(one for one in entry["saes"] if one["id"] == "blocks.2.hook_resid_pre")
    theirs = filled(lens.StandardSAE(lens.StandardSAEConfig(d_in=TINY_WIDTH, d_sae=37)))
    theirs.cfg.metadata.model_name, theirs.cfg.metadata.hook_name = "gpt2-small", row["id"]
    theirs.save_model(cached(cache, entry["repo_id"]) / row["path"])
    sae = load(f"saelens:gpt2-small-res-jb/{row['id']}")
    reader = Reading(text=str(save_tiny_text(tmp_path / "text.jsonl"))).open(sae)
    ids = torch.arange(4, 24).view(2, 10)
    x = reader.host.residual(ids, reader.hook)
    assert torch.equal(x, tiny_model("gpt2")(input_ids=ids, output_hidden_states=True).hidden_states[2])
    assert torch.allclose(sae.encode(x), theirs.encode(x - x.mean(-1, keepdim=True)), atol=1e-4)


def test_without_saelens_its_table_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"rational-sae\[saelens\]"):
        load("saelens:gpt2-small-res-jb/blocks.8.hook_resid_pre")


FILES = ["a/cfg.json", "a/w.safetensors", "a/sparsity.safetensors", "b/x.pt", "b/y.pt", "config.json", "README.md"]


def test_only_what_an_sae_needs_is_fetched() -> None:
    assert wanted(FILES, "a", "o/r") == ["a/w.safetensors", "a/cfg.json", "config.json"]
    assert wanted(FILES, "b/y.pt", "o/r") == ["b/y.pt", "config.json"]
    with pytest.raises(SourceError, match=r"2 files of weights at b; name one: x.pt, y.pt"):
        wanted(FILES, "b", "o/r")
    with pytest.raises(SourceError, match=r"no SAE at its top; name one of 2 folders, such as a, b"):
        wanted(FILES, "", "o/r")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "gated" in path:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to it is restricted."})
        elif path.startswith("/api/models/o/r/tree/main"):
            rows = [{"type": "file", "path": name, "size": len(part), "oid": "0"} for name, part in self.files.items()]
            self.answer(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})
        elif (name := path.removeprefix("/o/r/resolve/main/")) in self.files:
            content = self.files[name]
            etag = hashlib.sha256(content).hexdigest()
            self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """Serves a repository o/r with an OpenAI SAE, and refuses o/gated."""
    path = openai("TopK")(tmp_path / "made", Shape()).path
    handler = type("Handler", (Hub,), {"files": {"v5/sae.pt": path.read_bytes(), "README.md": b"#"}})
    shutil.rmtree(tmp_path / "made")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_downloads_and_explains_from_a_server(hub: str, tmp_path: Path) -> None:
    code = (
        "from rational_sae.errors import SourceError; from rational_sae.formats import load\n"
        "print(load('hub:o/r/v5').metadata.format, load('hub:o/r/v5/sae.pt').d_sae)\n"
        "for name in ('hub:o/gated', 'hub:o/none'):\n"
        "    try: load(name)\n"
        "    except SourceError as error: print(error)\n"
    )
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=500
    )
    assert done.returncode == 0, done.stderr
    first, gated, missing = done.stdout.splitlines()
    assert first == "OpenAI 37"
    assert "o/gated is gated" in gated
    assert "Access to it is restricted." in gated
    assert "hf auth login" in gated
    assert "Repository Not Found" in missing
    assert "hf_secret" not in done.stdout + done.stderr
