"""Files that are whole or not there, and locks that end with their process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from rational_sae.errors import OutputError
from rational_sae.support.files import is_locked, locked, sha256_of, write_whole


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "one")
    write_whole(path, b"two")
    assert path.read_text() == "two"
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "three")
    assert path.read_text() == "two"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_lock_keeps_other_processes_out_and_ends_with_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
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
