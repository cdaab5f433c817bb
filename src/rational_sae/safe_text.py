"""Text that may have come from anywhere, made fit for logs and terminals."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

SECRETS = re.compile(
    r"""hf_[A-Za-z0-9]{8,}                                  # Hugging Face
      | gh[pousr]_[A-Za-z0-9]{16,}                          # GitHub
      | (?<=://)[^/@\s]+(?=@)                               # user:password@ in a URL
      | (?<=bearer\s)\S+
      | (?<=[?&])(?:[\w-]*(?:token|key|secret|signature|password|credential)[\w-]*=)[^&\s]+
    """,
    re.IGNORECASE | re.VERBOSE,
)

NAMES = re.compile(r"(TOKEN|API_KEY|SECRET|PASSWORD)$")
"""Endings of environment variables whose values are secret."""

SHORTEST = 8
"""A shorter value of such a variable is no secret, and would blank out innocent text."""

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves a cursor, changes colours or turns the reading direction: all but tab and line feed."""


def redact(text: str) -> str:
    """The text with access tokens, passwords in URLs, and secrets of this environment replaced by ***."""
    for name, value in os.environ.items():
        if NAMES.search(name.upper()) and len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    return SECRETS.sub(HIDDEN, text)


def redacted(value: Any) -> Any:
    """The same for every string in dictionaries and lists, keys too."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redacted(key): redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(redacted, value))
    return value


def printable(text: str) -> str:
    """The text without what could drive a terminal; such characters are spelled out.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
