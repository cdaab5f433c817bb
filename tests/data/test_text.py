"""Documents and splits: each document in one split, in any order; damaged files refused in one line."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rational_sae.data.text import MAX_DOCUMENT_CHARACTERS, SPLIT_EDGES, Split, Text, block_size, blocks, open_text
from rational_sae.errors import TextError

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


def words(seed: int, count: int = 200) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def edited(document: list[str], seed: int, changes: int) -> list[str]:
    """The same with some words changed, others left out and others put in."""
    rng, found = random.Random(seed), list(document)
    for kind in range(changes):
        place = rng.randrange(len(found))
        if kind % 3 == 0:
            found[place] = "changed"
        elif kind % 3 == 1:
            del found[place]
        else:
            found.insert(place, "new")
    return found


def test_a_light_edit_of_an_earlier_document_is_in_no_split() -> None:
    """Of 300 documents and an edit of each, the documents are left, and no edit lies in any split."""
    first = [" ".join(words(seed)) for seed in range(300)]
    edits = [" ".join(edited(words(seed), seed, 6)) for seed in range(300)]
    text = text_of(first + edits)
    assert sorted(all_documents(text)) == sorted(first)
    assert text.warnings() == [
        "documents: 300 of 600 documents (50.0%) are copies or near-copies of earlier ones and were left out "
        "(0 exact, 300 near)"
    ]


def test_case_spacing_and_punctuation_do_not_hide_a_copy() -> None:
    document = "The council met on Monday, and nobody spoke of the harbour."
    assert all_documents(text_of([document, document.upper().replace(",", " –").replace(" ", "\n ")])) == [document]


def test_reports_on_one_template_are_documents_of_their_own() -> None:
    """The same words but for a name or a figure in every five or six."""
    rng = random.Random(0)

    def report() -> str:
        a, b, c, d, e, f = (f"x{rng.randrange(10**6)}" for _ in range(6))
        return (
            f"Shares of {a} closed at {b} dollars after the company said profit rose {c} percent, while analysts at "
            f"{d} had expected {e}. The stock has now gained {f} since January."
        )

    reports = [report() for _ in range(500)]
    assert sorted(all_documents(text_of(reports))) == sorted(reports)


def test_what_became_of_a_document_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import rational_sae.data.text as module

    calls: list[str] = []
    sketch = module.sketch
    monkeypatch.setattr(module, "sketch", lambda document: calls.append(document) or sketch(document))
    text = text_of(DOCUMENTS[:300])
    first = all_documents(text)
    assert all_documents(text) == first
    assert len(calls) == 300
    both = zip(text.documents("train"), text.documents("train"), strict=True)
    assert all(one == other for one, other in both), "two passes at once"


def test_a_stream_without_end_is_read_no_further_than_asked() -> None:
    def stream() -> Iterator[str]:
        yield from (f"endless document number {i}" for i in itertools.count())

    assert len(list(itertools.islice(Text("endless", stream).documents("test"), 20))) == 20


def test_splits_do_not_depend_on_the_order_of_documents() -> None:
    mixed, plain = text_of(random.Random(0).sample(DOCUMENTS, len(DOCUMENTS))), text_of(DOCUMENTS)
    for split in SPLITS:
        assert set(mixed.documents(split)) == set(plain.documents(split))


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


def test_pieces_of_a_long_document_are_one_document_of_one_split() -> None:
    long = " ".join(f"w{i}" for i in range(90_000))
    assert len(long) > 2 * MAX_DOCUMENT_CHARACTERS
    text = text_of([*DOCUMENTS[:200], long, *DOCUMENTS[200:400]])
    found: dict[Split, list[tuple[int, str]]] = {split: list(text.pieces(split)) for split in SPLITS}
    homes: list[Split] = [split for split in SPLITS if any(len(piece) > 1000 for _, piece in found[split])]
    (home,) = homes
    numbers = [number for number, piece in found[home] if len(piece) > 1000]
    assert len(numbers) == -(-len(long) // MAX_DOCUMENT_CHARACTERS) > 2
    assert len(set(numbers)) == 1
    everything = [number for number, _ in found[home]]
    assert everything == sorted(everything)
    assert len(set(everything)) == len(everything) - len(numbers) + 1
    mixed = dict(zip(range(10**6), text.pieces(home, seed=1), strict=False)).values()
    assert sorted(mixed) == sorted(found[home]), "shuffling keeps each piece with its document's number"


def test_a_file_of_a_folder_is_in_one_split(tmp_path: Path) -> None:
    for i in range(60):
        paragraphs = [f"file{i} paragraph{j} says something of its own here" for j in range(40)]
        (tmp_path / f"{i}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    text = open_text(str(tmp_path))
    found = {split: list(text.documents(split)) for split in SPLITS}
    assert sum(map(len, found.values())) == 60
    assert all(document.count("paragraph") == 40 for documents in found.values() for document in documents)
    assert text.warnings() == []


def test_a_long_txt_by_itself_is_read_in_blocks_of_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    paragraphs = [f"paragraph {i} " + " ".join(words(i, 80)) for i in range(4000)]
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    text = open_text(str(path))
    owner = {}
    for split in SPLITS:
        found = list(text.documents(split))
        assert found, f"no block in {split}"
        owner |= {paragraph: split for block in found for paragraph in block.split("\n\n")}
    assert list(owner) != paragraphs
    assert sorted(owner) == sorted(paragraphs), "no paragraph is cut or lost"
    parted = sum(owner[one] != owner[other] for one, other in pairwise(paragraphs))
    size = block_size(path.stat().st_size)
    assert parted <= path.stat().st_size / size, "neighbours are parted at edges of blocks alone"
    assert parted < 0.05 * len(paragraphs)
    (warning,) = text.warnings()
    assert f"{path} is one file: blocks of neighbouring paragraphs, of about {size} characters" in warning


def test_a_short_txt_splits_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\n\nfirst\nparagraph\n  \n\nsecond\n", encoding="utf-8")
    assert sorted(all_documents(open_text(str(path)))) == ["first\nparagraph", "second"]


def test_a_block_is_as_long_as_the_file_asks() -> None:
    assert block_size(0) == 1
    assert block_size(100_000) == 500, "two hundred blocks of a short file"
    assert block_size(500_000) == 2000, "blocks above what is evaluated of a document"
    assert block_size(10**7) == 25_000, "four hundred of a long one"
    assert block_size(10**10) == MAX_DOCUMENT_CHARACTERS // 2, "and never more than a document's piece"


@given(
    st.lists(st.lists(st.text("ab \t", min_size=1).filter(str.strip), min_size=1), max_size=6),
    st.integers(1, 3),
)
def test_paragraphs_come_back_whole(paragraphs: list[list[str]], blanks: int) -> None:
    text = "".join(line + "\n" for lines in paragraphs for line in [*lines, *([" "] * blanks)])
    whole = ["".join(line + "\n" for line in lines) for lines in paragraphs]
    assert [block.rstrip() for block in blocks(iter([text]), 1)] == [one.rstrip() for one in whole]


@given(st.text("ab \n"), st.integers(1, 40), st.integers(1, 7))
def test_blocks_are_the_text_whatever_the_parts(text: str, size: int, part: int) -> None:
    parts = iter([text[start : start + part] for start in range(0, len(text), part)])
    found = list(blocks(parts, size))
    assert "".join(found).split() == text.split()
    assert found == list(blocks(iter([text]), size))


@pytest.mark.parametrize("line", ["x" * 999 + "\n", "x" * 99 + " ", "x" * 100])
def test_a_paragraph_without_end_is_cut(line: str) -> None:
    size = 10_000
    found = list(blocks(iter([line] * 1000), size))
    assert "".join(found) == line * 1000
    assert max(map(len, found)) <= 2 * size
    assert all(block.endswith(line) for block in found)


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


def test_empty_and_null_texts_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl("", "  \n", "one") + '{"text": null}\n\n', encoding="utf-8")
    text = open_text(str(path))
    assert all_documents(text) == ["one"]
    assert text.warnings() == [f"{path}: 3 of 4 texts are empty or null and were passed over"]
    path.write_text("", encoding="utf-8")
    assert all_documents(open_text(str(path))) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "cut', "line 2 is not JSON ("),
        ('{"body": "x", "meta": {"lang": "en"}}', 'line 2 has no field "text"; its fields are: body, meta.lang'),
        ('["x"]', "line 2 is a list, not an object"),
        ("7", "line 2 is a number, not an object"),
        ("null", "line 2 is null, not an object"),
        ('{"text": 3}', 'line 2: "text" is a number, not a string'),
        ('{"text": true}', 'line 2: "text" is true, not a string'),
        ('{"text": {"en": "x"}}', 'line 2: "text" is an object with the fields en, not a string'),
        ("[" * 100_000, "line 2 is not JSON (RecursionError)"),
        ('{"text": "a\0b"}', "line 2, byte 28: 0x00"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_before_any_pass(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl("fine") + line + "\n", encoding="utf-8")
    with pytest.raises(TextError) as error:
        open_text(str(path))
    assert f"{path} {said}" in str(error.value)
    assert_one_line(error)


def test_damage_late_in_a_long_file_is_named_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rational_sae.data.text_files.CHECK_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl(*DOCUMENTS) + '{"text": "half of the la', encoding="utf-8")
    with pytest.raises(TextError, match="its last line is not JSON") as error:
        open_text(str(path))
    assert_one_line(error)
    path.write_text(jsonl(*DOCUMENTS[:9000]) + "{}\n" + jsonl(*DOCUMENTS[9000:]), encoding="utf-8")
    text = open_text(str(path))
    with pytest.raises(TextError, match='line 9001 has no field "text"'):
        all_documents(text)


WORDS = "Fünf Bäche — 五 naïve\nrows"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz"])
def test_encodings_are_read_by_their_marks(tmp_path: Path, encoding: str, name: str) -> None:
    mark = "" if encoding.startswith("utf-8") else "\ufeff"
    content = WORDS if name == "a.txt" else json.dumps({"text": WORDS}, ensure_ascii=False) + "\n"
    raw = (mark + content).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert all_documents(open_text(str(tmp_path))) == [WORDS]


def test_files_that_were_joined_keep_no_marks_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(jsonl(one).encode("utf-8-sig") for one in ("one", "two", "three")))
    assert sorted(all_documents(open_text(str(path)))) == ["one", "three", "two"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize(("before", "bad", "what"), [
    (b"", "é".encode("latin-1"), "0xe9 is not UTF-8"),
    ("".encode("utf-8-sig"), b"\x93", "0x93 is not UTF-8"),
    (b"", b"\0", "0x00"),
    ("\ufeff".encode("utf-16-be"), b"\xdc\x00", "0xdc is not UTF-16-BE"),
    ("\ufeff".encode("utf-16-le"), b"\x00\xdc", "0x00 is not UTF-16-LE"),
])  # fmt: skip
def test_other_bytes_are_refused_with_file_line_and_byte(
    tmp_path: Path, name: str, before: bytes, bad: bytes, what: str
) -> None:
    """The place is past the first part that is read, and counted by hand."""
    encoding = "utf-16-be" if before == b"\xfe\xff" else "utf-16-le" if before == b"\xff\xfe" else "utf-8"
    good = jsonl(*DOCUMENTS * 5) if "jsonl" in name else "\n".join(DOCUMENTS * 5) + "\n"
    head = before + (good + '{"text": "caf').encode(encoding)
    raw = head + bad + 'x"}\n'.encode(encoding)
    path = tmp_path / name
    path.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    with pytest.raises(TextError) as error:
        open_text(str(path))
    assert f"{path} line {5 * len(DOCUMENTS) + 1}, byte {len(head)}: {what}" in str(error.value)
    assert_one_line(error)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl("one"), encoding="utf-8")
    text = open_text(str(tmp_path))
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(TextError, match="cannot be read") as error:
        all_documents(text)
    assert_one_line(error)


def test_a_text_that_changes_between_two_passes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl(*DOCUMENTS[:50]), encoding="utf-8")
    text = open_text(str(path))
    assert len(all_documents(text)) == 50
    path.write_text(jsonl(*DOCUMENTS[:20], "another", *DOCUMENTS[21:50]), encoding="utf-8")
    with pytest.raises(TextError, match="changed while it was read, at document 21"):
        all_documents(text)


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


def test_a_name_that_is_too_long_is_a_missing_one() -> None:
    for name in ("x" * 5000, "hf:/" + "x" * 5000, "hf:~nobody-here/x" + "y" * 5000):
        with pytest.raises(TextError, match=r"there is no (text|folder)") as error:
            all_documents(open_text(name))
        assert_one_line(error)


def test_a_damaged_gz_with_foreign_bytes_before_the_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    rows = random.Random(0).sample(range(10**9), 20_000)
    whole = gzip.compress(jsonl("fine").encode() + b"\xff" + jsonl(*map(str, rows)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TextError) as error:
        open_text(str(path))
    assert f"{path} " in str(error.value)
    assert_one_line(error)


def test_other_kinds_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"no \.txt"):
        open_text(str(tmp_path))
    (tmp_path / "a.csv").write_text("x", encoding="utf-8")
    with pytest.raises(TextError, match=r"no \.txt"):
        open_text(str(tmp_path / "a.csv"))


def test_the_embedded_news_has_every_split(news: Text) -> None:
    counts = {split: sum(1 for _ in news.documents(split)) for split in SPLITS}
    assert sum(counts.values()) == 3773  # 3824 rows less 36 empty ones, 7 exact copies and 8 near ones
    assert min(counts.values()) > 100
    assert news.warnings() == [
        "news: 36 of 3824 texts are empty or null and were passed over",
        "news: 15 of 3788 documents (0.4%) are copies or near-copies of earlier ones and were left out "
        "(7 exact, 8 near)",
    ]
