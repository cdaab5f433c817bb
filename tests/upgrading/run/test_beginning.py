"""What a new job does to a folder, and that it can be undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from rational_sae.upgrading.run.beginning import Beginning
from rational_sae.upgrading.run.checkpoint import Checkpoints


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("resume", [False, True])
def test_a_result_is_set_aside_and_put_back_and_other_files_stay(tmp_path: Path, resume: bool) -> None:
    out = tmp_path / "out"
    (out / "sae").mkdir(parents=True)
    for name in ("report.json", "settings.yaml", "log.jsonl", "notes.md", "sae/cfg.json"):
        (out / name).write_text(name)
    before = files(out)
    beginning = Beginning(out, Checkpoints(out / "checkpoint"), resume=resume)
    beginning.make({"steps": 3})
    aside = {f".rsae-earlier/{name}": name for name in before if name != "notes.md"}
    assert files(out) == aside | {"notes.md": "notes.md", "settings.yaml": "steps: 3\n"}
    beginning.undo()
    assert files(out) == before


def test_a_folder_that_was_made_goes_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    beginning = Beginning(out, Checkpoints(out / "checkpoint"), resume=False)
    out.mkdir()
    beginning.make({"steps": 3})
    assert files(out) == {"settings.yaml": "steps: 3\n"}
    beginning.undo()
    assert not out.exists()
