"""The command as a user runs it: the whole job small, and every refusal in one line with nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import save_tiny_teacher, save_tiny_text

TEACHERS = Path(__file__).parents[2] / "demo" / "teachers"
SMALL = ["--steps", "12", "--train-tokens", "4096", "--eval-tokens", "256", "--batch-tokens", "512"]


def rsae(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rational_sae", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


def refused(run: subprocess.CompletedProcess[str], *words: str) -> None:
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, run.stderr
    for word in words:
        assert word in run.stderr


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "out"
    run = rsae("upgrade", TEACHERS / "topk", "--text", "news", "--out", out, *SMALL)
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    assert "test documents" in run.stdout
    assert len(run.stdout.splitlines()) <= 15
    assert "measure: " in run.stderr
    return out


def test_upgrade_writes_everything_and_nothing_else(upgraded: Path) -> None:
    assert {path.name for path in upgraded.iterdir()} == {
        "sae",
        "identity",
        "control-native",
        "report.json",
        "report.html",
        "settings.yaml",
        "log.jsonl",
    }
    assert [path.name for path in upgraded.parent.iterdir()] == ["out"]


def test_the_report_holds_every_row_and_metric(upgraded: Path) -> None:
    report = json.loads((upgraded / "report.json").read_text())
    assert list(report["rows"]) == [
        "teacher",
        "teacher_rescaled",
        "init",
        "init_hard",
        "rsae",
        "control_native",
        "identity",
    ]
    for row in report["rows"].values():
        assert {"mse", "fvu", "l0", "delta_ce", "loss_recovered", "kl", "fvu_at_l0", "alive_fraction"} <= set(row)
    teacher, init, rsae_row = (report["rows"][name] for name in ("teacher", "init", "rsae"))
    assert init["fvu"] == pytest.approx(teacher["fvu"], rel=0.02)
    assert init["l0"] == pytest.approx(teacher["l0"], rel=0.05)
    assert rsae_row["l0"] == pytest.approx(teacher["l0"], rel=0.15)
    assert {"rsae - teacher", "rsae - control_native", "rsae - identity"} <= set(report["differences"])


def test_the_exported_sae_evaluates_to_the_reports_figures(upgraded: Path) -> None:
    run = rsae("evaluate", TEACHERS / "topk", upgraded, "--text", "news", "--eval-tokens", "256", "--json", "-")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)["rows"]
    report = json.loads((upgraded / "report.json").read_text())["rows"]
    for path, name in ((str(TEACHERS / "topk"), "teacher"), (str(upgraded), "rsae")):
        for key in ("fvu", "l0", "delta_ce"):
            assert rows[path][key] == pytest.approx(report[name][key], rel=1e-4)


def test_settings_rerun_the_job_to_the_same_bits(upgraded: Path, tmp_path: Path) -> None:
    from rational_sae.upgrading.job import run as upgrade
    from rational_sae.upgrading.run.write import write
    from rational_sae.upgrading.settings import Settings

    settings = Settings.model_validate(yaml.safe_load((upgraded / "settings.yaml").read_text()))
    write(upgrade(settings), tmp_path / "again")
    first = load_file(upgraded / "sae" / "sae_weights.safetensors")
    again = load_file(tmp_path / "again" / "sae" / "sae_weights.safetensors")
    assert all(torch.allclose(first[name], again[name], rtol=1e-4, atol=1e-6) for name in first)


def test_report_is_rebuilt_from_its_json(upgraded: Path, tmp_path: Path) -> None:
    shutil.copy(upgraded / "report.json", tmp_path)
    assert rsae("report", tmp_path).returncode == 0
    assert (tmp_path / "report.html").read_text() == (upgraded / "report.html").read_text()


def test_inspect_and_fit_print_json_alone() -> None:
    facts = json.loads(rsae("inspect", TEACHERS / "jumprelu", "--json", "-").stdout)
    assert (facts["family"], facts["d_in"], facts["d_sae"]) == ("jumprelu", 576, 2304)
    assert facts["formula"][:2] == ["h = W_encᵀ(x − b_dec) + b_enc", "z_j = h_j where h_j > θ_j, 0 elsewhere"]
    assert (facts["format"], facts["threshold"]["zeros"]) == ("SAELens", 0)
    fit = json.loads(rsae("fit", "relu", "--type", "3,2", "--json", "-").stdout)
    assert fit["error"] == pytest.approx(2.18445e-2, rel=1e-4)
    assert fit["alternations"] == 7


def test_fit_draws_a_picture_and_refuses_another_ending(tmp_path: Path) -> None:
    run = rsae("fit", "leaky_relu", "--type", "3,2", "--slope", "0.2", "--plot", tmp_path / "fit.svg")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "fit.svg").read_text().startswith("<svg")
    refused(rsae("fit", "relu", "--plot", tmp_path / "fit.doc"), "is no picture")
    assert [path.name for path in tmp_path.iterdir()] == ["fit.svg"]


def broken_teacher(folder: Path, **tensors: torch.Tensor | None) -> Path:
    shutil.copytree(TEACHERS / "topk", folder)
    weights = load_file(TEACHERS / "topk" / "sae_weights.safetensors")
    for name, value in tensors.items():
        weights.pop(name)
        if value is not None:
            weights[name] = value
    save_file(weights, folder / "sae_weights.safetensors")
    return folder


def upgrade_of(teacher: Path | str, out: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return rsae("upgrade", teacher, "--out", out, *(options or ("--text", "news")), *SMALL)


def test_missing_and_damaged_teachers_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(upgrade_of(tmp_path / "nowhere", out), "nowhere")
    cut = tmp_path / "cut"
    shutil.copytree(TEACHERS / "topk", cut)
    weights = cut / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    refused(upgrade_of(cut, out), "sae_weights.safetensors")
    refused(upgrade_of(broken_teacher(tmp_path / "shape", W_dec=torch.zeros(3, 5)), out), "W_dec")
    refused(upgrade_of(broken_teacher(tmp_path / "nan", b_enc=torch.full((2304,), torch.nan)), out), "b_enc")
    assert not out.exists()


def test_wrong_hook_text_and_model_are_refused(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    out = tmp_path / "out"
    topk = TEACHERS / "topk"
    refused(upgrade_of(topk, out, "--text", "news", "--hook", "model.layers.99"), "nearest: model.layers")
    refused(upgrade_of(topk, out, "--text", "news", "--model", tiny_folders["llama"]), "width 576", "width 32")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    refused(upgrade_of(topk, out, "--text", empty), "tokens")
    short = tmp_path / "short.txt"
    short.write_text("One paragraph.\n\nAnother one.\n\nA third.")
    refused(upgrade_of(topk, out, "--text", short), "tokens")
    assert not out.exists()


def test_an_sae_that_does_not_explain_the_activations_is_refused(tmp_path: Path) -> None:
    weights = load_file(TEACHERS / "topk" / "sae_weights.safetensors")
    wrong = broken_teacher(tmp_path / "wrong", W_dec=weights["W_dec"].flip(0).contiguous())
    refused(upgrade_of(wrong, tmp_path / "out"), "does not explain", "--accept-implausible")


def test_an_occupied_out_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    refused(upgrade_of(TEACHERS / "topk", tmp_path), "not empty")
    assert (tmp_path / "precious.txt").read_text() == "keep me"


def test_a_failed_write_leaves_nothing(
    tmp_path: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rational_sae.errors import OutputError
    from rational_sae.upgrading.job import run as upgrade
    from rational_sae.upgrading.run import write
    from rational_sae.upgrading.settings import Settings

    inputs, outputs = tmp_path / "inputs", tmp_path / "outputs"
    inputs.mkdir()
    outputs.mkdir()
    text = save_tiny_text(inputs / "text.jsonl")
    teacher = save_tiny_teacher(inputs / "teacher", tiny_folders["llama"], text)
    settings = Settings(teacher=str(teacher), text=str(text), type=(3, 2), steps=2, batch_tokens=128, eval_tokens=256)
    done = upgrade(settings, accept_implausible=True)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write.write(done, outputs / "out")
    assert list(outputs.iterdir()) == []


@pytest.mark.parametrize("options", [["--type", "8,8"], ["--type", "nine"], ["--control", "best"], ["--steps", "0"]])
def test_wrong_usage_exits_with_2(options: list[str], tmp_path: Path) -> None:
    run = rsae("upgrade", TEACHERS / "topk", "--text", "news", "--out", tmp_path / "out", *options)
    assert run.returncode == 2, run.stderr


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("saelens", {"cfg.json", "sae_weights.safetensors", "README.md"}),
        ("jumprelu", {"cfg.json", "sae_weights.safetensors", "README.md"}),
        ("safetensors", {"sae.safetensors"}),
    ],
)
def test_export_writes_each_form_and_replaces_only_its_own(tmp_path: Path, form: str, files: set[str]) -> None:
    from typer.testing import CliRunner

    from rational_sae.cli import app

    command = ["export", str(TEACHERS / "relu"), "--as", form, "--out", str(tmp_path / "out")]
    for _ in range(2):
        run = CliRunner().invoke(app, command)
        assert run.exit_code == 0, run.output
        assert {path.name for path in (tmp_path / "out").iterdir()} == files
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert CliRunner().invoke(app, command).exit_code != 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    if form == "jumprelu":
        assert json.loads((tmp_path / "out" / "cfg.json").read_text())["architecture"] == "jumprelu"
        needs_text = CliRunner().invoke(app, ["export", str(TEACHERS / "topk"), *command[2:]])
        assert needs_text.exit_code == 2
        assert "--text" in needs_text.output


COMMANDS = [
    "demo",
    "upgrade",
    "evaluate",
    "headroom",
    "fit",
    "inspect",
    "latent",
    "export",
    "push",
    "report",
    "sweep",
    "status",
]
COMMANDS += ["theory", "bench"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    from typer.testing import CliRunner

    from rational_sae.cli import app

    run = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert run.exit_code == 0, run.exception
    assert "Example: rsae " + command in run.output


def test_help_shows_brackets_as_they_are() -> None:
    from typer.testing import CliRunner

    from rational_sae.cli import app

    text = CliRunner().invoke(app, ["upgrade", "--help"], env={"COLUMNS": "300"}).output
    assert "hub:OWNER/REPO[/PATH]" in text
    assert "[default: the SAE's]" in text


def test_every_command_is_tested_for_its_help() -> None:
    from rational_sae.cli import app

    assert {command.callback.__name__ for command in app.registered_commands if command.callback} == set(COMMANDS)
