"""Labelled texts: copies go, ambiguous texts go, and what cannot be a task is refused in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rational_sae.errors import TextError
from rational_sae.evaluation.tasks import EMBEDDED_TASKS, open_task, plain_spacing, same_text_key

ROWS = [("spam", "Call 0800 111 now!"), ("ham", "See you at lunch"), ("ham", "On my way")]


def write(path: Path, rows: list[tuple[Any, Any]]) -> str:
    path.write_text("\n".join(json.dumps({"label": label, "text": text}) for label, text in rows) + "\n\n")
    return str(path)


def test_a_jsonl_file_gives_its_texts_by_label_in_alphabetical_order(tmp_path: Path) -> None:
    task = open_task(write(tmp_path / "task.jsonl", ROWS))
    assert task.texts == {"ham": ["See you at lunch", "On my way"], "spam": ["Call 0800 111 now!"]}
    assert task.classes == ["ham", "spam"]
    assert task.dropped == 0


def test_a_gzipped_file_and_whole_numbers_as_labels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "yes", "label": 1}\n{"text": "no", "label": 0}\n'))
    assert open_task(str(path)).texts == {"0": ["no"], "1": ["yes"]}


def test_copies_are_kept_once_and_a_text_under_two_labels_not_at_all(tmp_path: Path) -> None:
    rows = [*ROWS, ("spam", "call 0900 222 NOW"), ("spam", "on my way!!"), ("spam", "  "), ("spam", "Win a prize")]
    task = open_task(write(tmp_path / "task.jsonl", rows))
    assert task.texts == {"ham": ["See you at lunch"], "spam": ["Call 0800 111 now!", "Win a prize"]}
    assert task.dropped == 4


def test_one_label_is_refused_with_the_count(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"has only the label 'ham' \(2 rows\); a probe needs texts of two labels"):
        open_task(write(tmp_path / "task.jsonl", ROWS[1:]))
    with pytest.raises(TextError, match=r"has no text \(0 rows\)"):
        open_task(write(tmp_path / "empty.jsonl", []))


@pytest.mark.parametrize("row", [("ham", 3), (0.5, "text"), (None, "text"), (["a"], "text")])
def test_a_row_of_another_type_is_refused_with_its_line(tmp_path: Path, row: tuple[Any, Any]) -> None:
    with pytest.raises(TextError, match=r'line 4: "text" must be a string and "label" a string or a whole number'):
        open_task(write(tmp_path / "task.jsonl", [*ROWS, row]))


def test_a_null_text_is_dropped_and_a_mark_read(tmp_path: Path) -> None:
    path = write(tmp_path / "task.jsonl", [*ROWS, ("ham", None)])
    whole = open_task(write(tmp_path / "whole.jsonl", ROWS))
    Path(path).write_bytes(b"\xef\xbb\xbf" + Path(path).read_bytes())
    task = open_task(path)
    assert task.texts == whole.texts
    assert task.dropped == whole.dropped + 1


def test_a_missing_field_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text('{"text": "no label"}\n')
    with pytest.raises(TextError, match='line 1 is not a JSON object with fields "text" and "label"'):
        open_task(str(path))
    with pytest.raises(TextError, match=r"there is no task nowhere; .* question-type"):
        open_task("nowhere")


def test_a_hub_data_set_is_read_through_its_own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "someone" / "set").mkdir(parents=True)
    write(tmp_path / "someone" / "set" / "train.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)  # the library takes a folder of that name for the data set
    assert open_task("hf:someone/set").texts["ham"] == ["See you at lunch", "On my way"]
    with pytest.raises(TextError, match="cannot open the data set someone/other"):
        open_task("hf:someone/other")


@pytest.mark.parametrize(
    ("name", "classes", "fewest"),
    [
        ("question-type", ["DESC", "ENTY", "HUM", "LOC", "NUM"], 800),
        ("movie-sentiment", ["negative", "positive"], 4900),
        ("sms-spam", ["ham", "spam"], 500),
        ("language", ["de", "en", "es", "nl"], 900),
    ],
)
def test_the_embedded_tasks_hold_distinct_texts_of_known_classes(name: str, classes: list[str], fewest: int) -> None:
    task = open_task(name)
    assert name in EMBEDDED_TASKS
    assert task.classes == classes
    assert min(map(len, task.texts.values())) >= fewest
    keys = [same_text_key(text) for texts in task.texts.values() for text in texts]
    assert len(set(keys)) == len(keys), "a text could be on both sides of a split"


def test_punctuation_spacing_does_not_give_a_language_away() -> None:
    texts = open_task("language").texts
    spaced = {name: sum(" !" in t or " ." in t or " ," in t for t in own) / len(own) for name, own in texts.items()}
    assert set(spaced.values()) == {0.0}
    assert plain_spacing("„So ,  ja !“") == '"So, ja!"'
