"""One process at a time writes into a job's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rational_sae.errors import OutputError
from rational_sae.upgrading.run.owner import held, is_running, require_free


def test_a_process_that_is_killed_leaves_no_stale_lock(tmp_path: Path) -> None:
    out = tmp_path / "out"
    require_free(out)
    assert not out.exists()
    code = (
        "import pathlib, sys; from rational_sae.upgrading.run.owner import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_running(out)
        with pytest.raises(OutputError, match="out is being written by another process; wait for it"):
            require_free(out)
        with pytest.raises(OutputError, match="out is being written by another process"), held(out):
            pass
    finally:
        other.kill()
        other.communicate()
    assert not is_running(out)
    with held(out):
        assert is_running(out)
