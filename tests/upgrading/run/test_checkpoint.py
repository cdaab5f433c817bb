"""Checkpoints: what comes back is what was saved, and anything else is noticed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rational_sae.errors import OutputError
from rational_sae.gates.registry import TRAINED
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.model import SAE
from rational_sae.upgrading.run import checkpoint
from rational_sae.upgrading.run.checkpoint import MANIFEST, STATE, TENSORS, Checkpoints
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.initialise import rational_start
from rational_sae.upgrading.train.candidate import Candidate

TENSOR = torch.arange(6.0).view(2, 3).T  # not contiguous
NUMBERS = {"best": float("inf"), "tenth": 0.1, "steps": [1, 2]}


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    found = Checkpoints(tmp_path / "checkpoint")
    for step in (5, 10, 20):
        found.save(step, {"a": TENSOR * step}, NUMBERS | {"step": step})
    return found


def test_the_newest_comes_back_to_the_bit_and_one_before_is_kept(two: Checkpoints) -> None:
    found = two.newest()
    assert found is not None
    assert (found.step, found.state) == (20, NUMBERS | {"step": 20})
    assert torch.equal(found.tensors["a"], TENSOR * 20)
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-00000010", "step-00000020"]
    assert two.newest_step() == 20


@pytest.mark.parametrize("name", [TENSORS, STATE, MANIFEST])
@pytest.mark.parametrize("how", ["flip", "cut", "gone", "empty"])
def test_a_damaged_one_is_noticed_and_the_one_before_is_used(two: Checkpoints, name: str, how: str) -> None:
    path = two.folder / "step-00000020" / name
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    elif how == "gone":
        path.unlink()
    else:
        os.truncate(path, len(content) - 1 if how == "cut" else 0)
    found = two.newest()
    assert found is not None
    assert found.step == 10
    assert two.damaged == ["step-00000020"]
    two.save(12, {"a": TENSOR}, {})
    assert two.newest_step() == 12


def test_a_damaged_one_is_moved_aside_and_what_others_put_there_stays(two: Checkpoints) -> None:
    folder = two.folder / "step-00000020"
    (folder / "notes.md").write_text("mine")
    content = bytearray((folder / TENSORS).read_bytes())
    content[-1] ^= 1
    (folder / TENSORS).write_bytes(content)
    found = two.newest()
    assert found is not None
    assert found.step == 10
    assert (two.folder / "damaged-step-00000020" / TENSORS).read_bytes() == content
    assert (folder / "notes.md").read_text() == "mine"
    assert two.newest_step() == 10
    two.save(20, {"a": TENSOR}, {})  # again, and damaged again
    (folder / STATE).unlink()
    assert two.newest() is not None
    assert (two.folder / "damaged-step-00000020.1" / MANIFEST).exists()
    two.clear()
    assert [path.name for path in two.folder.rglob("*")] == ["step-00000020", "notes.md"]


@pytest.mark.parametrize("name", [TENSORS, STATE, MANIFEST])
@pytest.mark.parametrize("how", ["EIO", "loop of links"])
def test_one_that_cannot_be_read_is_an_error_and_loses_nothing(
    two: Checkpoints, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    path = two.folder / "step-00000020" / name
    content = path.read_bytes()
    if how == "EIO":
        opened = Path.open

        def failing(self: Path, *arguments: Any, **options: Any) -> Any:
            if self == path:
                raise OSError(errno.EIO, "Input/output error", str(self))
            return opened(self, *arguments, **options)

        monkeypatch.setattr(Path, "open", failing)
    else:
        path.unlink()
        path.symlink_to(path.name)
    with pytest.raises(OutputError, match=f"{name} cannot be read .*; nothing was removed; mend that") as caught:
        two.newest()
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-00000010", "step-00000020"]
    monkeypatch.undo()
    path.unlink()
    path.write_bytes(content)
    found = two.newest()
    assert found is not None
    assert found.step == 20
    assert two.damaged == []


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").symlink_to("checkpoint")
    with pytest.raises(OutputError, match="cannot be read"):
        Checkpoints(tmp_path / "checkpoint").newest()
    with pytest.raises(OutputError, match="cannot be read"):
        Checkpoints(tmp_path / "checkpoint").newest_step()


def test_one_of_another_version_is_refused_and_stays(two: Checkpoints) -> None:
    path = two.folder / "step-00000020" / MANIFEST
    manifest = json.loads(path.read_text()) | {"schema": 2}
    manifest.pop("checksum")
    path.write_text(json.dumps(manifest | {"checksum": checkpoint._checksum(manifest)}))
    with pytest.raises(OutputError, match="another version"):
        two.newest()
    assert path.exists()


def test_none_is_found_where_all_are_damaged(two: Checkpoints) -> None:
    for path in two.folder.glob(f"*/{STATE}"):
        path.write_text("{}")
    assert two.newest() is None
    assert two.damaged == ["step-00000020", "step-00000010"]
    assert Checkpoints(two.folder / "nowhere").newest() is None


def test_every_byte_of_a_manifest_counts(two: Checkpoints) -> None:
    path = two.folder / "step-00000020" / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"step": 21}))
    found = two.newest()
    assert found is not None
    assert found.step == 10


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left")])
def test_one_that_cannot_be_written_leaves_the_others(
    two: Checkpoints, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(type(error)):
        two.save(30, {"a": TENSOR}, {})
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-00000010", "step-00000020"]


def test_candidates_whose_gates_share_a_transition_fit_in_one_file(tmp_path: Path) -> None:
    x = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    gate = ThresholdGate(torch.full((20,), 0.5))
    teacher = SAE(directions.T, torch.zeros(20), directions, torch.zeros(8), gate)
    start = rational_start(teacher, x, (3, 2), TRAINED["hard"]).init
    settings = Settings(teacher="t", type=(3, 2), controls=())
    tensors = {}
    for name, one in {"rsae": start, "identity": start.with_line(), "again": start.with_line()}.items():
        state, _ = Candidate(name, teacher.with_gate(one), settings, x, 4.0).state()
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in state.items()}
    save_file(tensors, tmp_path / "state.safetensors")
    assert len(load_file(tmp_path / "state.safetensors")) == len(tensors)


WRITER = """
import sys
from pathlib import Path
import torch
from rational_sae.upgrading.run.checkpoint import Checkpoints
Checkpoints(Path(sys.argv[1])).save(30, {"a": torch.zeros(1 << 26)}, {})
"""


def test_what_a_writer_left_that_was_killed_in_the_middle_of_the_tensors_goes(two: Checkpoints) -> None:
    for _ in range(20):  # until a kill falls into the write of the 256 MB, under whatever name they are written first
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(two.folder)])
        while process.poll() is None and not any(path.is_file() for path in two.folder.glob(".partial-*/*")):
            time.sleep(0.001)
        process.kill()
        process.wait()
        if list(two.folder.glob(".partial-*")):
            break
    assert list(two.folder.glob(".partial-*/*"))
    (two.folder / ".tmpAbC123").write_text("mine")
    two.save(31, {"a": TENSOR}, {})
    assert not list(two.folder.glob(".partial-*"))
    assert (two.folder / ".tmpAbC123").read_text() == "mine"
