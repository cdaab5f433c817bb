"""rsae headroom: what there is to win, by a better magnitude, by a second look and by a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PATH, READING, Json, checked, takes


@takes(
    *(*READING, "trust_remote_code", "eval_tokens"),
    needs=("text",),
    says={"eval_tokens": "Test tokens, and as many to fit on."},
)
def headroom(
    sae: Annotated[str, typer.Argument(help="A ReLU, JumpReLU or TopK SAE.")],
    others: Annotated[
        list[str] | None, typer.Argument(metavar="[UPGRADED]...", help="Upgraded SAEs, to see how far each has come.")
    ] = None,
    floor: Annotated[
        bool, typer.Option("--floor/--no-floor", help="Codes by gradient pursuit: what selection could gain.")
    ] = True,
    plot: Annotated[
        Path | None, typer.Option(**PATH, help="Picture of the way to the floor: .html, .svg or .png.")
    ] = None,
    json_file: Json = None,
    **options: Any,
) -> None:
    """What an SAE can gain before any training: by a better magnitude, by a second look, and at most by a search.

    Encoder, decoder, support and poles stay in the rows `teacher_rescaled` and `shape`. `init_looks` looks twice
    (docs/looks.md), calibrated and not trained: a promise of what `upgrade --looks 2` starts from. The row `floor`
    searches codes by gradient pursuit on the same dictionary at the same L0; each other row shows its share of the way
    there.

    Example: rsae headroom demo:relu --text news
    """
    if plot is not None:
        from rational_sae.report.pictures import check_picture

        if not floor:
            raise typer.BadParameter("there is no way to draw without the floor", param_hint="--plot")
        check_picture(plot)
    from rational_sae.data.reading import Reading
    from rational_sae.report import relative_difference
    from rational_sae.upgrading.headroom import headroom as run

    eval_tokens = options.pop("eval_tokens")
    reading = checked(Reading, **options)
    with terminal.bars() as bars:
        found = run(sae, reading, others=others or (), floor=floor, eval_tokens=eval_tokens, progress=bars)
    report = terminal.show_figures(found, json_file)
    for name in found.differences:
        value, low, high = relative_difference(report, name, "fvu")
        terminal.result(f"{name}: FVU {value:+.1%} [{low:+.1%}, {high:+.1%}]", json_file)
    if floor:
        teacher, lowest = found.rows["teacher"], found.rows["floor"]
        share = lowest["fvu"] / teacher["fvu"] - 1
        terminal.result(f"floor: FVU {share:+.1%} at L0 {lowest['l0']:.1f} of {teacher['l0']:.1f}", json_file)
    for name, row in found.rows.items():
        for key, whose in (("way", "the teacher's"), ("way_own", "its own")):
            if key in row:
                low, high = found.intervals[name][key]
                terminal.result(
                    f"{name}: {row[key]:.1%} [{low:.1%}, {high:.1%}] of the way to the floor of {whose} dictionary",
                    json_file,
                )
    if plot is not None:
        from rational_sae.report.way_chart import save_way_chart

        save_way_chart(report, plot)
        terminal.say(f"wrote {plot}")
