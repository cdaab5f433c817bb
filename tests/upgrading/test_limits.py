"""Numbers that can be meant, and those that cannot: refused when settings are made, or when the SAE is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny import save_tiny_teacher, save_tiny_text

from rational_sae.data.reading import Reading
from rational_sae.errors import SettingsError
from rational_sae.evaluation import Protocol, evaluate
from rational_sae.formats import load
from rational_sae.sweep import engine_named
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run.schedule import Interval
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.warnings import missed_l0

NO_NUMBERS = (float("nan"), float("inf"), float("-inf"))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("seed", (-1, 2**32, 10**30)),
        ("steps", (0, -1, 10**12)),
        ("batch_tokens", (0, 1, -1, 10**12)),
        ("train_tokens", (0, 1, 10**20)),
        ("eval_tokens", (0, 1, 31, 10**12)),
        ("context", (0, 1, -5, 10**9)),
        ("probe_train", (0, 39, 10**12)),
        ("target_l0", (0, -1.0, *NO_NUMBERS)),
        ("lr", (0.0, -1.0, 11.0, *NO_NUMBERS)),
        ("lr_threshold", (0.0, *NO_NUMBERS)),
        ("lr_shape", (-1e-9, *NO_NUMBERS)),
        ("rates", ({"rsae": 0.0}, {"rsae": float("nan")})),
        ("type", ((1, 0), (4, 4), (999, 998), (-1, -2))),
        ("cache_gb", (0.0, 1e7, *NO_NUMBERS)),
        ("device", ("tpu-like", "cuda:x", "meta", "")),
        ("teacher", ("", "x" * 5000)),
        ("text", ("", "x" * 5000)),
        ("model", ("",)),
        ("hook", ("",)),
        ("probes", (("",),)),
    ],
)
def test_settings_take_no_absurd_number(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ValidationError, match=name):
            Settings.model_validate({"teacher": "t", name: value})


def test_intervals_protocols_and_engines_take_no_absurd_number() -> None:
    for steps, seconds in ((0, 1.0), (10**12, 1.0), (1, -1.0), *((1, number) for number in NO_NUMBERS)):
        with pytest.raises(SettingsError):
            Interval(steps, seconds)
    for train in (0, 39, 10**9):
        with pytest.raises(SettingsError):
            Protocol(train)
    for workers in (0, -1, 10**9):
        with pytest.raises(SettingsError):
            engine_named("local", workers)
    with pytest.raises(SettingsError, match="1 test tokens"):
        evaluate(["nowhere"], eval_tokens=1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Settings:
    root = tmp_path_factory.mktemp("limits")
    text = save_tiny_text(root / "text.jsonl")
    teacher = save_tiny_teacher(root / "teacher", tiny_folders["llama"], text, family="jumprelu")
    short = {"steps": 2, "batch_tokens": 64, "eval_tokens": 256, "controls": ()}
    return Settings.model_validate({"teacher": str(teacher), "text": str(text), **short})


def changed(settings: Settings, **options: Any) -> Settings:
    return Settings.model_validate(settings.model_dump() | options)


def test_an_l0_that_no_code_of_this_sae_can_have_is_refused(settings: Settings) -> None:
    sae = load(settings.teacher)
    assert sae.d_sae == 64
    changed(settings, target_l0=64.0).resolved(sae)
    for target, words in ((64.5, "has 64 latents"), (173.0, "has 64 latents"), (0.004, "not one code in 128")):
        with pytest.raises(SettingsError, match=words):
            changed(settings, target_l0=target).resolved(sae)


def test_a_device_that_is_not_here_is_refused(settings: Settings) -> None:
    sae = load(settings.teacher)
    with pytest.raises(SettingsError, match="the device cuda:999 cannot be used"):
        Reading(device="cuda:999").resolved(sae)


def test_an_l0_that_was_missed_is_a_warning(settings: Settings) -> None:
    """No row of these few latents misses one that it may be asked for, so its record is changed afterwards."""
    done = upgrade(changed(settings, target_l0=10.0))
    assert done.candidates["rsae"].validation["l0"] == pytest.approx([10.0] * 3, rel=1e-2)
    done.candidates["rsae"].validation["l0"] = [10.2] * 3
    (warning,) = missed_l0(done.candidates, 10.0, done.settings)
    assert warning == "rsae: L0 is 10.2 on validation, 10.0 was to be held"


def test_an_l0_that_was_reached_is_none(settings: Settings) -> None:
    for target in (None, 10.0):
        assert not [one for one in upgrade(changed(settings, target_l0=target)).warnings if "to be held" in one]
