"""An SAE whose every word is hostile, on a hostile path, with hostile text: what is written is parsed, and holds
neither markup of theirs nor characters that drive a terminal, turn the reading direction or hide."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from rich.console import Console
from safetensors import safe_open
from tiny import TINY_SPECIALS, TINY_VOCABULARY, save_tiny_teacher, tiny_model

from rational_sae.cli import terminal
from rational_sae.formats import load
from rational_sae.formats.save import save, save_plain
from rational_sae.gates.topk import TopKGate
from rational_sae.publish.card import model_card
from rational_sae.report import evaluation_report, print_answer, print_sweep, print_table, write_report, write_sweep
from rational_sae.sae.model import SAE, Metadata
from rational_sae.support.bars import Lines
from rational_sae.sweep.plan import Plan
from rational_sae.sweep.summary import summary
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run.write import write
from rational_sae.upgrading.settings import Settings

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""C0 and C1 but line feed and tab, marks of direction, what has no width, and halves of characters."""

DRIVES = "\x1b[2J\x1b]0;mine\x07\x08\r\x7f\x85\x9b31m\u202e\u2066\u200b\u200f\ufeff\u2028\xad"
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
MARKDOWN = (
    "[x](javascript:alert(3)) ![x](http://evil.example/x.png) http://evil.example www.evil.example a@b.example `x` |"
)
HOSTILE = f"{MARKUP}{DRIVES}\n---\nlicense: mit\n# forged\n\n{MARKDOWN}\n```\n*x* _x_ [red]x[/red] $x$ &lt;b&gt; \\"
"""Every kind at once."""

NAME = "<b>[x](y)`|`\x1b[2J\u202e\u200b\n& name"
"""A file can be called this."""


class Page(HTMLParser):
    """Tags, attributes, text, and the JSON that a page holds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.data: list[Any] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = dict(attrs).get("type") or tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.data.append(json.loads(data))
        elif self._inside not in ("script", "style"):
            self.text += data


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [found for item in value.items() for part in item for found in strings(part)]
    return [found for item in value for found in strings(item)] if isinstance(value, list) else []


def clean_page(html: str) -> Page:
    """The page, if nothing hostile came through."""
    page = Page(html)
    assert not {"img", "b", "i", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value or "" for name, value in page.attributes if name in ("href", "src")]
    assert all(re.match(r"#|data:,|cells/", link) for link in links), links
    seen = [page.text, *(value or "" for _, value in page.attributes), *strings(page.data)]
    assert not [text for text in seen if HIDDEN.search(text)]
    assert "<script>alert" not in html
    return page


def clean_card(card: str) -> dict[str, Any]:
    """The card's header, if its body holds no markup, link or picture of theirs."""
    assert not HIDDEN.search(card)
    assert card.startswith("---\n")
    header, body = card[4:].split("\n---\n", 1)
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(body)
    page = Page(html)
    assert not {"script", "img", "b", "a"} & set(page.tags), html
    assert "forged" not in [text.strip() for text in re.findall(r"<h\d>(.*?)</h\d>", html)]
    bare = re.sub(r"<code>.*?</code>", "", html, flags=re.DOTALL)
    assert not re.search(r"(?<![\w&;#])(https?://|www\.)(?!neuronpedia)", bare), bare  # some make links of these
    return yaml.safe_load(header)


def check_folder(folder: Path) -> set[str]:
    """Parse every file of text below a folder. Returns their names."""
    found = set()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".safetensors":
            continue
        found.add(path.name)
        text = path.read_bytes().decode()
        if path.suffix == ".html":
            clean_page(text)
            continue
        assert not HIDDEN.search(text), path.name
        if path.suffix == ".json":
            json.loads(text)
        elif path.suffix == ".jsonl":
            assert all(json.loads(line) for line in text.splitlines())
        elif path.suffix == ".yaml":
            yaml.safe_load(text)
        elif path.suffix == ".md":
            clean_card(text)
    return found


