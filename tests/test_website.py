"""The documentation as a site: built with warnings as errors, whole, and without anything from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rational_sae
from rational_sae.metrics import METRICS
from rational_sae.report.rows import ROWS
from rational_sae.report.schema import Report
from rational_sae.upgrading.settings import Settings

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//""")
LINK = re.compile(r"""<a\b[^>]*?\bhref=["']?([^"'\s>]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    return out


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert [page.name for page in pages if LOADED.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    lost = []
    for page, text in pages.items():
        if page.name == "404.html":  # its links start at the root of whatever server shows it
            continue
        for link in set(LINK.findall(text)):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if re.match(r"\w+:", link):
                continue
            if not target.exists() or (anchor and target in pages and f'id="{anchor}"' not in pages[target]):
                lost.append(f"{page.name}: {link}")
    assert lost == []


@pytest.mark.slow
def test_the_reference_is_complete(site: Path) -> None:
    def text(name: str) -> str:
        return (site / name).read_text(encoding="utf-8")

    def missing(page: str, names: object) -> list[str]:
        return [name for name in names if name not in text(page)]  # type: ignore[attr-defined]

    public = [f'id="rational_sae.{name}"' for name in rational_sae.__all__ if name != "__version__"]
    assert missing("api.html", public) == []
    assert missing("settings.html", [f"<code>{name}</code>" for name in Settings.model_fields]) == []
    assert missing("report-json.html", [f"<code>{name}</code>" for name in Report.__annotations__]) == []
    assert missing("glossary.html", [f"<code>{name}</code>" for name in (*METRICS, *ROWS)]) == []
    assert missing("options.html", ["<code>--least-effect</code>", "rsae upgrade [TEACHER]"]) == []
