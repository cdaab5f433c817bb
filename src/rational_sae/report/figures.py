"""The charts as PNG files, for documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rational_sae.errors import OutputError
from rational_sae.report.schema import check_report
from rational_sae.support.files import write_whole

if TYPE_CHECKING:
    from rational_sae.report.charts import Group

WIDTH, HEIGHT = 400, 240
"""Pixels of one figure. Files are kept small (about 100 kB): they are committed with the documents."""


def save_figures(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes gate.png, training.png, firing.png and comparison.png, those the report has data for."""
    from rational_sae.report.panels.firing import firing_group
    from rational_sae.report.panels.forest import forest_group
    from rational_sae.report.panels.gate import gate_group
    from rational_sae.report.panels.training import training_group

    plain = check_report(report)
    groups = (gate_group(plain), training_group(plain), firing_group(plain), forest_group(plain))
    return _save(filter(None, groups), folder)


def save_pareto(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes pareto-MODEL-HOOK-FAMILY.png for a sweep's summary."""
    from rational_sae.report.pareto import pareto_groups

    return _save(pareto_groups(found), folder)


def _save(groups: Iterable[Group], folder: Path) -> list[Path]:
    written = []
    for group in groups:
        path = Path(folder) / f"{group.name}.png"
        picture = _picture(group)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, picture)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror})", "choose another folder") from error
        written.append(path)
    return written


def _picture(group: Group) -> bytes:
    """The group's figures two abreast on white, under one legend; their titles stand at one height."""
    import altair as alt
    import vl_convert

    from rational_sae.report.charts import VEGA_LITE

    width = WIDTH if len(group.figures) > 1 else 2 * WIDTH
    lines = max(len(figure.notes) for figure in group.figures)
    sized = [
        figure.chart.properties(
            width=width,
            height=HEIGHT,
            title=alt.TitleParams(
                figure.title,
                subtitle=[*figure.notes, *[" "] * (lines - len(figure.notes))],
                anchor="start",
                frame="group",
            ),
        )
        for figure in group.figures
    ]
    labelled = group.marks != "lines"  # points have their rows' names beside them
    chart = (
        alt.concat(*sized, columns=2, background="white", padding=12, spacing=28)
        .configure_legend(
            disable=labelled, orient="top", symbolType="stroke", symbolStrokeWidth=2, symbolSize=500, labelLimit=0
        )
        .configure_view(stroke=None)
        .configure_axis(gridColor="#e4e4e4", titleFontWeight="normal", labelSeparation=8)
    )
    return vl_convert.vegalite_to_png(chart.to_dict(), vl_version=VEGA_LITE)