def hostile_sae(**extra: Any) -> SAE:
    known = Metadata(
        source=HOSTILE,
        format=HOSTILE,
        family=HOSTILE,
        model_name=HOSTILE,
        hook_name=HOSTILE,
        extra={"license": HOSTILE, HOSTILE: HOSTILE, "neuronpedia_id": HOSTILE, **extra},
    )
    return SAE(torch.ones(3, 5), torch.ones(5), torch.ones(5, 3), torch.ones(3), TopKGate(2), metadata=known)


EXTRAS: dict[str, Any] = {
    "none": {},
    "labels": {"labels": {"rule": HOSTILE, "stale": [1]}},
    "labels of another kind": {"labels": HOSTILE},
    "labels without a list": {"labels": {"stale": HOSTILE}},
    "distilled": {"distilled": {"from": HOSTILE, "fvu": 0.1, "fvu_change": {"value": 0.1, "interval": [0.0, 0.2]}}},
    "distilled of another kind": {"distilled": HOSTILE},
    "distilled with words for numbers": {
        "distilled": {"from": "x", "fvu": HOSTILE, "fvu_change": {"value": HOSTILE, "interval": HOSTILE}}
    },
    "a licence that is no text": {"license": {HOSTILE: [HOSTILE]}},
    "a long licence": {"license": "x" * 5000},
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_model_card_holds_none_of_an_saes_markup(tmp_path: Path, extra: str) -> None:
    sae = hostile_sae(**EXTRAS[extra])
    header = clean_card(model_card(sae))
    assert header["library_name"] == "saelens"
    assert header["license"] == "other"
    assert len(header["license_name"]) <= 300
    assert "base_model" not in header
    save(sae, tmp_path / "sae", model_card(sae))
    save_plain(sae, tmp_path / "plain")
    assert check_folder(tmp_path) == {"cfg.json", "README.md"}
    again = load(str(tmp_path / "sae")).metadata
    assert (again.model_name, again.hook_name) == (HOSTILE, HOSTILE)  # kept as they were, only spelled in JSON
    with safe_open(tmp_path / "plain" / "sae.safetensors", framework="pt") as file:
        assert not HIDDEN.search(file.metadata()["config"])


@pytest.mark.parametrize("model", ["x" * 5000, "~nobody-by-this-name/x", "a\0b", "/" * 3000, "..", "`", "``a`", "a|b"])
def test_a_model_card_survives_any_name(model: str) -> None:
    sae = hostile_sae()
    sae.metadata.model_name = model
    card = model_card(sae)
    clean_card(card)
    assert len(card) < 6000


def test_a_plain_name_stays_plain() -> None:
    sae = hostile_sae()
    sae.metadata.model_name, sae.metadata.hook_name = "google/gemma-2-2b", "blocks.8.hook_resid_post"
    sae.metadata.family, sae.metadata.extra = "topk", {"license": "CC-BY-4.0"}
    card = model_card(sae)
    assert "# TopK sparse autoencoder of google/gemma-2-2b, blocks.8.hook_resid_post" in card
    assert "CC-BY-4.0, carried over" in card


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """A teacher on a hostile path, with hostile metadata, read with a model of hostile tokens, and hostile labels."""
    root = tmp_path_factory.mktemp("hostile") / NAME
    root.mkdir()
    words = [f"<i>{i}</i>\x1b[2J\u202e\u200b&{i}" if i % 2 else f"w{i}" for i in range(60)]
    model = root / NAME
    tiny_model("llama").save_pretrained(model)
    tokenizer_of(words).save_pretrained(model)
    rows = torch.randint(len(words), (400, 40), generator=torch.Generator().manual_seed(0)).tolist()
    documents = [" ".join(words[i] for i in row) for row in rows]
    text, task = root / f"{NAME}.jsonl", root / f"task {NAME}.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    labels = (HOSTILE, "plain")
    task.write_text(
        "".join(json.dumps({"text": one, "label": labels[i % 2]}) + "\n" for i, one in enumerate(documents))
    )
    teacher = save_tiny_teacher(root / "teacher", model, text)
    config = json.loads((teacher / "cfg.json").read_text())
    config["metadata"] |= {"license": HOSTILE, HOSTILE: HOSTILE, "neuronpedia_id": HOSTILE}
    (teacher / "cfg.json").write_text(json.dumps(config))
    settings = Settings(
        teacher=str(teacher),
        text=str(text),
        steps=2,
        batch_tokens=64,
        eval_tokens=256,
        controls=("native",),
        probes=(str(task),),
        probe_train=160,
    )
    return root, settings


def tokenizer_of(words: list[str]) -> Any:
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*TINY_SPECIALS, *words])}
    assert len(vocabulary) == len(TINY_VOCABULARY)
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    special = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), TINY_SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def test_nothing_that_an_upgrade_and_a_sweep_write_holds_what_is_hostile(
    job: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, settings = job
    out = root / f"out {NAME}"
    file = io.StringIO()
    console = Console(file=file, width=150)
    monkeypatch.setattr(terminal, "console", console)
    with Lines(console) as progress:
        progress.stage(HOSTILE)
        done = upgrade(settings, progress=progress)
    done.warnings.append(HOSTILE)
    report = write(done, out)
    written = check_folder(out)
    assert {"report.json", "report.html", "settings.yaml", "README.md", "cfg.json"} <= written
    page = clean_page((out / "report.html").read_text())
    assert MARKUP in page.text  # as text
    assert any("<i>" in text for text in strings(page.data))  # tokens, as text
    assert HIDDEN.search("".join(strings(json.loads((out / "report.json").read_text()))))  # the data are as they were

    plan = Plan.model_validate({"cells": {"a": {"teacher": "t"}, "b": {"teacher": "t"}}})
    found = summary(plan, {"a": report}, {HOSTILE: HOSTILE}, {})
    found["cells"] = {HOSTILE: found["cells"]["a"] | {"model": HOSTILE, "hook": HOSTILE, "family": HOSTILE}}
    found["missing"].append(HOSTILE)
    write_sweep(found, out / "swept")
    assert check_folder(out / "swept") == {"sweep.json", "sweep.html"}

    print_sweep(found, console)
    print_answer(report | {"title": HOSTILE}, console)
    print_table(report | {"rows": {name + HOSTILE: row for name, row in report["rows"].items()}}, console)
    terminal.say(HOSTILE, head="error:")
    said = file.getvalue()
    assert not HIDDEN.search(said)
    assert "# forged" not in [line.strip() for line in said.splitlines()]


def test_an_evaluation_of_saes_with_hostile_names_is_clean(tmp_path: Path) -> None:
    row = {"fvu": 0.1, "l0": 3.0, "delta_ce": 0.2, "fvu_at_l0": 0.1, "delta_ce_at_l0": 0.1, "probe_k1": 0.9}
    change = {key: {"value": -0.1, "interval": [-0.2, -0.05]} for key in ("fvu_at_l0", "delta_ce_at_l0")}
    task = {"classes": [HOSTILE, "b"], "train": 2, "test": 1, "rows": {HOSTILE: {"probe_k1": {"value": 0.9}}}}
    found = {
        "rows": {NAME: row, HOSTILE: row},
        "differences": {f"{HOSTILE} - {NAME}": change},
        "warnings": [HOSTILE],
        "probing": {"protocol": {HOSTILE: HOSTILE}, "tasks": {HOSTILE: task}},
    }
    report = evaluation_report(found, {"saes": [NAME, HOSTILE], HOSTILE: {HOSTILE: HOSTILE}})
    write_report(report, tmp_path)
    assert check_folder(tmp_path) == {"report.json", "report.html"}
    file = io.StringIO()
    print_table(report, Console(file=file, width=150))
    print_answer(report, Console(file=file, width=150))
    assert not HIDDEN.search(file.getvalue())
