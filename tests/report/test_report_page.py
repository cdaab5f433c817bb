"""The page: the same numbers as everywhere, escaped, self-contained, and whole without any one section."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from browser import HOSTILE

from rational_sae.errors import OutputError
from rational_sae.report import difference_rows, format_interval, format_value, render, table_rows


class Page(HTMLParser):
    """What a browser would see: tags with attributes, visible text, the bodies of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text.append(data)

    def headings(self) -> list[str]:
        return [str(attrs["id"]) for tag, attrs in self.tags if tag == "h2"]

    def specs(self) -> dict[str, Any]:
        return self.embedded("specs")

    def embedded(self, name: str) -> dict[str, Any]:
        """The data that the page's scripts read under this name."""
        names = [attrs.get("id") for tag, attrs in self.tags if tag == "script"]
        return json.loads(self.scripts[names.index(name)])


def test_shows_every_number_as_the_table_writes_it(full: dict[str, Any]) -> None:
    shown = "".join(Page(render(full)).text)
    for row in [*table_rows(full), *difference_rows(full)]:
        for cell in row.cells.values():
            assert cell.text in shown
            assert cell.interval in shown


def test_exact_values_are_there_for_sorting(full: dict[str, Any]) -> None:
    cells = [attrs["data-value"] for tag, attrs in Page(render(full)).tags if tag == "td" and "data-value" in attrs]
    assert str(full["rows"]["rsae"]["fvu"]) in cells


def test_has_every_section_and_a_chart_in_every_box(everything: dict[str, Any]) -> None:
    page = Page(render(everything))
    assert page.headings() == [
        "forest",
        "results",
        "differences",
        "also",
        "sparsity",
        "probing",
        "suite",
        "gate",
        "training",
        "firing-frequency",
        "absorption",
        "features-head",
        "fitted",
        "how",
        "glossary",
    ]
    boxes = [str(attrs["id"]) for tag, attrs in page.tags if tag == "div" and attrs.get("class") == "chart"]
    assert sorted(boxes) == sorted(page.specs())
    assert len(boxes) == 15


@pytest.mark.parametrize(
    "section",
    ["warnings", "intervals", "differences", "gate", "curves", "firing", "fit", "teacher", "data", "settings"],
)
@pytest.mark.parametrize("absent", ["missing", "null or empty"])
def test_any_section_may_be_absent(full: dict[str, Any], section: str, absent: str) -> None:
    empty = [] if section == "warnings" else {} if section in ("intervals", "differences") else None
    if absent == "missing":
        del full[section]
    else:
        full[section] = empty
    assert "<h1>" in render(full)


def test_the_least_report_has_only_its_table_and_glossary(minimal: dict[str, Any]) -> None:
    html = render(minimal)
    page = Page(html)
    assert page.headings() == ["results", "glossary"]
    assert "0.2500" in page.text
    assert len(html) < 20_000  # no charts, no Vega


def test_parts_of_sections_may_be_absent(full: dict[str, Any]) -> None:
    del full["gate"]["histogram"], full["gate"]["threshold"], full["firing"]["dead"], full["curves"]["target_l0"]
    full["curves"]["validation"] = {"rsae": {"step": [0, 10], "fvu": [0.2, None]}}
    full["curves"]["train"] = {"mine": {"step": [1, 2], "mse": [3.0, 2.0]}}
    assert set(Page(render(full)).specs()) >= {"gate-value", "training-mse", "validation-fvu", "firing"}


def test_rows_are_in_their_order_and_unknown_ones_last(full: dict[str, Any]) -> None:
    full["rows"] = {"runs/my_own": {"fvu": 0.5}, **dict(reversed(full["rows"].items()))}
    assert [row.name for row in table_rows(full)] == [
        "teacher",
        "teacher_rescaled",
        "init",
        "rsae",
        "identity",
        "control_native",
        "control_jumprelu",
        "runs/my_own",
    ]
    assert "runs/my_own" in Page(render(full)).text


