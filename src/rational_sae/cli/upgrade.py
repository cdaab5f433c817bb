"""rsae upgrade: one job, in one process or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rational_sae.cli.job import folder_of, run
from rational_sae.cli.options import (
    CHECKPOINTS,
    EVERY,
    PATH,
    RUNNING,
    AcceptImplausible,
    Full,
    Overwrite,
    Resume,
    checked,
    given_options,
    is_given,
    takes,
)
from rational_sae.errors import ImplausibleSAEError

TRACKERS = ("tensorboard", "wandb")


def trackers_of(value: str | None) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in (value or "").split(",") if part.strip())
    for one in chosen:
        if one not in TRACKERS:
            raise typer.BadParameter(f"--track {one!r}: choose from {', '.join(TRACKERS)}")
    return chosen


@takes("teacher", *EVERY)
def upgrade(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(**PATH, help="Where the result goes.")],
    settings_file: Annotated[
        Path | None,
        typer.Option("--settings", **PATH, help="settings.yaml of another job; options given here come first."),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    accept_implausible: AcceptImplausible = False,
    full: Full = False,
    track: Annotated[
        str | None, typer.Option(help="Log there too: tensorboard, wandb; commas join.", rich_help_panel=RUNNING)
    ] = None,
    **options: Any,
) -> None:
    """Replace a teacher's gate by a trainable rational function and fine-tune it beside its controls.

    Example: rsae upgrade demo:topk --text news --out runs/topk --train-tokens 200000

    After an interruption: rsae upgrade --out runs/topk --resume

    The same job again: rsae upgrade --settings runs/topk/settings.yaml --out runs/again

    An SAE of another network, on vectors alone: rsae upgrade mine --vectors x.npy --out runs/mine

    As the paper does it: rsae upgrade demo:topk --text news --recipe paper --steps 400 --out runs/paper
    """
    from rational_sae.upgrading.run.schedule import Interval
    from rational_sae.upgrading.settings import NEVER_STORED

    tracked = trackers_of(track)
    interval = Interval(*(options.pop(name) for name in CHECKPOINTS))
    if settings_file is None and resume and (out / "settings.yaml").exists():
        settings_file = out / "settings.yaml"
    settings = _settings({name: value for name, value in options.items() if is_given(ctx, name)}, settings_file)
    folder = folder_of(out, resume=resume, overwrite=overwrite, interval=interval, track=tracked)
    again = ["rsae", "upgrade", "--out", str(out), "--resume"]
    again += given_options(ctx, (*NEVER_STORED, *CHECKPOINTS, "track"))
    try:
        run(settings, folder, again, accept_implausible=accept_implausible, full=full)
    except ImplausibleSAEError as error:
        raise ImplausibleSAEError(error.cause, f"{error.remedy}; --accept-implausible goes on all the same") from error


def _settings(given: dict[str, Any], stored_at: Path | None) -> Any:
    """What is given on the command line, over what is stored, over the defaults. A recipe sets its options anew."""
    from rational_sae.upgrading.settings import RECIPE_OPTIONS, Settings, read_settings

    values = given
    if stored_at is not None:
        others = RECIPE_OPTIONS if "recipe" in given else ()
        values = {name: value for name, value in read_settings(stored_at).items() if name not in others} | given
    if "teacher" not in values:
        raise typer.BadParameter("give TEACHER, or --settings FILE")
    if "text" not in values and "vectors" not in values:
        raise typer.BadParameter("give --text, --vectors or --settings FILE")
    return checked(Settings, **values)
