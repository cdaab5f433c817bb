"""Absurd values for every option of every command: one line, exit 1 or 2, and nothing left behind.

In process, through `main`, as a shell would start it; a few in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny import save_tiny_teacher, save_tiny_text

from rational_sae import cli

LONG = "x" * 5000
CONTROL = "a\x1b[2Jb\nerror: forged\u202e\x07"
WORDS = ["", LONG, CONTROL]
NUMBERS = ["", "nan", "inf", "-inf", "-1", "x", "1e400", LONG, CONTROL]
COUNTS = [*NUMBERS, "0", "1.5", "9" * 30, "9" * 5000]
"""For options that count something."""

RUN = ["--text", "TEXT", "--out", "OUT", "--steps", "2", "--batch-tokens", "64", "--eval-tokens", "256"]
"""A quick upgrade on the tiny model, were it not for the option that is tried."""

MISSING = [name for name, module in (("cuda", torch.cuda), ("mps", torch.mps)) if not module.is_available()]

UPGRADE = {
    "--text": [*WORDS, "FOLDER", "BINARY"],
    "--model": [*WORDS, "FOLDER", "BINARY"],
    "--hook": WORDS,
    "--gate": WORDS,
    "--looks": [*COUNTS, "4"],
    "--recipe": WORDS,
    "--type": [*WORDS, "0,0", "1,0", "5", "5,4,3", "-5,-4", "999,998", "9" * 30 + "," + "9" * 30, "nan,inf", "4,4"],
    "--calibrate": WORDS,
    "--steps": COUNTS,
    "--batch-tokens": [*COUNTS, "1"],
    "--train-tokens": [*COUNTS, "1"],
    "--eval-tokens": [*COUNTS, "1", "2"],
    "--context": [*COUNTS, "1"],
    "--bos": WORDS,
    "--target-l0": [*NUMBERS, "0", "1e-9", "65", "9" * 30],
    "--probe": [*WORDS, "FOLDER", "BINARY"],
    "--probe-train": [*COUNTS, "1", "39"],
    "--control": [*WORDS, "best", "native,,", ","],
    "--seed": [*COUNTS[:6], "x", "9" * 30],
    "--objective": WORDS,
    "--kl-share": [*NUMBERS, "0", "1.5", "9" * 30],
    "--adapter-rank": COUNTS,
    "--least-effect": [*NUMBERS, "1", "9" * 30],
    "--probe-tasks": COUNTS,
    "--probe-texts": [*COUNTS, "1"],
    "--also": [*WORDS, "FOLDER", "BINARY"],
    "--chat-tokens": WORDS,
    "--vectors": ["", LONG, CONTROL, "FOLDER", "BINARY", "LOOP", "missing.npy"],
    "--device": [*WORDS, "tpu", *MISSING],
    "--out": ["", LONG, "FILE", "FILE/out", "LOOP", "/proc/nothing/here"],
    "--settings": ["", LONG, "FOLDER", "BINARY", "LOOP", "missing.yaml"],
    "--checkpoint-steps": COUNTS,
    "--checkpoint-seconds": NUMBERS,
    "--cache": ["", LONG, "FILE", "LOOP"],
    "--cache-gb": [*NUMBERS, "0", "1e300"],
    "--track": ["best", LONG, CONTROL, "tensorboard,best"],
}

EVALUATE = {name: UPGRADE[name] for name in ("--text", "--model", "--hook", "--eval-tokens", "--context", "--bos")}
EVALUATE |= {
    name: UPGRADE[name]
    for name in (
        *("--probe", "--probe-train", "--probe-tasks", "--probe-texts", "--least-effect", "--also", "--chat-tokens"),
        *("--cache", "--cache-gb", "--out", "--device"),
    )
}
READ = {name: UPGRADE[name] for name in ("--text", "--model", "--hook", "--context", "--bos", "--device")}

COMMANDS: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "upgrade": (["upgrade", "TEACHER", *RUN], UPGRADE),
    "demo": (["demo"], {"--family": WORDS, "--seed": UPGRADE["--seed"], "--out": UPGRADE["--out"][:-1]}),
    "evaluate": (["evaluate", "TEACHER", "--text", "TEXT", "--eval-tokens", "256"], EVALUATE),
    "headroom": (
        ["headroom", "TEACHER", "--text", "TEXT"],
        READ
        | {
            "--eval-tokens": UPGRADE["--eval-tokens"],
            "--plot": ["", LONG, "FOLDER", "FILE/x.svg", "LOOP", "picture.doc"],
        },
    ),
    "inspect": (["inspect", "TEACHER", "--text", "TEXT"], READ),
    "latent": (
        ["latent", "TEACHER", "3", "--text", "TEXT"],
        READ | {"--eval-tokens": UPGRADE["--eval-tokens"], "--teacher": ["", LONG, CONTROL, "FOLDER", "LOOP"]},
    ),
    "export": (
        ["export", "TEACHER", "--as", "jumprelu", "--text", "TEXT", "--out", "OUT"],
        READ | {"--as": WORDS, "--out": UPGRADE["--out"], "--eval-tokens": UPGRADE["--eval-tokens"]},
    ),
    "fit": (
        ["fit", "jumprelu", "--threshold", "0.1", "--gap", "0.02", "--fresh"],
        {
            "--type": ["", "5", "-1,2", "1000,1000", "nan,inf", LONG, CONTROL],
            "--threshold": [*NUMBERS[:4], "2", "x", LONG],
            "--gap": [*NUMBERS, "5"],
            "--slope": ["nan", "inf", "0.5", "x"],
            "--kappa": [*NUMBERS, "0"],
            "--method": WORDS,
            "--plot": ["", LONG, "FOLDER", "FILE/x.svg", "LOOP", "picture.doc"],
        },
    ),
    "sweep": (
        ["sweep", "GRID", "--out", "OUT"],
        {
            "--out": UPGRADE["--out"],
            "--engine": WORDS,
            "--workers": [*COUNTS, "1000000000"],
            "--checkpoint-steps": COUNTS,
            "--checkpoint-seconds": NUMBERS,
            "--cache-gb": UPGRADE["--cache-gb"],
        },
    ),
    "theory": (["theory"], {"--out": ["", LONG, "FILE", "FILE/out", "LOOP"]}),
    "bench": (
        ["bench"],
        {
            "--d-in": [*COUNTS, "1000000000"],
            "--d-sae": [*COUNTS, "1", "2", "10000000000"],
            "--batch": [*COUNTS, "100000000000"],
            "--device": [*WORDS, "tpu", *MISSING],
        },
    ),
}

PLACES = ["", LONG, CONTROL, "FOLDER", "FILE", "FILE/x", "BINARY", "LOOP", "nowhere"]
ARGUMENTS = [
    *(["inspect", place] for place in PLACES),
    *(["report", place] for place in PLACES),
    *(["status", place] for place in PLACES),
    *(["push", place, "me/x"] for place in PLACES),
    *(["sweep", place, "--out", "OUT"] for place in PLACES),
    *(["upgrade", place, *RUN] for place in PLACES),
    *(["evaluate", place, "--text", "TEXT"] for place in PLACES),
    *(["export", place, "--as", "saelens", "--out", "OUT"] for place in PLACES),
    *(["fit", name] for name in WORDS),
    *([name] for name in (*WORDS, "nothing", "--nothing", "upgrade", "evaluate", "fit", "push")),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> dict[str, str]:
    root = tmp_path_factory.mktemp("absurd")
    text = save_tiny_text(root / "text.jsonl")
    teacher = save_tiny_teacher(root / "teacher", tiny_folders["llama"], text)
    grid = root / "grid.yaml"
    grid.write_text(f"defaults: {{text: {text}, steps: 2}}\ncells: {{a: {{teacher: {teacher}}}}}\n")
    (root / "folder").mkdir()
    (root / "file").write_text("mine")
    (root / "binary.yaml").write_bytes(bytes(range(256)))
    (root / "loop").symlink_to(root / "loop")
    named = {"TEXT": text, "TEACHER": teacher, "GRID": grid, "FOLDER": root / "folder", "FILE": root / "file"}
    return {name: str(path) for name, path in (named | {"BINARY": root / "binary.yaml", "LOOP": root / "loop"}).items()}


def command_of(words: list[str], places: dict[str, str], tmp_path: Path) -> list[str]:
    found = places | {"OUT": str(tmp_path / "out")}
    return [found.get(word, found["FILE"] + word[4:] if word.startswith("FILE/") else word) for word in words]


def ended(command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of `main`, and what it said."""
    monkeypatch.setattr("sys.argv", ["rsae", *command])
    monkeypatch.setattr(cli, "end_like_ctrl_c", lambda: None)
    monkeypatch.setattr(cli.terminal, "console", Console(stderr=True, width=200))
    with pytest.raises(SystemExit) as end:
        cli.main()
    code: Any = end.value.code
    return code, capfd.readouterr().err


