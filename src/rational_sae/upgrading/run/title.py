"""What a job is called on its page: family, model and place, in words."""

from __future__ import annotations

import re
from pathlib import PurePath

from rational_sae.check.words import FAMILIES
from rational_sae.data.embedded import MODELS
from rational_sae.support.safe_text import redact

BLOCK = re.compile(r"(?:^|\.)(?:layers|blocks|h|block)\.(\d+)")
"""Number of a block, in the hook names of transformers and of TransformerLens."""


def title_of(family: str, model: str | None, hook: str | None) -> str:
    """A heading without a path.

    >>> title_of("topk", "smollm2", "model.layers.11")
    'TopK SAE · SmolLM2-135M-Instruct, block 11'
    >>> title_of("relu", "google/gemma-2-2b", "somewhere"), title_of("jumprelu", None, None)
    ('ReLU SAE · gemma-2-2b, somewhere', 'JumpReLU SAE')
    """
    found = BLOCK.search(hook or "")
    where = [model_words(model), f"block {found[1]}" if found else hook]
    place = ", ".join(part for part in where if part)
    return redact(f"{FAMILIES.get(family, family)} SAE{f' · {place}' if place else ''}")


def model_words(model: str | None) -> str:
    """An embedded model by its file, any other by the last part of its name."""
    if model in MODELS:
        return MODELS[model].filename.split(".")[0]
    return PurePath(model or "").name
