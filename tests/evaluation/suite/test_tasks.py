"""The tasks of sae-probes as they are read: what counts once, what is drawn, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from suite_wheel import easy_rows, write_wheel

from rational_sae.data.embedded import LABELS, embedded_path
from rational_sae.errors import RationalSAEError, SettingsError, TextError
from rational_sae.evaluation.suite.tasks import Archive, Size, SuiteTask, drawn, open_suite


@pytest.fixture(scope="module")
def tasks() -> list[SuiteTask]:
    """All tasks of the real package; fetched with pip on first use."""
    return open_suite(["sae-probes"], Size())


def test_the_package_has_113_tasks_of_two_classes(tasks: list[SuiteTask]) -> None:
    assert len(tasks) == 113
    task = next(one for one in tasks if one.name == "5_hist_fig_ismale")
    assert np.bincount(task.labelled.labels).tolist() == [150, 150]
    assert len(set(task.labelled.texts)) == 300
    assert task.labelled.copies == 718, "of 5 000 rows"
    assert task.elsewhere is not None
    assert len(task.elsewhere.texts) == 299
    assert tasks[3].elsewhere is None


def test_a_task_is_found_with_its_number_or_without_and_a_subset_holds_every_smaller_one(
    tasks: list[SuiteTask],
) -> None:
    for name in ("sae-probes:119_us_state_TX", "sae-probes:us_state_TX"):
        assert [task.name for task in open_suite([name], Size())] == ["119_us_state_TX"]
    names = [task.name for task in tasks]
    assert set(drawn(names, 20)) < set(drawn(names, 40))
    few = open_suite(["sae-probes"], Size(tasks=20))
    assert [task.name for task in few] == [name for name in names if name in drawn(names, 20)]


def test_an_unknown_task_is_refused_with_the_closest() -> None:
    with pytest.raises(TextError, match=r"no task us_state_TXX; the closest are us_state_TX,"):
        open_suite(["sae-probes:us_state_TXX"], Size())


def test_a_wheel_that_was_changed_is_refused_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "embedded" / "sae_probes-0.4.2.whl"
    own.parent.mkdir()
    shutil.copy(embedded_path("sae_probes", LABELS), own)
    with own.open("r+b") as wheel:
        wheel.seek(10_000_000)
        wheel.write(b"another byte")
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path))
    with pytest.raises(RationalSAEError, match=r"whl was changed: it has sha256 .*, expected 245700c8df31…; remove"):
        open_suite(["sae-probes"], Size())


def test_copies_count_once_and_a_text_under_both_labels_not_at_all(tmp_path: Path) -> None:
    rows = [*easy_rows(), ("again", "no"), ("again", "no"), ("both", "no"), ("both", "yes"), (" ", "no")]
    archive = Archive(write_wheel(tmp_path / "tiny.whl", {"1_easy": rows}))
    found = archive.labelled("cleaned_data/1_easy.csv.zst")
    assert "again" in found.texts
    assert "both" not in found.texts
    assert found.copies == len(rows) - len(found.texts) == 4
    few = found.first(80)
    assert np.bincount(few.labels).tolist() == [80, 80]
    assert set(found.first(76).texts) < set(few.texts)


def test_too_few_texts_are_refused_with_the_count(tmp_path: Path) -> None:
    archive = Archive(write_wheel(tmp_path / "tiny.whl", {"1_easy": easy_rows(74)}))
    with pytest.raises(TextError, match="task sae-probes:1_easy has 74 usable texts of a class, 75 are needed; leave"):
        _ = SuiteTask("1_easy", archive, 150).labelled
    for wrong in (Size, {"tasks": 0}), (Size, {"texts": 20}):
        with pytest.raises(SettingsError, match="were asked for; ask for"):
            wrong[0](**wrong[1])
