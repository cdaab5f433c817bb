"""The command `rsae`: one thin subcommand a stage, a file each."""

from __future__ import annotations

import sys

import typer

from rational_sae.cli import terminal
from rational_sae.cli.bench import bench
from rational_sae.cli.evaluate import evaluate
from rational_sae.cli.export import export
from rational_sae.cli.fit import fit
from rational_sae.cli.headroom import headroom
from rational_sae.cli.inspect import inspect
from rational_sae.cli.push import push
from rational_sae.cli.report import report
from rational_sae.cli.status import status
from rational_sae.cli.sweep import sweep
from rational_sae.cli.theory import theory
from rational_sae.cli.upgrade import demo, upgrade
from rational_sae.errors import RationalSAEError
from rational_sae.interrupt import end_like_ctrl_c

__all__ = ["app", "main"]

app = typer.Typer(
    help="Upgrade a pretrained sparse autoencoder to a rational one, with a report you can believe.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they could hold access tokens
)
for _command in (demo, upgrade, evaluate, headroom, fit, inspect, export, push, report, sweep, status, theory, bench):
    app.command()(_command)


def main() -> None:
    """Entry point: exit codes 0 done, 1 refused, 2 usage, 130 interrupted."""
    end_like_ctrl_c()
    try:
        app()
    except RationalSAEError as error:
        terminal.say(" ".join(str(error).split()), head="error:")
        sys.exit(1)
    except KeyboardInterrupt:
        terminal.say("interrupted; nothing was written, run the same command again")
        sys.exit(130)