def test_every_string_is_escaped(full: dict[str, Any]) -> None:
    tags = [tag for tag, _ in Page(render(full)).tags]
    full.update(title=HOSTILE, verdict=HOSTILE, warnings=[HOSTILE])
    full["rows"][HOSTILE] = {"fvu": 0.5, HOSTILE: 1.0}
    full["differences"][HOSTILE] = {HOSTILE: {"value": 1.0, "interval": [0.5, 1.5]}}
    full["gate"]["description"] = HOSTILE
    full["curves"]["train"][HOSTILE] = {"step": [1], "mse": [1.0]}
    full["curves"]["validation"][HOSTILE] = {"step": [1], "fvu": [1.0], "kept_step": 1}
    full["firing"]["counts"][HOSTILE] = full["firing"]["counts"]["rsae"]
    full["firing"]["dead"][HOSTILE] = 3
    for section in ("fit", "teacher", "data", "settings", "environment"):
        full[section] = {HOSTILE: HOSTILE}
    full["timing"] = {HOSTILE: 1.0}
    html = render(full)
    page = Page(html)
    assert page.text.count(HOSTILE) > 10  # as text, braces untouched
    assert {tag for tag, _ in page.tags} <= set(tags)
    assert len(page.scripts) == 3
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert HOSTILE in json.dumps(page.specs(), ensure_ascii=False).replace('\\"', '"')


def test_loads_nothing(full: dict[str, Any]) -> None:
    page = Page(render(full))
    loaded = [
        (tag, value) for tag, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "srcset")
    ]
    assert loaded == [("link", "data:,")]
    policy = next(attrs["content"] or "" for _, attrs in page.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy


def test_is_small_even_after_a_long_training(full: dict[str, Any]) -> None:
    steps = list(range(22_000))
    for curve in full["curves"]["train"].values():
        curve.update(step=steps, mse=[600.0 + s / 7 for s in steps], l0=[32.0] * len(steps))
        curve.pop("sparsity_weight", None)
    html = render(full)
    assert len(html.encode()) < 2_000_000
    assert "Each point is the mean of 88 logged steps." in html


def test_works_on_a_phone_in_the_dark_and_on_paper(minimal: dict[str, Any]) -> None:
    html = render(minimal)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    tables = re.findall(r'<div class="scroll"[^>]*>\s*<table', html)
    assert len(tables) == html.count("<table")


def latent_with(values: list[float], peak: int) -> dict[str, Any]:
    example = {"tokens": ["a", "b"], "values": values, "peak": peak}
    return {"rows": ["rsae"], "latents": [{"latent": 7, "status": "kept", "examples": {"rsae": [example]}}]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"features": {"rows": [], "latents": [{"latent": 1, "status": "new", "examples": {}}]}},
            "status: input",
        ),
        ({"features": latent_with([0.0], 0)}, "latent 7, rsae has 1 values for 2 tokens"),
        ({"features": latent_with([0.0, 1.0], 2)}, "latent 7, rsae has its peak at 2 of 2 tokens"),
        ({"probing": {"tasks": {"news": {"rows": {"rsae": {"probe_k1": 0.5}}}}}}, "probing.tasks.news.rows.rsae"),
        ({"rows": 3}, "rows: input should be"),
        ({"verdict": None}, "verdict: input should be"),
        ({"rows": {"teacher": {"fvu": "0.1"}}}, "rows.teacher.fvu"),
        ({"gate": {"t": [0.0]}}, "gate."),
        ({"curves": {"train": {"rsae": {"step": [1, 2], "mse": [1.0]}}}}, "curves.train.rsae.mse has 1 values for 2"),
        ({"firing": {"edges_log10": [0.0, 1.0], "counts": {"rsae": [1, 2]}}}, "firing.counts.rsae has 2 values for 1"),
        ({"schema": 2}, "has schema 2, this version reads schema 1"),
        ({"schema": True}, "has schema True"),
    ],
)
def test_refuses_what_is_malformed_in_one_line(minimal: dict[str, Any], change: dict[str, Any], words: str) -> None:
    with pytest.raises(OutputError) as caught:
        render({**minimal, **change})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_probes_have_a_table_for_their_mean_and_one_a_task(everything: dict[str, Any]) -> None:
    page = Page(render(everything))
    shown = "".join(page.text)
    for task in everything["probing"]["tasks"].values():
        for row in task["rows"].values():
            for key, found in row.items():
                assert format_value(key, found["value"]) in shown
                assert format_interval(key, found["interval"]) in shown
    assert "4 classes, 800 train and 200 test examples" in shown
    assert "The residual vectors themselves" in shown


