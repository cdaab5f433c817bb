"""Locks that keep other processes out and end with their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rational_sae.errors import OutputError
from rational_sae.support.locks import is_locked, locked


def test_a_lock_keeps_other_processes_out_and_ends_with_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import pathlib, sys; from rational_sae.support.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'it'): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_locked(path)
        with pytest.raises(OutputError, match="runs/a is being written by another process"), locked(path, "runs/a"):
            pass
    finally:
        other.kill()
        other.communicate()
    assert not is_locked(path)
    with locked(path, "runs/a"):
        pass


def test_asking_makes_no_lock_file_and_a_lock_changes_no_content(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    path.write_text("mine")
    with locked(path, "runs/a"):
        assert is_locked(path)
    assert path.read_text() == "mine"
