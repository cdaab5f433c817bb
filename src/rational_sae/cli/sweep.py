"""rsae sweep: many upgrades."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import CHECKPOINTS, PATH, Full, Resume, checked, given_options, path_of, takes

UNSTORED = ("cache", "cache_gb", "trust_remote_code")


@takes(*UNSTORED, *CHECKPOINTS)
def sweep(
    ctx: typer.Context,
    grid: Annotated[
        Path, typer.Argument(parser=path_of, metavar="GRID.yaml", help="Cells: teachers and their settings.")
    ],
    out: Annotated[Path, typer.Option(**PATH, help="Where cells, sweep.json and sweep.html go.")],
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where cells run; ray needs the extra ray.")
    ] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Cells at once on this machine.")] = 1,
    resume: Resume = False,
    full: Full = False,
    **options: Any,
) -> None:
    """Many upgrades into one table; learning rates of every row are chosen in pilot cells.

    Each finished cell is kept, whatever happens to the others; `--resume` does what is missing, and goes on in the
    middle of the cell that was interrupted.

    Example: rsae sweep configs/grid.yaml --out runs/grid --resume
    """
    from rational_sae.report import print_sweep
    from rational_sae.sweep import engine_named, read_plan
    from rational_sae.sweep import sweep as run
    from rational_sae.upgrading.run.schedule import Interval
    from rational_sae.upgrading.settings import Settings

    plan = read_plan(grid)
    interval = Interval(*(options.pop(name) for name in CHECKPOINTS))
    checked(Settings, teacher="any", **options)
    plan.defaults |= options
    try:
        with terminal.bars() as bars:
            found = run(
                plan,
                out,
                bars,
                resume=resume,
                interval=interval,
                engine=engine_named(engine, workers),
                tell=terminal.say,
            )
    except KeyboardInterrupt:
        repeated = ("engine", "workers", *CHECKPOINTS, *UNSTORED)
        again = ["rsae", "sweep", str(grid), "--out", str(out), "--resume", *given_options(ctx, repeated)]
        terminal.say(f"interrupted; what was done is kept, go on with: {shlex.join(again)}", always=True)
        raise typer.Exit(130) from None
    print_sweep(found, terminal.out, full=full)
    terminal.say(f"wrote {out}/sweep.html and {out}/sweep.json")
    if found["failed"]:
        for name, reason in found["failed"].items():
            terminal.say(f"{name}: {reason}", head="failed:")
        raise typer.Exit(1)