def refused(code: int, said: str) -> None:
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert code in (1, 2), said
    assert len(lines) == 1, said
    assert said.splitlines()[-1] == lines[0], said
    assert "unexpected" not in lines[0], said
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert len(lines[0]) < 2000


TRIED = [
    pytest.param(start, option, value, id=f"{name} {option} {value[:12]!r} {len(value)}")
    for name, (start, options) in COMMANDS.items()
    for option, values in options.items()
    for value in values
]


@pytest.mark.parametrize(("start", "option", "value"), TRIED)
def test_an_absurd_value_of_an_option_is_refused_in_one_line(
    start: list[str],
    option: str,
    value: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSAE_CACHE", os.environ.get("RSAE_CACHE", str(tmp_path / "cache")))
    command = command_of([*start, f"{option}", value], places, tmp_path)
    refused(*ended(command, monkeypatch, capfd))
    assert not (tmp_path / "out").exists()
    assert Path(places["FILE"]).read_text() == "mine"


@pytest.mark.parametrize("words", ARGUMENTS, ids=lambda words: f"{[word[:12] for word in words[:2]]}")
def test_an_absurd_argument_is_refused_in_one_line(
    words: list[str],
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(*ended(command_of(words, places, tmp_path), monkeypatch, capfd))
    assert not (tmp_path / "out").exists()


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


WITHOUT_VALUES = {
    "--help",
    "--resume",
    "--overwrite",
    "--accept-implausible",
    "--fresh",
    "--private",
    "--revive",
    "--refit-decoder",
    "--floor",
    "--full",
    "--pilot",
}
WITHOUT_VALUES |= {"--random", "--chat", "--trust-remote-code", "--json", "--overwrite", "--accept-implausible"}
"""Flags; and where JSON goes, which has tests of its own."""


def test_every_option_is_tried() -> None:
    from typer.main import get_command

    commands: Any = get_command(cli.app)
    for name, command in commands.commands.items():
        tried = set(COMMANDS[name][1]) if name in COMMANDS else set()
        assert options_of(command) - WITHOUT_VALUES <= tried | {"--cache"}, name


@pytest.mark.parametrize(
    "words",
    [
        ["upgrade", "TEACHER", *RUN, "--seed", "-1"],
        ["upgrade", "TEACHER", *RUN, "--target-l0", "inf"],
        ["upgrade", "TEACHER", *RUN, "--eval-tokens", "1"],
        ["inspect", CONTROL],
    ],
    ids=["seed", "target", "one token", "control"],
)
def test_a_process_ends_in_one_line_too(words: list[str], places: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rational_sae", *command_of(words, places, tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    refused(run.returncode, run.stderr)
    assert run.stdout == ""


def test_an_unexpected_error_is_one_line_and_its_traceback_is_kept_without_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    token = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345"
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "cache"))

    def broken(*_arguments: Any, **_options: Any) -> None:
        raise KeyError(f"{token} \x1b[2J\n" + "long " * 1000)

    monkeypatch.setattr("rational_sae.check.inspection.inspect_sae", broken)
    code, said = ended(["inspect", "x"], monkeypatch, capfd)
    assert code == 1
    lines = [line for line in said.splitlines() if line.startswith("error: unexpected KeyError")]
    assert said.splitlines() == lines
    assert "(rational_sae/cli/inspect.py:" in lines[0]
    (kept,) = (tmp_path / "cache" / "log").iterdir()
    assert str(kept) in lines[0]
    assert kept.stat().st_mode & 0o777 == 0o600
    content = kept.read_text()
    assert "Traceback (most recent call last)" in content
    assert "in broken" in content
    for text in (said, content):
        assert token not in text
        assert "\x1b" not in text

    code, said = ended(["--debug", "inspect", "x"], monkeypatch, capfd)
    assert code == 1
    assert "Traceback (most recent call last)" in said
    assert said.splitlines()[-1].startswith("error: unexpected KeyError")
    assert token not in said
    assert len(list((tmp_path / "cache" / "log").iterdir())) == 1


def test_debug_shows_where_a_refusal_came_from(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = ended(["--debug", "inspect", "nowhere"], monkeypatch, capfd)
    assert code == 1
    assert "rational_sae.errors.SourceError" in said
    assert said.splitlines()[-1].startswith("error: nowhere")
    refused(*ended(["inspect", "nowhere"], monkeypatch, capfd))


def test_without_a_folder_for_logs_the_line_is_said_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "file"))

    def broken(*_arguments: Any, **_options: Any) -> None:
        raise RecursionError

    monkeypatch.setattr("rational_sae.check.inspection.inspect_sae", broken)
    with monkeypatch.context() as full:
        full.setattr("tempfile.tempdir", str(tmp_path / "file" / "x"))
        code, said = ended(["inspect", "x"], full, capfd)
    assert code == 1
    assert "error: unexpected RecursionError" in said
    assert "rsae --debug shows its traceback" in said
