"""What is hidden and what is spelled out; innocent text stays as it is."""

from __future__ import annotations

import json

import pytest

from rational_sae.errors import bounded
from rational_sae.support.safe_text import all_printable, json_text, name_of, printable, redact, redacted

TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"cannot open {TOKEN}: 401", "cannot open ***: 401"),
        (f"https://me:{TOKEN}@host/a.jsonl", "https://***@host/a.jsonl"),
        ("https://h/a?x=1&X-Amz-Signature=abc&y=2", "https://h/a?x=1&***&y=2"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("ghp_" + "a1" * 18, "***"),
    ],
)
def test_tokens_are_hidden(text: str, hidden: str) -> None:
    assert redact(text) == hidden


@pytest.mark.parametrize("text", ["runs/hf_small/sae", "hf:wikitext:train", "keys=3", "a@b", "bearers of news", ""])
def test_innocent_text_stays(text: str) -> None:
    assert redact(text) == printable(text) == text


def test_secrets_of_the_environment_are_hidden_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("MY_TOKEN", "short")
    assert redacted({"a": ["x 0123456789abcdef y", 3], "b": None}) == {"a": ["x *** y", 3], "b": None}
    assert redact("a short text") == "a short text"


def test_control_characters_are_spelled_out() -> None:
    assert printable("a\x1b[2Jb\u202ec\rd\te\n") == "a\\x1b[2Jb\\u202ec\\rd\te\n"


@pytest.mark.parametrize("hidden", ["\u200b", "\u200f", "\u061c", "\ufeff", "\u00ad", "\u2028", "\U000e0041", "\udc80"])
def test_characters_without_a_shape_are_spelled_out(hidden: str) -> None:
    assert printable(f"a{hidden}b") == f"a{hidden.encode('unicode_escape').decode()}b"
    assert all_printable({hidden: [hidden, 1, None]}) == {printable(hidden): [printable(hidden), 1, None]}
    assert hidden not in json_text([hidden])
    assert json.loads(json_text([hidden, "é"])) == [hidden, "é"]
    assert "é" in json_text("é")


def test_a_name_is_one_short_line() -> None:
    assert name_of("a\tb\nc") == "a\\tb\\nc"
    assert 290 < len(name_of("x" * 5000)) <= 300


def test_a_bounded_text_keeps_its_head_and_its_tail() -> None:
    text = "head " + "x" * 10**6 + " tail"
    assert bounded(text, 60).startswith("head xx")
    assert bounded(text, 60).endswith("xx tail")
    assert len(bounded(text, 60)) <= 60
    assert bounded("short", 60) == "short"
    assert bounded("a \n b\u2028c", 60) == "a b c"
