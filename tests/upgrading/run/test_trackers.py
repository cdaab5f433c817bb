"""Other people's logs get the numbers of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rational_sae.errors import MissingExtraError
from rational_sae.upgrading.run.trackers import require, tracker

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_tensorboard_has_every_number_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = tracker("tensorboard", tmp_path, 0, {})
    for step in (1, 2, 3):
        first.log(step, {"rsae/mse": step / 2})
    first.close()
    again = tracker("tensorboard", tmp_path, 1, {})  # the checkpoint was that of step 1
    for step in (2, 3, 4):
        again.log(step, {"rsae/mse": step / 4})
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("rsae/mse")
    assert [(event.step, event.value) for event in events] == [(1, 0.5), (2, 0.5), (3, 0.75), (4, 1.0)]


@pytest.mark.slow
def test_wandb_keeps_a_run_on_disk_when_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = (
        "import sys; from pathlib import Path; from rational_sae.upgrading.run.trackers import tracker;"
        "run = tracker('wandb', Path(sys.argv[1]), 0, {'steps': 3}); run.log(1, {'rsae/mse': 0.5}); run.close()"
    )
    # In a process of its own: under pytest's capture the service of W&B writes nothing.
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert b"rsae/mse" in kept.read_bytes()


def test_a_tracker_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rational_sae.upgrading.run.trackers.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"rational-sae\[wandb\]"):
        require("wandb")
