"""What is hidden and what is spelled out; innocent text stays as it is."""

from __future__ import annotations

import pytest

from rational_sae.safe_text import printable, redact, redacted

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
