"""Panels: listed once, independent of each other, and one file is enough for a new one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rational_sae.report import panels, render
from rational_sae.report.panels import PANELS, Content, Panel
from rational_sae.report.panels.panel import facts

TOY = Panel(
    "toy",
    "A <toy>",
    "<p>{{ words }}</p>\n{{ show.facts_table('Rows', rows) }}\n",
    lambda report: Content({"words": "<b>", "rows": [(name, "1") for name in report["rows"]]}, metrics=["kl"]),
)


def sections(html: str) -> list[str]:
    return re.findall(r'<h2 id="([^"]+)">', html)


def test_every_file_is_listed_once() -> None:
    files = {path.stem for path in Path(str(panels.__file__)).parent.glob("*.py")} - {"__init__", "panel"}
    assert len(files) == len(PANELS) == len({panel.name for panel in PANELS})


def test_the_page_walks_the_list(everything: dict[str, Any]) -> None:
    assert sections(render(everything)) == [*(panel.name for panel in PANELS), "glossary"]


def test_a_new_panel_is_one_object(minimal: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "PANELS", [TOY, *PANELS])
    html = render(minimal)
    assert sections(html) == ["toy", "results", "glossary"]
    assert '<h2 id="toy">A &lt;toy&gt;</h2>\n<p>&lt;b&gt;</p>\n' in html
    assert '<tr><th scope="row">teacher</th><td>1</td></tr>' in html
    assert "<dt>KL <code>kl</code></dt>" in html


def test_panels_do_not_need_each_other(everything: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render(everything)
    for panel in PANELS:
        monkeypatch.setattr(panels, "PANELS", [panel])
        alone = render(everything)
        assert sections(alone)[0] == panel.name
        pattern = re.compile(rf'<section aria-labelledby="{panel.name}">.*?</section>', re.DOTALL)
        ours, theirs = pattern.search(alone), pattern.search(whole)
        assert ours
        assert theirs
        assert ours[0] == theirs[0]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_nothing_to_show_is_nothing(panel: Panel) -> None:
    empty: Mapping[str, Any] = {"rows": {}}
    assert panel.content(empty) is None


def test_facts_are_flat_and_have_their_unit() -> None:
    assert facts({"a": {"b": 1.5, "c": None}, "d": True}) == [("a.b", "1.5"), ("a.c", "–"), ("d", "yes")]
    assert facts({"fit": 2.0, "load": None}, unit=" s") == [("fit", "2 s"), ("load", "–")]
