"""Names of hub data sets, and rows of local folders in the hub's layout, read by the hub's own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rational_sae.data.hub_rows import HubName, parse
from rational_sae.data.text import SPLIT_EDGES, open_text
from rational_sae.errors import TextError

CARD = """---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/train.jsonl
  - split: test
    path: en/other.jsonl
- config_name: de
  data_files:
  - split: train
    path: german.jsonl
---
"""


def write(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A data set with two configurations."""
    folder = tmp_path / "someone" / "ds"
    write(folder / "en" / "train.jsonl", {"text": "one"}, {"text": None}, {"text": "two"})
    write(folder / "en" / "other.jsonl", {"text": "three"})
    write(folder / "german.jsonl", {"text": "eins", "meta": {"id": 1}})
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def documents(name: str) -> list[str]:
    text = open_text(name)
    return sorted(document for split in SPLIT_EDGES for document in text.documents(split))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf:imdb", ("imdb", None, "train")),
        ("hf:owner/name", ("owner/name", None, "train")),
        ("hf:owner/name:test", ("owner/name", None, "test")),
        ("hf:owner/name/20231101.en", ("owner/name", "20231101.en", "train")),
        ("hf:owner/name/config:validation", ("owner/name", "config", "validation")),
    ],
)
def test_the_first_two_parts_are_always_the_owner_and_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parts: tuple[str, str | None, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(name) == HubName(*parts)
    (tmp_path / "owner").mkdir()  # a folder of that name does not turn `name` into a configuration
    assert parse(name) == HubName(*parts)


def test_a_folder_is_one_that_exists(several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(f"hf:{several}") == HubName(str(several), None, "train")
    assert parse(f"hf:{several}/de:test") == HubName(str(several), "de", "test")
    assert parse(f"hf:{several}/en") == HubName(str(several), "en", "train"), "although there is a folder en"
    monkeypatch.chdir(several.parent.parent)
    assert parse("hf:someone/ds") == HubName("someone/ds", None, "train")
    assert parse("hf:someone/ds/de") == HubName("someone/ds", "de", "train")
    assert parse("hf:./someone/ds/de") == HubName("someone/ds", "de", "train")


@pytest.mark.parametrize("name", ["hf:", "hf:/", "hf::train", "hf:owner/name:", "hf:/nowhere/at/all"])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(TextError) as error:
        parse(name)
    assert error.value.remedy


def test_a_folder_that_looks_like_an_owner_is_told_how_to_be_named(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.chdir(several.parent)
    with pytest.raises(TextError, match=r"cannot open the data set ds/de .* write hf:\./ds/de for the folder ds here"):
        documents("hf:ds/de")
    assert documents("hf:./ds/de") == ["eins"]


def test_a_mistyped_folder_has_nothing_beside_it_searched(tmp_path: Path) -> None:
    write(tmp_path / "other.jsonl", {"text": "one"})
    for name in (f"hf:{tmp_path}/mistyped", f"hf:{tmp_path}/mistyped:test", "hf:/mistyped", "hf:./mistyped"):
        with pytest.raises(TextError, match=r"there is no folder .*mistyped; check the path"):
            parse(name)


def test_a_configuration_and_a_split_are_read(several: Path) -> None:
    pytest.importorskip("datasets")
    assert documents(f"hf:{several}/en") == ["one", "two"]
    assert documents(f"hf:{several}/en:test") == ["three"]
    assert documents(f"hf:{several}/de:train") == ["eins"]
    text = open_text(f"hf:{several}/en")
    list(text.documents("train"))
    assert text.warnings() == [f"hf:{several}/en: 1 of 3 texts are empty or null and were passed over"]


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("", "has several configurations; give hf:{ds}/CONFIG with one of: en, de"),
        ("/fr", "has no configuration fr; give one of: en, de"),
        ("/de:test", "has no split test; after the last colon give one of: train"),
        ("/en:train[:10]", "has no split train[:10]; after the last colon give one of: train, test"),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(several: Path, rest: str, said: str) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(TextError) as error:
        documents(f"hf:{several}{rest}")
    assert said.format(ds=several) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "one"}, {"text": 5}], 'row 2: "text" is a number, not a string'),
        ([{"body": "one", "meta": {"lang": "en"}}], 'row 1 has no field "text"; its fields are: body, meta.lang'),
        ([{"text": ["one"]}], 'row 1: "text" is a list, not a string'),
        ([{"text": {"en": "one"}}], 'row 1: "text" is an object with the fields en, not a string'),
    ],
)
def test_a_row_without_a_text_is_refused_with_its_number(tmp_path: Path, rows: list[Any], said: str) -> None:
    pytest.importorskip("datasets")
    write(tmp_path / "train.jsonl", *rows)
    with pytest.raises(TextError) as error:
        documents(f"hf:{tmp_path}")
    assert said in str(error.value)


def test_damage_in_a_file_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n{"text": "cut"\n', encoding="utf-8")
    with pytest.raises(TextError, match="cannot be read after row 0") as error:
        documents(f"hf:{tmp_path}")
    assert "\n" not in str(error.value)
