"""TransformerLens' names of language models, such as `gpt2-small`, as ids on the Hugging Face hub.

SAELens stores them as `model_name`. They lie in model_names.json, written by docs/model_names.py from TransformerLens'
own registry, whose version it states.
"""

from __future__ import annotations

import functools
import json
from importlib import resources

OTHERS = {"google/gemma-3-270m-pt": "google/gemma-3-270m", "gemma-3-270m-pt": "google/gemma-3-270m"}
"""Names that Gemma Scope 2's configs have and no registry; they also write gemma-v3 for gemma-3."""


def hub_id(name: str) -> str:
    """The hub id of a name; any other name unchanged. As in TransformerLens, upper and lower case are one."""
    lower = name.lower().replace("gemma-v3-", "gemma-3-")
    return OTHERS.get(lower) or _names().get(lower, name)


@functools.cache
def _names() -> dict[str, str]:
    stored = resources.files("rational_sae.data").joinpath("model_names.json").read_text(encoding="utf-8")
    return json.loads(stored)["names"]
