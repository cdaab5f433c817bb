"""The table of docs/formats.md is the one that the parity tests' cases give."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("docs_formats", ROOT / "docs" / "formats.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert module.with_table(page) == page, "run: make docs-formats"
    assert "| Gemma Scope (`params.npz`) |" in page
