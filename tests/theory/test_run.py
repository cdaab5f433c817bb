"""The whole run, with fewer degrees: files, figures, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rational_sae.errors import OutputError
from rational_sae.theory import converse, measure_theory, measured, write_theory


def test_a_run_writes_its_numbers_and_four_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "SIGN_DEGREES", (3, 5))
    monkeypatch.setattr(measured, "RELU_DEGREES", (2, 4))
    monkeypatch.setattr(measured, "JUMP_DEGREES", (2, 4))
    monkeypatch.setattr(measured, "TOKENS", 50)
    monkeypatch.setattr(converse, "EPSILONS", (3e-2, 1e-2, 5e-3, 3e-3, 1e-3))
    found = measure_theory()
    write_theory(found, tmp_path / "out")
    names = {"theory.json", *(f"theory-{name}.png" for name in ("sign", "relu", "gates", "converse"))}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert json.loads((tmp_path / "out" / "theory.json").read_text()) == json.loads(json.dumps(found))
    signs = [row for row in found["decay"] if row["statement"] == "sign"]
    assert all(row["decay"] == pytest.approx(row["predicted"], rel=0.15) for row in signs)
    with pytest.raises(OutputError, match="not empty"):
        write_theory(found, tmp_path / "out")
    (tmp_path / "out" / "notes.md").write_text("mine")
    write_theory(found, tmp_path / "out", overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"notes.md"}
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "theory.json").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="was not written by rsae theory"):
        write_theory(found, tmp_path / "else", overwrite=True)
