"""Documents and splits: each document in one split, in any order; damaged files refused in one line."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rational_sae.errors import TextError
from rational_sae.text import MAX_DOCUMENT_CHARACTERS, SPLIT_EDGES, Split, Text, _paragraphs, open_text

SPLITS: tuple[Split, ...] = tuple(SPLIT_EDGES)
DOCUMENTS = [f"document number {i}" for i in range(10_000)]


def text_of(documents: list[str]) -> Text:
    return Text("documents", lambda: iter(documents))


def all_documents(text: Text) -> list[str]:
    return [document for split in SPLITS for document in text.documents(split)]


def jsonl(*documents: str) -> str:
    return "".join(json.dumps({"text": document}) + "\n" for document in documents)


def assert_one_line(error: pytest.ExceptionInfo[TextError]) -> None:
    assert "\n" not in str(error.value)
    assert error.value.remedy


def test_the_edges_tile_the_whole_range() -> None:
    edges = list(SPLIT_EDGES.values())
    assert edges[0][0] == 0.0
    assert edges[-1][1] == 1.0
    assert all(left[1] == right[0] for left, right in pairwise(edges))


def test_splits_are_disjoint_and_cover_the_text_with_the_stated_shares() -> None:
    text = text_of(DOCUMENTS)
    assert sorted(all_documents(text)) == sorted(DOCUMENTS)
    for split, (low, high) in SPLIT_EDGES.items():
        share = len(list(text.documents(split))) / len(DOCUMENTS)
        assert share == pytest.approx(high - low, abs=0.015)  # three standard deviations of a binomial


def test_exact_copies_count_once_and_in_one_split() -> None:
    assert sorted(all_documents(text_of(["one", " one\n", "two", "one"]))) == ["one", "two"]


def test_splits_do_not_depend_on_the_order_of_documents() -> None:
    mixed = random.Random(0).sample(DOCUMENTS, len(DOCUMENTS))
    for split in SPLITS:
        assert set(text_of(mixed).documents(split)) == set(text_of(DOCUMENTS).documents(split))


def test_a_seed_only_changes_the_order() -> None:
    text = text_of(DOCUMENTS)
    plain = list(text.documents("train"))
    first, again, other = (list(text.documents("train", seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first != plain
    assert sorted(first) == sorted(plain)


def test_a_long_document_is_read_as_several() -> None:
    pieces = all_documents(text_of(["a" * MAX_DOCUMENT_CHARACTERS + "b"]))
    assert sorted(map(len, pieces)) == [1, MAX_DOCUMENT_CHARACTERS]


def test_a_txt_file_splits_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\n\nfirst\nparagraph\n  \n\nsecond\n", encoding="utf-8")
    assert sorted(all_documents(open_text(str(path)))) == ["first\nparagraph", "second"]


@given(
    st.lists(st.lists(st.text("ab \t", min_size=1).filter(str.strip), min_size=1), max_size=6),
    st.integers(1, 3),
)
def test_paragraphs_come_back_whole(paragraphs: list[list[str]], blanks: int) -> None:
    lines: Iterator[str] = iter(
        [line + "\n" for lines in paragraphs for line in [*lines, *([" "] * blanks)]],
    )
    assert list(_paragraphs(lines)) == ["".join(line + "\n" for line in lines) for lines in paragraphs]


def test_a_paragraph_without_end_is_closed_at_the_limit() -> None:
    line = "x" * 999 + "\n"
    parts = list(_paragraphs(iter([line] * 1000)))
    assert "".join(parts) == line * 1000
    assert max(map(len, parts)) <= MAX_DOCUMENT_CHARACTERS


def test_jsonl_plain_and_compressed_and_a_folder_of_them(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.jsonl").write_text(jsonl("one", "two") + "\n", encoding="utf-8")
    with gzip.open(tmp_path / "deep" / "b.jsonl.gz", "wt", encoding="utf-8") as out:
        out.write(jsonl("three", "one"))
    (tmp_path / "c.txt").write_text("four", encoding="utf-8")
    (tmp_path / "ignored.csv").write_text("five", encoding="utf-8")
    (tmp_path / "folder.txt").mkdir()
    assert sorted(all_documents(open_text(str(tmp_path / "a.jsonl")))) == ["one", "two"]
    assert sorted(all_documents(open_text(str(tmp_path / "deep" / "b.jsonl.gz")))) == ["one", "three"]
    assert sorted(all_documents(open_text(str(tmp_path)))) == ["four", "one", "three", "two"]


def test_empty_documents_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl("", "  \n", "one"), encoding="utf-8")
    assert all_documents(open_text(str(path))) == ["one"]
    path.write_text("", encoding="utf-8")
    assert all_documents(open_text(str(path))) == []


@pytest.mark.parametrize("line", ['{"text": "cut', '{"body": "x"}', '["x"]', '{"text": 3}', '{"text": null}', "7"])
def test_a_bad_line_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl("fine") + line + "\n", encoding="utf-8")
    with pytest.raises(TextError, match="line 2") as error:
        all_documents(open_text(str(path)))
    assert_one_line(error)


def test_a_jsonl_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "café"}\n'.encode("latin-1"))
    with pytest.raises(TextError, match="damaged") as error:
        all_documents(open_text(str(path)))
    assert_one_line(error)


def test_a_lone_surrogate_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\\ud800b"}\n', encoding="utf-8")
    assert all_documents(open_text(str(path))) == ["a?b"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "not gzip"])
def test_a_damaged_gz_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = bytearray(gzip.compress(jsonl(*DOCUMENTS).encode()))
    if damage == "truncated":
        whole = whole[: len(whole) // 2]
    elif damage == "flipped":
        whole[len(whole) // 2 :] = bytes(byte ^ 0xFF for byte in whole[len(whole) // 2 :])
    else:
        whole = bytearray(b"plain text")
    path.write_bytes(whole)
    with pytest.raises(TextError) as error:
        all_documents(open_text(str(path)))
    assert_one_line(error)
    assert path.name in str(error.value)


def test_a_missing_path_is_refused_naming_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="there is no text") as error:
        open_text(str(tmp_path / "absent.txt"))
    assert "news" in str(error.value)
    assert_one_line(error)


def test_other_kinds_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"no \.txt"):
        open_text(str(tmp_path))
    (tmp_path / "a.csv").write_text("x", encoding="utf-8")
    with pytest.raises(TextError, match=r"no \.txt"):
        open_text(str(tmp_path / "a.csv"))


def test_the_embedded_news_has_every_split(news: Text) -> None:
    counts = {split: sum(1 for _ in news.documents(split)) for split in SPLITS}
    assert sum(counts.values()) == 3781  # 3824 rows less 36 empty ones and exact copies
    assert min(counts.values()) > 100
