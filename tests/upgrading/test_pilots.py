"""A control that kept its start gets lower learning rates, and what helps is the row; what does not is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from dying import DiedError, run
from tiny import tiny_job

from rational_sae.report import read_report
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.pilots import FACTORS
from rational_sae.upgrading.run.summary import report_of
from rational_sae.upgrading.settings import Settings

HIGH = 300.0
"""Times the usual learning rates: no step is then better than the start."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Settings:
    plain = tiny_job(tmp_path_factory.mktemp("pilots"), tiny_folders["llama"])
    return Settings(**{**plain.model_dump(), "rates": {"control_native": HIGH}, "steps": 24, "train_tokens": 1500})


def changed(settings: Settings, **changes: object) -> Settings:
    return Settings.model_validate({**settings.model_dump(), **changes})


def test_a_control_is_trained_again_at_the_rate_that_helps(settings: Settings) -> None:
    done = upgrade(settings)
    pilot = done.pilots["control_native"]
    assert set(pilot.tried) == set(FACTORS)
    assert pilot.chosen is not None
    assert pilot.chosen == min(pilot.tried, key=pilot.tried.__getitem__)
    assert pilot.tried[pilot.chosen] < pilot.start
    again = done.candidates["control_native"]
    assert again.kept_step > 0
    assert again.validation["step"][-1] == settings.steps, "as long as all rows"
    assert "control_native" not in done.untrained
    report = report_of(done)
    assert report["pilots"]["control_native"]["chosen"] == pilot.chosen
    (line,) = [one for one in report["warnings"] if one.startswith("control_native: no step")]
    assert f"trained again at learning rates ×{pilot.chosen:g}" in line
    alone = upgrade(changed(settings, rates={"control_native": pilot.chosen * HIGH}))
    assert alone.rows["control_native"] == done.rows["control_native"], "the row is as if the rate had been asked for"
    assert alone.rows["rsae"] == done.rows["rsae"]
    assert (alone.digests, alone.distinct_tokens) == (done.digests, done.distinct_tokens)


def test_where_nothing_helps_that_is_said_and_without_pilots_nothing_is_tried(settings: Settings) -> None:
    hopeless = changed(settings, rates={"control_native": 34 * HIGH}, steps=8)
    done = upgrade(hopeless)
    assert done.pilots["control_native"].chosen is None
    assert done.untrained >= {"control_native"}
    assert "control_native: no step was better than its start, nor at learning rates ×0.3, ×0.1, ×0.03" in done.warnings
    plain = upgrade(changed(hopeless, pilot=False))
    assert plain.pilots == {}
    assert plain.rows["control_native"] == done.rows["control_native"]
    assert "pilots" not in report_of(plain)


def test_the_rational_sae_itself_gets_no_other_rates(settings: Settings) -> None:
    done = upgrade(changed(settings, rates={"rsae": HIGH}, controls=(), steps=8))
    assert done.candidates["rsae"].kept_step == 0
    assert done.pilots == {}


def test_a_job_that_is_resumed_tries_the_same(settings: Settings, tmp_path: Path) -> None:
    run(settings, tmp_path / "whole")
    with pytest.raises(DiedError):
        run(settings, tmp_path / "out", dies_at=18)
    run(settings, tmp_path / "out", resume=True)
    whole, resumed = read_report(tmp_path / "whole"), read_report(tmp_path / "out")
    assert "pilots" in whole
    for key in ("rows", "pilots", "curves", "data", "warnings"):
        assert resumed[key] == whole[key]
