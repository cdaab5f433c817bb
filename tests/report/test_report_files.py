"""report.json and report.html on disk, and the figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rational_sae.errors import OutputError
from rational_sae.report import read_report, render, save_figures, write_report

PNG = b"\x89PNG\r\n\x1a\n"


def test_what_is_written_is_read_back(full: dict[str, Any], tmp_path: Path) -> None:
    write_report(full, tmp_path / "new" / "folder")
    assert read_report(tmp_path / "new" / "folder") == full
    assert (tmp_path / "new" / "folder" / "report.html").read_text(encoding="utf-8") == render(full)


def test_a_rebuilt_page_is_the_same(full: dict[str, Any], tmp_path: Path) -> None:
    write_report(full, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_report(read_report(tmp_path), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert set(first) == {"report.json", "report.html"}  # no temporary file stays


def test_other_types_become_json(minimal: dict[str, Any], tmp_path: Path) -> None:
    minimal["rows"]["teacher"] = {"fvu": np.float32(0.25), "kl": math.nan, "l0": np.int64(3), "mse": math.inf}
    minimal["intervals"] = {"teacher": {"fvu": (0.2, np.float64(0.3)), "kl": None}}
    minimal["settings"] = {"out": Path("a") / "b", "type": (9, 8), "edges": np.arange(2), "bytes": b"x"}
    write_report(minimal, tmp_path)
    found = read_report(tmp_path)
    assert found["rows"]["teacher"] == {"fvu": 0.25, "kl": None, "l0": 3, "mse": None}
    assert found["intervals"]["teacher"]["fvu"] == [0.2, 0.3]
    assert found["settings"] == {"out": "a/b", "type": [9, 8], "edges": [0, 1], "bytes": "b'x'"}
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_the_numbers_survive_a_page_that_cannot_be_drawn(minimal: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="malformed"):
        write_report({**minimal, "gate": "none"}, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == minimal["rows"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b'{"schema": 1', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no schema number"),
        (b'{"rows": {}}', "no schema number"),
        (b'{"schema": 99}', "has schema 99, this version reads schema 1"),
        (b'{"schema": 1}', "malformed: title: field required"),
    ],
)
def test_refuses_in_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(OutputError) as caught:
        read_report(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "report.json" in str(caught.value)


def test_a_missing_report_and_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        read_report(tmp_path / "nowhere")
    (tmp_path / "report.json").mkdir()
    with pytest.raises(OutputError, match="cannot be read"):
        read_report(tmp_path)


def test_an_output_that_cannot_be_written(minimal: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(minimal, tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        save_figures({**minimal, "firing": {"edges_log10": [0, 1], "counts": {"a": [1]}}}, tmp_path / "file")


def test_a_failed_write_leaves_the_old_report(
    minimal: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(minimal, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write_report({**minimal, "title": "Other"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_figures(full: dict[str, Any], tmp_path: Path) -> None:
    written = save_figures(full, tmp_path / "figures")
    assert [path.name for path in written] == ["gate.png", "training.png", "firing.png", "comparison.png"]
    for path in written:
        content = path.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 10_000


def test_figures_only_of_what_is_there(minimal: dict[str, Any], tmp_path: Path) -> None:
    assert save_figures(minimal, tmp_path) == []
