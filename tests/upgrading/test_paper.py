"""The paper's recipe: which options it sets, who wins over it, and a whole job with it for every family of teacher."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from paper import BEGIN, END, PAGE, page_part, plan
from pydantic import ValidationError
from tiny import TINY_WIDTH, save_tiny_teacher, save_tiny_text
from typer.testing import CliRunner

from rational_sae.cli import app
from rational_sae.formats import load
from rational_sae.formats.release import FORMATS, table
from rational_sae.gates.base import Gate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.safe_pade import SafePadeGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run.folder import JobFolder
from rational_sae.upgrading.run.same import require_same, stored_settings
from rational_sae.upgrading.run.write import write
from rational_sae.upgrading.settings import Settings, read_settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens

    import rational_sae.saelens  # noqa: F401  # SAELens learns the architecture

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "paper").glob("*.yaml"))
HOSTS = {"gpt2": "gpt2", "pythia-160m": "gpt_neox", "gemma-2-2b": "gemma2"}
"""The tiny model of each host's architecture, by how a config's name begins."""
SHORT = {"steps": 3, "batch_tokens": 64, "train_tokens": 192, "eval_tokens": 256, "context": 16}
GATES: dict[str, Gate] = {"relu": ReLUGate(), "jumprelu": ThresholdGate(torch.ones(4)), "topk": TopKGate(2)}


def teacher(family: str) -> SAE:
    known = Metadata(family=family, model_name="m", hook_name="h")
    return SAE(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4), GATES[family], metadata=known)


def paper(**options: Any) -> Settings:
    return Settings.model_validate({"teacher": "t", "recipe": "paper"} | options)


@pytest.mark.parametrize(("family", "degrees"), [("relu", (3, 2)), ("jumprelu", (9, 8)), ("topk", (9, 8))])
def test_it_sets_what_the_paper_says(family: str, degrees: tuple[int, int]) -> None:
    found = paper().resolved(teacher(family))
    assert (found.gate, found.form, found.type) == ("smooth", "safe_pade", degrees)
    assert (found.calibrate, found.penalty, found.hold_l0, found.steps) == ("teacher", "l1", False, 22_000)
    assert found.lr == found.lr_threshold == found.lr_shape
    ours = Settings(teacher="t").resolved(teacher(family))
    assert (ours.gate, ours.form, ours.type, ours.steps) == ("hard", "partial_fractions", (5, 4), 600)


def test_an_option_that_is_given_comes_before_the_recipe() -> None:
    found = paper(steps=5, type=(5, 4), penalty="l0", lr=1e-3, lr_shape=1e-5, controls=("identity",))
    assert (found.steps, found.type, found.penalty, found.controls) == (5, (5, 4), "l0", ("identity",))
    assert (found.lr, found.lr_threshold, found.lr_shape) == (1e-3, 1e-3, 1e-5)
    hard = paper(gate="hard")
    assert (hard.gate, hard.form, hard.penalty) == ("hard", "partial_fractions", "l1")


def test_safe_pade_is_for_the_smooth_gate_alone() -> None:
    with pytest.raises(ValidationError, match="form safe_pade is for gate smooth"):
        paper(gate="topk", form="safe_pade")


def test_stored_settings_give_the_same_settings(tmp_path: Path) -> None:
    found = paper(steps=7).resolved(teacher("relu"))
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(found.to_store()))
    assert Settings.model_validate(read_settings(path)) == found


def test_a_job_from_before_there_were_recipes_had_the_default_one(tmp_path: Path) -> None:
    asked = Settings(teacher="t").resolved(teacher("topk")).to_store()
    older = {name: value for name, value in asked.items() if name not in ("recipe", "form")}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(older))
    require_same(tmp_path, stored_settings(tmp_path), asked)
    with pytest.raises(Exception, match="recipe 'default', now it is 'paper'"):
        require_same(tmp_path, stored_settings(tmp_path), paper().resolved(teacher("topk")).to_store())


def asked_by(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Settings:
    """The settings that a command line comes to."""
    found: list[Settings] = []
    command = importlib.import_module("rational_sae.cli.upgrade")
    monkeypatch.setattr(command, "run", lambda settings, *_a, **_o: found.append(settings))
    monkeypatch.setattr(command, "folder_of", lambda *_a, **_o: None)
    run = CliRunner().invoke(app, ["upgrade", *arguments])
    assert run.exit_code == 0, run.output
    return found[0]


def test_the_command_line_has_it_and_only_what_is_given_there_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    common = ("t", "--text", "news", "--out", str(tmp_path / "out"))
    assert asked_by(monkeypatch, *common) == Settings(teacher="t", text="news")
    assert asked_by(monkeypatch, *common, "--recipe", "paper") == paper(text="news")
    given = asked_by(monkeypatch, *common, "--recipe", "paper", "--steps", "400", "--gate", "hard", "--type", "9,8")
    assert given == paper(text="news", steps=400, gate="hard", type=(9, 8))
    stored = tmp_path / "settings.yaml"
    stored.write_text(yaml.safe_dump(Settings(teacher="t", seed=4, steps=50).to_store()))
    turned = asked_by(monkeypatch, "--settings", str(stored), "--recipe", "paper", "--out", str(tmp_path / "out"))
    assert turned == paper(seed=4)
    assert asked_by(monkeypatch, "--settings", str(stored), "--out", str(tmp_path / "out")).steps == 50


def whole(settings: Settings, out: Path) -> dict[str, Any]:
    """Run a job into a folder, and check that all of it is there and says the same everywhere."""
    with JobFolder(out) as folder:
        report = write(upgrade(settings, keeper=folder), out, overwrite=True)
        folder.finish()
    files = {"sae", "control-native", "report.json", "report.html", "settings.yaml", "log.jsonl"}
    assert {path.name for path in out.iterdir()} == files
    ours = load(str(out / "sae"))
    assert isinstance(ours.gate, SafePadeGate)
    x = torch.randn(50, TINY_WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = ours.encode(x)
        torch.testing.assert_close(sae_lens.SAE.load_from_disk(out / "sae").encode(x), z, rtol=1e-4, atol=1e-5)
    return report


def test_every_config_is_of_a_host_and_a_family_and_eight_they_are() -> None:
    cells = {tuple(path.stem.rsplit("-", 1)) for path in CONFIGS}
    assert cells == {(host, family) for host in HOSTS for family in GATES} - {("gpt2", "jumprelu")}


@pytest.fixture(scope="module")
def releases() -> dict[str, Any]:
    return table()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configs_teacher_is_one_that_is_published_and_read(path: Path, releases: dict[str, Any]) -> None:
    settings = Settings.model_validate(read_settings(path))
    assert (settings.recipe, settings.gate, settings.steps) == ("paper", "smooth", 22_000)
    assert settings.text.startswith("hf:")
    kind, _, name = settings.teacher.partition(":")
    if kind == "saelens":
        release, _, identifier = name.partition("/")
        entry = releases[release]
        assert entry.get("conversion_func") in FORMATS
        assert identifier in {row["id"] for row in entry["saes"]}
    else:
        assert kind == "hub"
        assert len(name.split("/")) > 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_runs_dry_on_a_tiny_model_of_its_architecture(
    path: Path, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    host, family = path.stem.rsplit("-", 1)
    text = save_tiny_text(tmp_path / "text.jsonl")
    stated = read_settings(path)
    hook = f"blocks.1.{stated['hook'].rpartition('.')[2]}"  # the tiny model has three blocks
    small = save_tiny_teacher(tmp_path / "teacher", tiny_folders[HOSTS[host]], text, hook, family)
    swapped = {"teacher": str(small), "model": str(tiny_folders[HOSTS[host]]), "hook": hook, "text": str(text)}
    report = whole(Settings.model_validate(stated | swapped | SHORT | {"precision": "float32"}), tmp_path / "out")
    rows = report["rows"]
    assert {"teacher", "init", "rsae", "control_native"} <= set(rows)
    assert rows["rsae"]["fvu_at_l0"] < 1.0
    assert rows["rsae"]["l0_eps"] <= rows["rsae"]["l0"]
    assert report["fit"]["type"] == ([3, 2] if family == "relu" else [9, 8])


def test_a_paper_job_goes_on_to_the_same_bits(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    text = save_tiny_text(tmp_path / "text.jsonl")
    small = save_tiny_teacher(tmp_path / "teacher", tiny_folders["llama"], text, family="relu")
    settings = paper(teacher=str(small), text=str(text), **SHORT | {"steps": 6})
    undisturbed = whole(settings, tmp_path / "one")

    class StoppedError(Exception):
        pass

    with JobFolder(tmp_path / "two") as folder:
        stepped = folder.stepped

        def stopping(number: int) -> None:
            stepped(number)
            if number == 3:
                folder.save()
                raise StoppedError

        folder.stepped = stopping  # type: ignore[method-assign]
        with pytest.raises(StoppedError):
            upgrade(settings, keeper=folder)
    again = Settings.model_validate(settings.to_store())
    with JobFolder(tmp_path / "two", resume=True) as folder:
        report = write(upgrade(again, keeper=folder), tmp_path / "two", overwrite=True)
        folder.finish()
    assert report["rows"] == undisturbed["rows"]
    coefficients = [json.loads((tmp_path / one / "sae" / "cfg.json").read_text()) for one in ("one", "two")]
    assert coefficients[0]["coefficients"] == coefficients[1]["coefficients"]
    assert isinstance(load(str(tmp_path / "two" / "sae")).gate, RationalGate)


def test_the_pages_table_sets_both_recipes_beside_the_teacher() -> None:
    wanted = plan(400)
    both = [wanted.settings(f"relu-{recipe}") for recipe in ("default", "paper")]
    assert [(one.recipe, one.gate, one.steps) for one in both] == [("default", "hard", 400), ("paper", "smooth", 400)]

    def row(fvu: float) -> dict[str, float]:
        return {"l0": 32.0, "l0_eps": 32.0, "fvu": fvu, "delta_ce": 0.2, "loss_recovered": 0.9} | (
            {"fvu_at_l0": fvu, "delta_ce_at_l0": 0.2}
        )

    def report(fvu: float) -> dict[str, Any]:
        change = {"value": fvu - 0.2, "interval": [fvu - 0.21, fvu - 0.19]}
        differences = {key: change for key in ("fvu", "fvu_at_l0", "delta_ce", "delta_ce_at_l0")}
        return {
            "settings": {"steps": 400, "batch_tokens": 1024, "seed": 0},
            "data": {"train_tokens_distinct": 131_061, "test_tokens": 6142, "test_documents": 28},
            "rows": {"teacher": row(0.2), "init": row(0.2), "rsae": row(fvu)},
            "differences": {"rsae - teacher": differences},
        }

    part = page_part({name: report(0.15 if name.endswith("default") else 0.25) for name in wanted.cells})
    assert part.count("| default: rational | 32.00 | 32.00 | 0.1500 |") == 3
    assert part.count("| paper | +0.0500 [+0.0400, +0.0600] (+25.0%)") == 3
    page = PAGE.read_text(encoding="utf-8")
    assert 0 < page.index(BEGIN) < page.index(END)
