"""Text that may have come from anywhere, made fit for logs and terminals."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from rational_sae.errors import bounded

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

LONGEST_NAME = 300
"""Characters of a name where it is shown. Names come from files that others made."""

SHORTEST = 8
"""A shorter value of such a variable is no secret, and would blank out innocent text."""

CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # all but tab and line feed
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # turn the reading direction, or end a line
    "\u00ad\u180e\u200b-\u200d\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # show nothing
    "\ud800-\udfff]"  # no characters: bytes of a file name that are not UTF-8
)
"""What moves a cursor, changes colours, turns the reading direction or hides."""


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


def all_printable(value: Any) -> Any:
    """The same for every string in dictionaries and lists, keys too."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {all_printable(key): all_printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(all_printable, value))
    return value


def name_of(text: str) -> str:
    """A name on one line of a bounded length, without what could drive a terminal. Line feeds and tabs are spelled out.

    >>> name_of("a\\nb")
    'a\\\\nb'
    """
    return bounded(printable(text.replace("\n", "\\n").replace("\t", "\\t")), LONGEST_NAME)


def json_text(value: Any, **options: Any) -> str:
    """JSON in which such characters are escaped, so that a file shown in a terminal drives nothing; read back, it holds
    what it was given. Other characters stay as they are."""
    text = json.dumps(value, ensure_ascii=False, **options)
    return CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1], text)
