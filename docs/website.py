"""What `make site` does beyond mkdocs: pages from outside docs/, tables out of the code, links that work in both.

mkdocs calls the functions `on_…` (see mkdocs.yml). A mark such as <!-- site: settings --> in a page is where a table
stands on the site; it is made anew at each build, so that no page can be behind the code.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "licence.txt",
    "CITATION.cff": "citation.cff",
    "docs/quickstart.ipynb": "quickstart.md",
    **{path.relative_to(ROOT).as_posix(): f"log/{path.name}" for path in sorted((ROOT / "dev/log").glob("*.md"))},
}
"""Files of the repository that are pages of the site, beside those of docs/."""
ORIGINS = {page: origin for origin, page in PAGES.items()}

CODE_OR_BRACKET = re.compile(r"`[^`]*`|[\[*_<]")
EXAMPLE = re.compile(r"(?:^(?:>>>|\.\.\.) .*\n?)+(?:^(?!>>>).+\n?)*", re.MULTILINE)
"""Lines of a doctest, and what they print."""
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[#)])")
MARK = re.compile(r"^<!-- site: (\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for origin, page in PAGES.items():
        path = ROOT / origin
        text = _notebook(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put tables at their marks, and turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    markdown = MARK.sub(lambda mark: TABLES[mark[1]](), markdown)
    return LINK.sub(lambda link: _link(link[1], ORIGINS.get(here, f"docs/{here}"), here), markdown)


def _link(target: str, origin: str, page: str) -> str:
    """A link of the file `origin`, from its page; what leads to no page stays as it is, and mkdocs then names it."""
    if ":" in target:
        return target
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    found = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    return posixpath.relpath(found, posixpath.dirname(page) or ".") if found else target


def plain(text: str) -> str:
    """Text that no one wrote as Markdown: brackets, stars and the like stay as they are outside of code."""
    return CODE_OR_BRACKET.sub(lambda found: found[0] if found[0].startswith("`") else "\\" + found[0], text)


class Readable(griffe.Extension):
    """Docstrings as Markdown: examples as code, shapes such as [n, d_in] as they are."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = docstring(obj.docstring.value)


def docstring(text: str) -> str:
    parts, at = [], 0
    for example in EXAMPLE.finditer(text):
        code = re.sub(r"  # doctest: .*", "", example[0]).rstrip()
        parts += [plain(text[at : example.start()]), f"```pycon\n{code}\n```\n"]
        at = example.end()
    return "".join(parts) + plain(text[at:])


def _notebook(path: Path) -> str:
    from nbconvert import MarkdownExporter

    return MarkdownExporter().from_filename(str(path))[0]


def _table(headings: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    rows = [tuple(headings), *map(tuple, lines)]
    rows.insert(1, ("---",) * len(rows[0]))
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    )


def settings() -> str:
    """Every field of the settings, under the headings of `--help`."""
    from rational_sae.cli.from_settings import flag_of
    from rational_sae.cli.options import PANELS
    from rational_sae.upgrading.settings import Settings

    fields = Settings.model_fields
    offered = {name for names in PANELS.values() for name in names}
    rest = tuple(name for name in fields if name not in offered and name != "teacher")
    parts = []
    for panel, names in {"Teacher": ("teacher",), **PANELS, "In settings.yaml and Python alone": rest}.items():
        lines = []
        for name in names:
            if name in fields:
                field = fields[name]
                default = None if field.is_required() else field.get_default(call_default_factory=True)
                shown = "" if default is None else f"`{json.dumps(default)}`"
                flag = "" if name in rest or name == "teacher" else f"`{flag_of(name)}`"
                lines.append((f"`{name}`", flag, shown, plain(" ".join((field.description or "").split()))))
        parts.append(f"## {panel}\n\n{_table(('setting', 'option', 'default', 'what it does'), lines)}")
    return "\n\n".join(parts)


def commands() -> str:
    """Every command with its options, as typer knows them."""
    from typer.main import get_command

    from rational_sae.cli import app

    parts = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        arguments = " ".join(_argument(one) for one in _kinds(command, "argument"))
        lines = []
        for one in _kinds(command, "option"):
            unset = one.default is None or one.default is False or callable(one.default)
            shown = "" if unset else f"`{one.default}`"
            flags = ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts))
            lines.append((flags, getattr(one, "rich_help_panel", None) or "", shown, plain(one.help or "")))
        table = _table(("option", "panel", "default", "what it does"), lines)
        parts.append(f"## rsae {name}\n\n{_words(command.help)}\n\n```\nrsae {name} {arguments}\n```\n\n{table}")
    return "\n\n".join(parts)


def _kinds(command: Any, kind: str) -> list[Any]:
    return [one for one in command.params if one.param_type_name == kind and not getattr(one, "hidden", False)]


def _argument(one: Any) -> str:
    name = one.metavar or one.name.upper()
    name += "..." if one.nargs == -1 else ""
    return name if one.required else f"[{name}]"


def _words(text: str | None) -> str:
    """A command's help, with its example as code."""
    return re.sub(r"Example: (.+)", r"Example: `\1`", text or "")


def report() -> str:
    """The sections of report.json and sweep.json, from the source of their types."""
    tree = ast.parse((ROOT / "src/rational_sae/report/schema.py").read_text(encoding="utf-8"))
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef)]
    classes.sort(key=lambda one: one.name not in ("Report", "Sweep"))  # the whole before its parts
    parts = []
    for one in classes:
        lines = []
        for at, item in enumerate(one.body):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                kind = ast.unparse(item.annotation)
                optional = kind.startswith("NotRequired[")
                kind = kind.removeprefix("NotRequired[").removesuffix("]") if optional else kind
                said = one.body[at + 1] if at + 1 < len(one.body) else None
                words = ast.literal_eval(said.value) if isinstance(said, ast.Expr) else ""
                lines.append((f"`{item.target.id}`", f"`{kind}`", "" if optional else "always", plain(words)))
        parts.append(
            f"## {one.name}\n\n{ast.get_docstring(one) or ''}\n\n" + _table(("key", "type", "there", ""), lines)
        )
    return "\n\n".join(parts)


def metrics() -> str:
    """Every metric, as the glossary of a report explains it."""
    from rational_sae.metrics import METRICS

    return _table(
        ("in reports", "in JSON", "what it is"),
        (
            (one.label, f"`{one.name}`", plain(one.words) + (f" Unit: {one.unit}." if one.unit else ""))
            for one in METRICS.values()
        ),
    )


def rows() -> str:
    """Every row of a report."""
    from rational_sae.report.rows import ROWS, row_label

    return _table(
        ("row", "in JSON", "what it is"),
        ((row_label(name), f"`{name}`", plain(row.words)) for name, row in ROWS.items()),
    )


TABLES: dict[str, Callable[[], str]] = {one.__name__: one for one in (settings, commands, report, metrics, rows)}
