"""The page in a real browser, opened from a file: it works, asks for nothing, and takes hostile text for text."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import HOSTILE, Browser, require_chromium

from rational_sae.report import render, render_sweep

pytestmark = pytest.mark.slow

SHOWN = "[...document.querySelectorAll('#latents > li')].map(one => Number(one.id.slice('latent-'.length)))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require_chromium()
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


RESULTS = "[...document.querySelectorAll('table')].find(one => one.tHead?.rows[0].cells[2]?.textContent === 'FVU')"
"""The table of all figures: what each part gave stands in one before."""


def column(browser: Browser, place: int) -> list[str]:
    """The texts of one column of the results, without intervals."""
    cells = f"[...{RESULTS}.tBodies[0].rows].map(row => row.cells[{place}].firstChild.textContent)"
    return [text.strip() for text in browser.run(cells)]


def type_in(browser: Browser, name: str, value: str) -> None:
    """As a person would, so that the page hears of it."""
    browser.driver.execute_script(
        "const one = document.getElementById('browser').elements[arguments[0]]; one.value = arguments[1];"
        "one.dispatchEvent(new Event('input', {bubbles: true}));",
        name,
        value,
    )


def test_500_features_load_small_quietly_and_from_nowhere_else(
    browser: Browser, everything: dict[str, Any], tmp_path: Path
) -> None:
    html = render(everything)
    assert len(html.encode()) < 6_000_000
    browser.open(html, tmp_path / "report.html")
    assert browser.complaints() == []
    assert browser.requests() == [(tmp_path / "report.html").as_uri()]
    assert len(browser.run("[...document.querySelectorAll('svg.marks')].map(one => one.id)")) == 15
    assert browser.run("document.getElementById('found').textContent") == "500 of 500 latents, 10 shown."


def test_a_script_that_is_not_the_pages_own_does_not_run(
    browser: Browser, several: dict[str, Any], tmp_path: Path
) -> None:
    html = render(several).replace("</main>", "<script>window.ran = true</script></main>")
    browser.open(html, tmp_path / "report.html")
    assert browser.run("window.ran === undefined")
    assert "Content Security Policy" in " ".join(browser.complaints())


def test_a_heading_sorts_up_then_down_and_what_was_not_measured_stays_last(
    browser: Browser, full: dict[str, Any], tmp_path: Path
) -> None:
    full["rows"]["mine"] = {"l0": 1.0}
    browser.open(render(full), tmp_path / "report.html")
    heading = f"{RESULTS}.tHead.rows[0].cells[2]"
    assert browser.run(f"{heading}.textContent") == "FVU"
    click = f"{heading}.querySelector('button').click()"
    before = column(browser, 0)
    browser.run(click)
    up = column(browser, 2)
    assert up[-1] == "–"
    assert [float(text) for text in up[:-1]] == sorted(float(text) for text in up[:-1])
    assert browser.run(f"{heading}.getAttribute('aria-sort')") == "ascending"
    browser.run(click)
    assert column(browser, 2) == [*reversed(up[:-1]), "–"]
    browser.run(f"{RESULTS}.tHead.querySelector('button').click()")
    assert column(browser, 0) == before


def test_the_feature_browser_searches_filters_sorts_and_shows_more(
    browser: Browser, several: dict[str, Any], tmp_path: Path
) -> None:
    latents = several["features"]["latents"]
    needle, other = latents[40], latents[30]
    needle["examples"]["rsae" if needle["examples"]["rsae"] else "teacher"] = [
        {"tokens": ["un", "believ", "ABLY"], "values": [0.0, 2.0, 0.0], "peak": 1}
    ]
    browser.open(render(several), tmp_path / "report.html")

    def best(key: Any, *, reverse: bool = False) -> list[int]:
        known = [one for one in latents if key(one) is not None]
        return [one["latent"] for one in sorted(known, key=key, reverse=reverse)[:10]]

    def density(latent: dict[str, Any]) -> float:
        return max(latent["density"].values())

    assert browser.run(SHOWN) == best(lambda one: one["change"], reverse=True)
    for order, key, reverse in (
        ("change-up", lambda one: one["change"], False),
        ("density-down", density, True),
        ("correlation-up", lambda one: one["correlation"], False),
        ("latent-up", lambda one: one["latent"], False),
    ):
        type_in(browser, "order", order)
        assert browser.run(SHOWN) == best(key, reverse=reverse), order
    browser.run("document.getElementById('more').click()")
    assert len(browser.run(SHOWN)) == 20
    type_in(browser, "words", "unbelievably")  # across tokens, whatever the case
    assert browser.run(SHOWN) == [needle["latent"]]
    type_in(browser, "words", f"#{other['latent']}")
    assert browser.run(SHOWN) == [other["latent"]]
    type_in(browser, "words", "no such words")
    assert browser.run(SHOWN) == []
    assert browser.run("document.getElementById('found').textContent") == "0 of 60 latents."
    type_in(browser, "words", "")
    type_in(browser, "status", "newly_dead")
    while browser.run("!document.getElementById('more').hidden"):
        browser.run("document.getElementById('more').click()")
    wanted = sorted(one["latent"] for one in latents if one["status"] == "newly_dead")
    assert browser.run(SHOWN) == wanted


def test_an_example_is_coloured_by_its_values_and_a_link_leads_to_a_latent(
    browser: Browser, several: dict[str, Any], tmp_path: Path
) -> None:
    latent = several["features"]["latents"][50]
    latent.update(
        examples={"teacher": [{"tokens": ["a", "b\n", "c"], "values": [0.0, 4.0, -1.0], "peak": 1}], "rsae": []}
    )
    browser.open(render(several), tmp_path / "report.html")
    browser.run(f"location.hash = 'latent-{latent['latent']}'")
    browser.wait(f"document.querySelector('#latent-{latent['latent']}')")
    spans = browser.run(
        f"[...document.querySelectorAll('#latent-{latent['latent']} .tokens span')]"
        ".map(one => [one.textContent, one.className, one.style.getPropertyValue('--share'), one.title])"
    )
    assert spans == [["a", "", "", ""], ["b⏎", "peak active", "1.000", "4"], ["c", "negative", "0.250", "-1"]]
    assert "never active" in browser.run(f"document.querySelector('#latent-{latent['latent']}').textContent")


def test_hostile_tokens_and_names_are_inert(browser: Browser, several: dict[str, Any], tmp_path: Path) -> None:
    several.update(title=HOSTILE, verdict=HOSTILE, warnings=[HOSTILE])
    several["rows"][HOSTILE] = dict(several["rows"]["teacher"])
    several["differences"][f"rsae - {HOSTILE}"] = dict(several["differences"]["rsae - teacher"])
    several["probing"]["tasks"][HOSTILE] = several["probing"]["tasks"]["sentiment"]
    several["suite"]["tasks"][HOSTILE] = several["suite"]["tasks"]["3_task"]
    several["suite"]["left_out"] = {HOSTILE: HOSTILE}
    several["absorption"][HOSTILE] = {HOSTILE: 1.0}
    features = several["features"]
    features["rows"] = ["teacher", HOSTILE]
    features["summary"][HOSTILE] = HOSTILE
    tokens = [HOSTILE, "<!--", "<script>", "</script>", "\u202e", "__proto__", "&lt;"]
    for latent in features["latents"]:
        example = {"tokens": tokens, "values": [1.0] * len(tokens), "peak": 0}
        latent["examples"] = {"teacher": [example], HOSTILE: [example]}
        latent["density"] = {"teacher": 0.1, HOSTILE: 0.2}
    browser.open(render(several), tmp_path / "<img src=x onerror=alert(1)>&#?" / "report.html")
    assert browser.complaints() == []
    assert len(browser.requests()) == 1
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0
    assert browser.run("document.querySelector('h1').textContent") == HOSTILE
    assert browser.run("document.querySelector('.tokens span').textContent") == HOSTILE
    type_in(browser, "words", "</script><img")
    assert len(browser.run(SHOWN)) == 10


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(
    browser: Browser, several: dict[str, Any], tmp_path: Path, width: int
) -> None:
    long = "runs/" + "a_very_long_name_without_a_break" * 6
    several.update(title=long)
    several["rows"][long] = dict(several["rows"]["teacher"])
    several["features"]["latents"][0]["examples"]["teacher"] = [
        {"tokens": ["x" * 300, "\t" * 60], "values": [1.0, 2.0], "peak": 0}
    ]
    browser.open(render(several), tmp_path / "report.html", width)
    assert browser.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(
    browser: Browser, several: dict[str, Any], tmp_path: Path, scheme: str
) -> None:
    """Contrast of 4.5 and more (WCAG 2.2, AA) for text, the darkest token and the charts' labels."""
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    browser.open(render(several), tmp_path / "report.html")
    paper = rgb(browser.run("getComputedStyle(document.body).backgroundColor"))
    for selector, key in (("p", "color"), (".aside", "color"), (".chart svg text", "fill"), (".decision li", "color")):
        ink = rgb(browser.run(f"getComputedStyle(document.querySelector('{selector}')).{key}"))
        assert contrast(ink, paper) >= 4.5, selector
    browser.run("document.querySelector('.tokens span').style.cssText = '--share: 1'")
    browser.run("document.querySelector('.tokens span').className = 'active'")
    heat = browser.run("getComputedStyle(document.querySelector('.tokens .active')).backgroundColor")
    *colour, share = [float(number) for number in re.findall(r"[\d.]+", heat.partition("srgb")[2])]
    behind = [share * top * 255 + (1 - share) * under for top, under in zip(colour, paper, strict=True)]
    ink = rgb(browser.run("getComputedStyle(document.querySelector('.tokens .active')).color"))
    assert contrast(ink, behind) >= 4.5
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def rgb(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", text)[:3]]


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2.2: the ratio of relative luminances, each raised by 0.05."""

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_paper_takes_fewer_than_six_pages(full: dict[str, Any], tmp_path: Path) -> None:
    require_chromium()
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(render(full), encoding="utf-8")
    asked = ["--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={paper}", page.as_uri()]
    subprocess.run(["chromium", *asked], check=True, capture_output=True, timeout=120)
    assert len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) < 6


def test_a_sweeps_page_draws_sorts_and_fits_a_phone(browser: Browser, swept: dict[str, Any], tmp_path: Path) -> None:
    browser.open(render_sweep(swept), tmp_path / "sweep.html", 390)
    assert browser.complaints() == []
    assert browser.requests() == [(tmp_path / "sweep.html").as_uri()]
    assert browser.run("document.documentElement.scrollWidth") <= 390
    table = "[...document.querySelectorAll('table')].find(one => one.caption.textContent === 'FVU at L0')"
    texts = f"[...({table}).tBodies[0].rows].map(row => row.cells[2].firstChild.textContent)"
    browser.run(f"({table}).tHead.rows[0].cells[2].querySelector('button').click()")
    assert browser.run(texts) == sorted(browser.run(texts))
    assert browser.run("document.querySelector('#cells ~ dl a').getAttribute('href')") == "cells/a%20cell/report.html"
