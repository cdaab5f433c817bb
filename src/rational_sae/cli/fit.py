"""rsae fit: one certified rational fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PATH, Json, degrees_of


def fit(
    name: Annotated[Literal["relu", "jumprelu", "step", "sign", "leaky_relu"], typer.Argument(metavar="TARGET")],
    degrees: Annotated[str, typer.Option("--type", metavar="P,Q", help="Degrees.")] = "9,8",
    threshold: Annotated[float | None, typer.Option(metavar="X", help="θ of jumprelu, step and sign.")] = None,
    gap: Annotated[float | None, typer.Option(metavar="X", help="δ, half-width of the gap.")] = None,
    slope: Annotated[float | None, typer.Option(metavar="X", help="Of leaky_relu left of 0.")] = None,
    kappa: Annotated[float, typer.Option(metavar="X", help="Weight of the error right of the threshold.")] = 1.0,
    method: Annotated[
        Literal["auto", "relaxed_remez", "aaa", "adam"],
        typer.Option(metavar="NAME", help="auto is certified; relaxed_remez, aaa and adam compare."),
    ] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Fit again, whatever is kept.")] = False,
    json_file: Json = None,
    plot: Annotated[Path | None, typer.Option(**PATH, help="Picture: .html, .svg or .png.")] = None,
) -> None:
    """Best rational fit of a gate on [−1, 1], certified.

    TARGET is relu, jumprelu, step, sign or leaky_relu.

    Example: rsae fit jumprelu --type 9,8 --threshold 0.1 --gap 0.02 --json - --plot fit.png
    """
    if plot is not None:
        from rational_sae.report.pictures import check_picture

        check_picture(plot)
    from rational_sae.rational import cached_fit, target
    from rational_sae.rational import fit as fit_rational

    wanted = target(name, threshold=threshold, gap=gap, slope=slope, kappa=kappa)
    kept = method == "auto" and not fresh
    found = (
        cached_fit(wanted, degrees_of(degrees)) if kept else fit_rational(wanted, degrees_of(degrees), method=method)
    )
    terminal.emit(found.to_json(), json_file)
    terminal.result(
        f"{name} {degrees}: error {found.error:.6e}, {found.alternations} alternations, "
        f"min Q {found.min_denominator:.3g}, {found.status}, {found.seconds:.2f} s",
        json_file,
    )
    if plot is not None:
        from rational_sae.report.fit_chart import save_fit_chart

        save_fit_chart(found, plot)
        terminal.say(f"wrote {plot}")
