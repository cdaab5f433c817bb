"""Ctrl-C in a command that has nothing to go on with: one line, exit 130."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from rational_sae import cli


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_ctrl_c_outside_a_job_is_one_line(
    debug: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rational_sae.check.inspection.inspect_sae", stopped)
    monkeypatch.setattr("sys.argv", ["rsae", *debug, "inspect", "x"])
    monkeypatch.setattr(cli, "end_like_ctrl_c", lambda: None)
    monkeypatch.setattr(cli.terminal, "console", Console(stderr=True, width=200))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted; run the same command again"
