"""Options of earlier versions that are gone: dropped where they were at their default, else refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rational_sae.cli import app
from rational_sae.errors import SettingsError
from rational_sae.sweep import read_plan
from rational_sae.upgrading.run.folder import require_same, stored_settings
from rational_sae.upgrading.settings import REMOVED, Settings, completed, read_settings

AT_DEFAULT: dict[str, Any] = {"token_scale": 0.0, "band": "both", "solve_every": None, "scales": "latent"}
OTHERWISE: dict[str, Any] = {"token_scale": 0.4, "band": "above", "solve_every": 25, "scales": "one"}
REFUSED = r"{} is .*, an option that was removed because it was worth nothing .*; remove that line"


def stored(path: Path, **options: Any) -> Path:
    path.write_text(yaml.safe_dump(Settings(teacher="t", steps=7).to_store() | options))
    return path


def test_the_list_is_whole() -> None:
    assert REMOVED == AT_DEFAULT
    assert not REMOVED.keys() & Settings.model_fields.keys()


def test_at_its_default_an_option_is_dropped(tmp_path: Path) -> None:
    assert Settings.model_validate({"teacher": "t", **AT_DEFAULT}) == Settings(teacher="t")
    found = read_settings(stored(tmp_path / "settings.yaml", **AT_DEFAULT))
    assert found == Settings(teacher="t", steps=7).model_dump(mode="json")


def test_a_job_from_before_goes_on_under_the_settings_of_now(tmp_path: Path) -> None:
    stored(tmp_path / "settings.yaml", **AT_DEFAULT)
    asked = Settings(teacher="t", steps=7).to_store()
    require_same(tmp_path, stored_settings(tmp_path), asked)
    assert completed(asked | AT_DEFAULT) == asked
    stored(tmp_path / "settings.yaml", scales="one")
    with pytest.raises(Exception, match="was made with scales 'one', now it is None"):
        require_same(tmp_path, stored_settings(tmp_path), asked)


@pytest.mark.parametrize("name", OTHERWISE)
def test_at_any_other_value_it_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=REFUSED.format(name)):
        Settings.model_validate({"teacher": "t", name: OTHERWISE[name]})
    path = stored(tmp_path / "settings.yaml", **AT_DEFAULT | {name: OTHERWISE[name]})
    with pytest.raises(SettingsError, match=f"{path}: {REFUSED.format(name)}"):
        read_settings(path)


@pytest.mark.parametrize("given", [["--settings", "FILE"], ["--resume"]])
def test_the_command_says_it_in_one_line(given: list[str], tmp_path: Path) -> None:
    path = stored(tmp_path / "settings.yaml", token_scale=0.4)
    out = tmp_path if "--resume" in given else tmp_path / "out"
    run = CliRunner().invoke(app, ["upgrade", "--out", str(out), *(str(path) if x == "FILE" else x for x in given)])
    assert isinstance(run.exception, SettingsError)
    assert str(run.exception).startswith(f"{path}: token_scale is 0.4, an option that was removed")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["settings.yaml"]


@pytest.mark.parametrize("of", ["defaults", "cell a"])
def test_a_plan_of_a_sweep_too(of: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"

    def plan(**options: Any) -> Path:
        cell = {"teacher": "t", "settings": options if of == "cell a" else {}}
        path.write_text(yaml.safe_dump({"defaults": options if of == "defaults" else {}, "cells": {"a": cell}}))
        return path

    assert read_plan(plan(**AT_DEFAULT, steps=7)).settings("a") == Settings(teacher="t", steps=7)
    with pytest.raises(SettingsError, match=f"{path}: {of}: {REFUSED.format('band')}"):
        read_plan(plan(band="above"))
