"""Options that come from the settings: each is there once, and the command line says what the class says."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from typer.main import get_command
from typer.testing import CliRunner

from rational_sae.cli import app, from_settings, options
from rational_sae.cli.options import PANELS, TAKEN, Taken
from rational_sae.upgrading.settings import Settings

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


def test_every_option_of_a_panel_is_a_field_with_words() -> None:
    for name in options.EVERY:
        if name in from_settings.OTHERS:
            continue
        assert Settings.model_fields[name].description, name
    assert set(TAKEN["upgrade"].names) == {"teacher", *options.EVERY}
    assert all(set(taken.names) <= {"teacher", *options.EVERY} for taken in TAKEN.values())


@pytest.mark.parametrize("command", TAKEN)
def test_a_command_shows_the_fields_words_and_default(command: str) -> None:
    taken = TAKEN[command]
    shown = {one.name: one for one in COMMANDS[command].params}
    for name in set(taken.names) - from_settings.OTHERS.keys():
        field = Settings.model_fields[name]
        assert field.description is not None
        first = " ".join(field.description.partition("\n\n")[0].split())
        assert shown[name].help == taken.says.get(name, "{}").replace("{}", first)
        if name in taken.needs:
            assert shown[name].required
        elif name not in from_settings.SPELLED and name != "teacher":
            assert shown[name].default == field.default


def test_a_new_field_is_an_option_with_its_name_words_bounds_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    class More(Settings):
        warmth: int = Field(default=3, ge=1, le=9)
        """How warm it is, from 1
        to 9.

        Nobody at the command line reads this."""
        fan: bool = True
        """Turn the fan on."""

    monkeypatch.setattr(from_settings, "Settings", More)
    monkeypatch.setitem(PANELS, "Weather", ("warmth", "fan"))
    warmth, fan = (from_settings.parameter(name, Taken(("warmth", "fan"))) for name in ("warmth", "fan"))
    kind, told = warmth.annotation.__args__[0], warmth.annotation.__metadata__[0]
    assert (kind, warmth.default, told.min, told.max) == (int, 3, 1, 9)
    assert (told.help, told.rich_help_panel) == ("How warm it is, from 1 to 9.", "Weather")
    assert fan.annotation.__metadata__[0].default == "--fan/--no-fan"
    needed = from_settings.parameter("warmth", Taken(("warmth",), needs=("warmth",), says={"warmth": "Here: {}"}))
    assert needed.default is inspect.Parameter.empty
    assert needed.annotation.__metadata__[0].help == "Here: How warm it is, from 1 to 9."


def test_help_is_in_panels_with_bounds_and_defaults() -> None:
    text = CliRunner().invoke(app, ["upgrade", "--help"], env={"COLUMNS": "200"}).output
    places = [text.index(f"─ {panel} ─") for panel in ("Arguments", "Options", *PANELS)]
    assert places == sorted(places)
    for words in ("[x>=1]", "[default: 600]", "[default: 5,4]", "[default: native,identity]", "P,Q"):
        assert words in text


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (["--type", "3,2"], "type", (3, 2)),
        (["--control", "all"], "controls", ("native", "jumprelu", "identity", "adapted")),
        (["--control", "none"], "controls", ()),
        (["--control", "jumprelu, native"], "controls", ("jumprelu", "native")),
        (["--target-l0", "teacher"], "target_l0", None),
        (["--target-l0", "12.5"], "target_l0", 12.5),
        (["--probe", "a", "--probe", "b"], "probes", ("a", "b")),
        (["--no-revive"], "revive", False),
        (["--refit-decoder"], "refit_decoder", True),
        (["--cache", "here"], "cache", Path("here")),
        (["--bos", "no"], "bos", "no"),
    ],
)
def test_what_is_spelled_otherwise_reaches_its_field(
    given: list[str], name: str, value: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[Settings] = []
    module = importlib.import_module("rational_sae.cli.upgrade")  # the room has the function under this name
    monkeypatch.setattr(module, "run", lambda settings, *_a, **_o: found.append(settings))
    monkeypatch.setattr(module, "folder_of", lambda *_a, **_o: None)
    out = str(tmp_path / "out")
    run = CliRunner().invoke(app, ["upgrade", "t", "--text", "news", "--out", out, *given])
    assert run.exit_code == 0, run.output
    assert found[0] == Settings.model_validate({"teacher": "t", "text": "news", name: value})


def test_a_refusal_names_the_option_as_it_is_spelled() -> None:
    run = CliRunner().invoke(app, ["upgrade", "t", "--text", "news", "--out", "out", "--probe", ""])
    assert run.exit_code == 2
    assert "--probe:" in run.output


@pytest.mark.parametrize("command", [*COMMANDS])
def test_help_cuts_no_name_at_80_columns(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "-h"], env={"COLUMNS": "80"}).output
    assert "…" not in shown
    for parameter in COMMANDS[command].params:
        for name in parameter.opts if parameter.param_type_name == "option" else ():
            assert name in shown


def test_conventions_of_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner().invoke(app, ["--version"])
    assert (run.exit_code, run.stdout.split()[0]) == (0, "rsae")
    text = CliRunner().invoke(app, ["-h"], env={"COLUMNS": "100"}).output
    for words in ("130 interrupted", "RSAE_CACHE", "--install-completion", "--quiet"):
        assert words in text
    for name in ("sweep", "status"):
        assert CliRunner().invoke(app, [name, "-h"]).exit_code == 0


def test_quiet_leaves_results_and_verbose_says_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = str(Path(__file__).parents[2] / "demo" / "teachers" / "topk")
    quiet, verbose = (CliRunner().invoke(app, [flag, "inspect", teacher]) for flag in ("-q", "-v"))
    assert quiet.stdout == verbose.stdout
    assert "TopK SAE" in quiet.stdout
    assert quiet.stderr == ""
    assert "torch 2." in verbose.stderr
    assert "load SAE: done" in verbose.stderr
    monkeypatch.setattr("rational_sae.cli.terminal.quiet", False)