def test_a_row_without_any_number_of_a_table_is_not_in_it(everything: dict[str, Any]) -> None:
    everything["probing"] = None
    html = render(everything)
    first = html[html.index("<table") : html.index("</table>")]
    assert "activations" not in first
    assert "activations" in html[html.index('id="probing"') :]


def test_the_browser_gets_every_number_as_text(everything: dict[str, Any]) -> None:
    data = Page(render(everything)).embedded("features")
    assert len(data["latents"]) == 500
    for given, shown in zip(everything["features"]["latents"], data["latents"], strict=True):
        facts = dict(zip(data["facts"], shown["facts"], strict=True))
        assert facts["Change"] == format_value("change", given["change"])
        assert facts["Correlation"] == format_value("correlation", given["correlation"])
        density = [format_value("density", given["density"][row]) for row in ("teacher", "rsae")]
        assert shown["active"] == [f"{share} of tokens" for share in density]
        assert shown["sort"]["change"] == given["change"]
        for row, examples in zip(("teacher", "rsae"), shown["examples"], strict=True):
            assert [tokens_of(data, one) for one in examples] == [one["tokens"] for one in given["examples"][row]]


def tokens_of(data: dict[str, Any], example: str) -> list[str]:
    number, start, size = map(int, example.split(" ")[:3])
    places = data["text"]["sequences"][number].split(" ")[start : start + size]
    return [data["text"]["tokens"][int(place)] for place in places]


def compact() -> dict[str, Any]:
    """Features as they are written now: one latent, one sequence."""
    return {
        "rows": ["teacher", "rsae"],
        "summary": {"tokens": 6142},
        "text": {"tokens": [" a", "b", "</script>"], "sequences": ["0 1 2 1"]},
        "public_page": "https://www.neuronpedia.org/gpt2-small/8-res-jb/",
        "latents": [
            {
                "latent": 7,
                "status": "kept",
                "tokens_kept": 0.4,
                "fired": {"teacher": 9, "rsae": 1234},
                "largest": {"teacher": 2.5, "rsae": 3.0},
                "histogram": {"teacher": "8 1", "rsae": "1 0"},
                "logits": {row: {"promoted": "0:1.5 2:1", "suppressed": "1:-2e-05"} for row in ("teacher", "rsae")},
                "examples": {"teacher": ["0 1 3 1 1:2.5"], "rsae": ["0 0 4 0 0:3 2:0.5"]},
                "weaker": {"teacher": ["0 0 2 1"], "rsae": []},
            }
        ],
    }


