"""log.jsonl while a job runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rational_sae.errors import OutputError
from rational_sae.upgrading.run.log import LogFile


def test_lines_are_there_at_once_and_a_file_of_another_name_is_left_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "log.jsonl", tmp_path / "kept.jsonl"
    path.write_text("before\n")
    other.hardlink_to(path)
    log = LogFile(path)
    log.close()  # nothing to close is no failure
    log.begin(["1\n", "2\n"])
    log.add(["3\n"])
    assert path.read_text() == "1\n2\n3\n"
    assert other.read_text() == "before\n"
    log.close()


def test_a_full_disk_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    log = LogFile(tmp_path / "log.jsonl")
    log.begin()
    log.close()
    log._file = full.open("a", encoding="utf-8")
    with pytest.raises(OutputError, match=r"log\.jsonl cannot be written \(No space left on device\); free some space"):
        log.add(["1\n"])
    with pytest.raises(OSError, match="No space left"):
        log.close()
