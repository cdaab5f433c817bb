"""Rebuild src/rational_sae/data/model_names.json from the installed TransformerLens: its names and the hub's ids.

    make model-names

Only names are taken. tests/data/test_hook_names.py compares the file with the registry of the version that it states.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "src" / "rational_sae" / "data" / "model_names.json"


def main() -> None:
    TARGET.write_text(json.dumps(registry(), indent=1) + "\n", encoding="utf-8")


def registry() -> dict[str, Any]:
    """The version, and every name in lower case that is not its own hub id."""
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    names = {alias.lower(): name for name in OFFICIAL_MODEL_NAMES for alias in MODEL_ALIASES.get(name, [])}
    return {"transformer_lens": version("transformer-lens"), "names": dict(sorted(names.items()))}


if __name__ == "__main__":
    main()
