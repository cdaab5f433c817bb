"""Dialogues: rows of messages, rendered by the tokenizer's chat template, with the positions that count.

A dialogue travels as one document of JSON, so that splits, copies and intervals see dialogues and never parts of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from rational_sae.data.text_files import field_names, kind_of
from rational_sae.errors import HostError, TextError

Counted = Literal["assistant", "all"]
"""Which tokens of a dialogue count: those that the assistant says, or all, the template's own among them."""

ROLES = ("system", "user", "assistant", "tool")

LONGEST = 150_000
"""Characters of a dialogue that are read; later turns are left out."""


def dialogue_of(row: Mapping[str, Any], where: str) -> str:
    """The field `messages` of a row as JSON, empty where it has none. where: what messages call the row.

    Raises TextError if it is no list of {"role": …, "content": …}, or has a role that is not known.
    """
    if "messages" not in row:
        raise TextError(f'{where} has no field "messages"', f"its fields are: {field_names(row)}; or leave out --chat")
    messages = row["messages"]
    if messages is not None and not isinstance(messages, list):
        raise TextError(
            f'{where}: "messages" is {kind_of(messages)}, not a list', 'give {"role": …, "content": …} each'
        )
    kept: list[dict[str, str]] = []
    length = 0
    for number, one in enumerate(messages or (), 1):
        if (
            not isinstance(one, Mapping)
            or not isinstance(one.get("role"), str)
            or not isinstance(one.get("content"), str)
        ):
            raise TextError(
                f"{where}: message {number} has no role and content that are strings",
                'give {"role": "user", "content": "…"}',
            )
        if one["role"] not in ROLES:
            raise TextError(
                f"{where}: message {number} has the role {one['role'][:40]!r}", f"roles are: {', '.join(ROLES)}"
            )
        length += len(one["content"])
        if length > LONGEST:
            break
        kept.append({"role": one["role"], "content": one["content"].encode("utf-8", "replace").decode()})
    return json.dumps(kept, ensure_ascii=False) if kept else ""


def require_template(tokenizer: Any, name: str) -> None:
    """Raise HostError if a tokenizer cannot render dialogues, or cannot say which characters a token stands for."""
    if not getattr(tokenizer, "chat_template", None):
        raise HostError(
            f"the tokenizer of {name} has no chat template", "give the instruct model with --model, or leave out --chat"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise HostError(f"the tokenizer of {name} does not say where its tokens are", "install its fast tokenizer")


def rendered(tokenizer: Any, document: str, counted: Counted) -> tuple[list[int], list[bool]]:
    """Token ids of a dialogue, and which of them count. document: what `dialogue_of` gives.

    Raises TextError if the template refuses the dialogue, or does not render it turn by turn, so that who says a token
    cannot be told.
    """
    messages = json.loads(document)
    whole = _rendered(tokenizer, messages)
    found = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    if counted == "all":
        return found.input_ids, [True] * len(found.input_ids)
    spans = _said_by_assistant(tokenizer, messages, whole)
    inside = [
        any(start < end and first <= start < last for first, last in spans) for start, end in found.offset_mapping
    ]
    return found.input_ids, inside


def _said_by_assistant(tokenizer: Any, messages: list[dict[str, str]], whole: str) -> list[tuple[int, int]]:
    """Where in the text the assistant's turns are: from behind what prompts one to the end of it."""
    ends = [0] + [len(_rendered(tokenizer, messages[: i + 1], whole)) for i in range(len(messages) - 1)] + [len(whole)]
    spans = []
    for i, (message, (_, end)) in enumerate(zip(messages, pairwise(ends), strict=True)):
        if message["role"] == "assistant":
            prompt = _rendered(tokenizer, messages[:i], whole, prompted=True) if i else ""
            spans.append((len(prompt) if i else 0, end))
    return spans


def _rendered(
    tokenizer: Any, messages: list[dict[str, str]], whole: str | None = None, *, prompted: bool = False
) -> str:
    """As the template has it; it has to be the beginning of `whole`."""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompted)
    except Exception as error:  # a template raises what it likes, of jinja2 or through raise_exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TextError(
            f"the chat template refuses a dialogue ({reason})", "order its roles as the model asks"
        ) from error
    if whole is not None and not whole.startswith(text):
        raise TextError(
            "the chat template does not render a dialogue turn by turn, so the assistant's tokens cannot be told",
            "give --chat-tokens all",
        )
    return text