def test_counts_are_ones_that_one_can_picture(minimal: dict[str, Any]) -> None:
    data = Page(render({**minimal, "features": compact()})).embedded("features")
    (latent,) = data["latents"]
    assert latent["active"] == ["9 of 6\u2009142 tokens", "1\u2009234 of 6\u2009142 tokens"]
    assert tokens_of(data, latent["examples"][0][0]) == ["b", "</script>", "b"]
    assert latent["logits"][0] == ["0:1.5 2:1", "1:-2e-05"]
    assert latent["weaker"] == [["0 0 2 1"], []]
    assert dict(zip(data["facts"], latent["facts"], strict=True)) == {"Tokens kept": format_value("tokens_kept", 0.4)}


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("examples", {"rsae": ["1 0 1 0"]}, "example of no tokens"),
        ("examples", {"rsae": ["0 2 3 0"]}, "example of no tokens"),
        ("examples", {"rsae": ["0 0 2 2"]}, "example of no tokens"),
        ("examples", {"rsae": ["0 0 2 1 3:1"]}, "example of no tokens"),
        ("examples", {"rsae": ["0 0 2 1 1:x"]}, "example of no tokens"),
        ("examples", {"rsae": [""]}, "example of no tokens"),
        ("weaker", {"rsae": ["-1 0 2 1"]}, "example of no tokens"),
        ("logits", {"rsae": {"promoted": "3:1", "suppressed": ""}}, "logits of no token"),
        ("histogram", {"rsae": "1 -2"}, "histogram of no counts"),
    ],
)
def test_what_does_not_lie_within_the_text_is_refused(
    minimal: dict[str, Any], place: str, value: Any, words: str
) -> None:
    features = compact()
    features["latents"][0] |= {"examples": {"teacher": [], "rsae": []}, "weaker": {}} | {place: value}
    if place == "weaker":
        features["latents"][0]["examples"] = {"rsae": []}
    with pytest.raises(OutputError, match=words):
        render({**minimal, "features": features})


@pytest.mark.parametrize(
    "page", ["javascript:alert(1)//", "https://elsewhere.org/a/b/", "https://www.neuronpedia.org.x/"]
)
def test_the_page_links_nowhere_but_to_neuronpedia(minimal: dict[str, Any], page: str) -> None:
    with pytest.raises(OutputError, match="no page of Neuronpedia"):
        render({**minimal, "features": compact() | {"public_page": page}})


@pytest.mark.parametrize("section", ["probing", "suite", "features", "absorption"])
def test_each_new_section_may_be_absent(several: dict[str, Any], section: str) -> None:
    several[section] = None
    assert "<h1>" in render(several)


def test_the_suite_tells_means_differences_wins_and_losses_and_what_was_left_out(several: dict[str, Any]) -> None:
    text = " ".join("".join(Page(render(several)).text).split())
    assert "Mean over 12 tasks, tested on texts of the tasks themselves" in text
    assert "8 better, 4 worse" in text
    assert "131_temp_cat was left out: too few texts." in text
    specs = Page(render(several)).specs()
    tasks = next(layer["data"]["values"] for layer in specs["suite-0"]["layer"] if len(layer["data"]["values"]) > 4)
    assert len(tasks) == 12 * 4, "a dot a task and k"


def test_a_task_without_a_figure_that_is_compared_is_refused(several: dict[str, Any]) -> None:
    del several["suite"]["tasks"]["3_task"]["test"]["rsae"]["auc_k5"]
    with pytest.raises(OutputError, match=r"suite: task 3_task has no rsae\.auc_k5"):
        render(several)


def test_absorption_of_a_small_model_is_called_a_smoke_test(several: dict[str, Any]) -> None:
    text = " ".join("".join(Page(render(several)).text).split())
    assert "Not evidence. This is a smoke test: 2,304 latents." in text
    for row in several["absorption"].values():
        row["smoke_test"] = ""
    assert "Not evidence" not in "".join(Page(render(several)).text)


def test_a_summary_without_latents_and_latents_without_a_summary(several: dict[str, Any]) -> None:
    several["features"]["latents"] = []
    page = Page(render(several))
    assert "features-head" in page.headings()
    assert "0.9731" in page.text
    del several["features"]["summary"]
    assert "features-head" not in Page(render(several)).headings()


def test_only_the_pages_own_scripts_are_allowed(several: dict[str, Any]) -> None:
    page = Page(render(several))
    policy = next(attrs["content"] or "" for _, attrs in page.tags if attrs.get("http-equiv"))
    allowed = policy.partition("script-src ")[2].split()
    run = [
        script
        for script, attrs in zip(page.scripts, [a for t, a in page.tags if t == "script"], strict=True)
        if attrs.get("type") != "application/json"
    ]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in run]
    assert allowed == hashes
    assert len(run) == 3
