"""Pushing: a stub of the hub on loopback takes create_repo, preupload, large files and the commit, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rational_sae.formats import load

TEACHER = Path(__file__).parents[2] / "demo" / "teachers" / "relu"
TOKEN = "hf_thisisasecretthatnobodymaysee"
REPO = "me/my-sae"


class Hub(ThreadingHTTPServer):
    """What the hub's endpoints answer, and what was asked of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.created: dict[str, Any] = {}
        self.large: dict[str, bytes] = {}
        self.commit: list[dict[str, Any]] = []
        self.refuse = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        hub, path, body = self.server, self.path.partition("?")[0], self.body()
        hub.asked.append(path)
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.refuse:
            self.answer({"error": f"the token Bearer {TOKEN} is not allowed"}, hub.refuse)
        elif path == "/api/repos/create":
            hub.created = json.loads(body)
            self.answer({"url": f"{hub.url}/{REPO}", "name": REPO, "id": "1"})
        elif path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            self.answer({"errors": [], "warnings": []})
        elif path == f"/api/models/{REPO}/preupload/main":
            modes = {True: "lfs", False: "regular"}
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [
                {"path": path, "uploadMode": modes[path.endswith(".safetensors")], "shouldIgnore": False}
                for path in paths
            ]
            self.answer({"files": files})
        elif path == f"/{REPO}.git/info/lfs/objects/batch":
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/large/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif path == f"/api/models/{REPO}/commit/main":
            hub.commit = [json.loads(line) for line in body.splitlines()]
            self.answer({"commitUrl": f"{hub.url}/{REPO}/commit/abc", "commitOid": "abc", "success": True})
        else:
            self.answer({"error": f"nothing at {path}"}, 404)

    def do_PUT(self) -> None:
        self.server.asked.append("/large")
        self.server.large[self.path.rpartition("/")[2]] = self.body()
        self.answer({})


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def rsae(hub_url: str, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command with a token, a hub and a home of its own."""
    return python(hub_url, home, "-m", "rational_sae", *arguments, **more)


def python(hub_url: str, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    names = {"HF_ENDPOINT": hub_url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    names |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1", **more}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=200, env={**os.environ, **names}
    )


def exported(folder: Path) -> Path:
    from rational_sae.formats.save import save
    from rational_sae.publish.card import model_card

    sae = load(str(TEACHER))
    save(sae, folder / "sae", model_card(sae))
    return folder


def test_an_upgrades_sae_and_card_arrive_whole_in_one_commit(hub: Hub, tmp_path: Path) -> None:
    out = exported(tmp_path / "out")
    run = rsae(hub.url, tmp_path / "home", "push", str(out), "my-sae", "--private")
    assert run.returncode == 0, run.stderr
    assert f"{REPO}/commit/abc" in run.stdout
    assert hub.created["name"] == "my-sae"
    assert hub.created.get("private") or hub.created.get("visibility") == "private"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    header, *files = hub.commit
    assert header["key"] == "header"
    small = {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in files if one["key"] == "file"}
    large = {one["value"]["path"]: one["value"]["oid"] for one in files if one["key"] == "lfsFile"}
    assert set(small) == {"README.md", "sae/cfg.json"}
    assert set(large) == {"sae/sae_weights.safetensors"}
    assert small["README.md"] == (out / "sae" / "README.md").read_bytes()
    assert small["sae/cfg.json"] == (out / "sae" / "cfg.json").read_bytes()
    weights = (out / "sae" / "sae_weights.safetensors").read_bytes()
    assert hub.large[large["sae/sae_weights.safetensors"]] == weights
    assert large["sae/sae_weights.safetensors"] == hashlib.sha256(weights).hexdigest()


def test_the_token_is_neither_shown_nor_stored(hub: Hub, tmp_path: Path) -> None:
    hub.refuse = 403
    home = tmp_path / "home"
    run = rsae(hub.url, home, "push", str(exported(tmp_path / "out")), REPO)
    assert run.returncode == 1
    assert "hf auth login" in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
    assert len([line for line in run.stderr.splitlines() if line.startswith("error:")]) == 1
    assert TOKEN not in run.stderr + run.stdout
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []


def test_offline_no_hub_and_a_broken_sae_are_refused_in_one_line(hub: Hub, tmp_path: Path) -> None:
    out = exported(tmp_path / "out")
    offline = rsae(hub.url, tmp_path, "push", str(out), REPO, HF_HUB_OFFLINE="1")
    assert (offline.returncode, hub.asked) == (1, [])
    assert "HF_HUB_OFFLINE" in offline.stderr
    nobody = rsae("http://127.0.0.1:9", tmp_path, "push", str(out), REPO)
    assert nobody.returncode == 1
    assert "not pushed" in nobody.stderr
    assert "Traceback" not in nobody.stderr
    weights = out / "sae" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    broken = rsae(hub.url, tmp_path, "push", str(out), REPO)
    assert (broken.returncode, hub.asked) == (1, [])
    assert "truncated" in broken.stderr


def test_an_sae_in_memory_arrives_with_a_card(hub: Hub, tmp_path: Path) -> None:
    code = f"import rational_sae\nsae = rational_sae.SAE.from_pretrained({str(TEACHER)!r})\n"
    code += f"print(sae.push_to_hub({REPO!r}, private=True))"
    run = python(hub.url, tmp_path / "home", "-c", code)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == f"{hub.url}/{REPO}/commit/abc"
    assert hub.created.get("private") or hub.created.get("visibility") == "private"
    _header, *files = hub.commit
    assert {one["value"]["path"] for one in files} == {"README.md", "sae/cfg.json", "sae/sae_weights.safetensors"}
    (stored,) = hub.large.values()
    (tmp_path / "sae_weights.safetensors").write_bytes(stored)
    (cfg,) = (one["value"]["content"] for one in files if one["value"]["path"] == "sae/cfg.json")
    (tmp_path / "cfg.json").write_bytes(base64.b64decode(cfg))
    assert load(tmp_path).state_dict().keys() == load(TEACHER).state_dict().keys()
