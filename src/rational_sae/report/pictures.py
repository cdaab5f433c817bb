"""One chart as a file of its own, for the commands that have no report."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rational_sae.errors import OutputError
from rational_sae.support.outputs import check_file, write_file

if TYPE_CHECKING:
    import altair as alt


def check_picture(path: Path) -> None:
    """Raise OutputError if no picture can be written here."""
    if path.suffix not in (".html", ".svg", ".png", ".json"):
        raise OutputError(f"{path} is no picture", "end its name in .html, .svg, .png or .json")
    check_file(path)


def save_picture(chart: alt.TopLevelMixin, path: Path) -> None:
    """Writes .html (self-contained), .svg, .png or .json, by the name's end. Raises OutputError."""
    check_picture(path)
    kind = path.suffix.removeprefix(".")
    content = io.BytesIO() if kind == "png" else io.StringIO()
    inline: dict[str, Any] = {"inline": True} if kind == "html" else {}
    chart.save(content, format=cast(Any, kind), **inline)
    write_file(path, content.getvalue())
