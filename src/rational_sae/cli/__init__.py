"""The command `rsae`: one thin subcommand a stage, a file each."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rational_sae.cli import failures, terminal
from rational_sae.cli.bench import bench
from rational_sae.cli.commands import HELP, Commands, add
from rational_sae.cli.demo import demo
from rational_sae.cli.evaluate import evaluate
from rational_sae.cli.export import export
from rational_sae.cli.fit import fit
from rational_sae.cli.headroom import headroom
from rational_sae.cli.inspect import inspect
from rational_sae.cli.latent import latent
from rational_sae.cli.push import push
from rational_sae.cli.report import report
from rational_sae.cli.status import status
from rational_sae.cli.sweep import sweep
from rational_sae.cli.theory import theory
from rational_sae.cli.upgrade import upgrade
from rational_sae.support.interrupt import end_like_ctrl_c

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they could hold access tokens
)
for _command in (
    demo,
    upgrade,
    evaluate,
    headroom,
    fit,
    inspect,
    latent,
    export,
    push,
    report,
    sweep,
    status,
    theory,
    bench,
):
    add(app, _command)


DEBUG = False
"""Whether tracebacks are shown."""


EPILOG = """\
Exit codes: 0 done, 1 refused, 2 wrong use, 130 interrupted; a job that was interrupted goes on with --resume.

Environment: RSAE_CACHE (folder of models and text that are fetched), OMP_NUM_THREADS (threads), HF_TOKEN and HF_HOME
(the hub), NO_COLOR, COLUMNS.
"""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        terminal.result(f"rsae {version('rational-sae')}")
        raise typer.Exit


@app.callback(epilog=EPILOG, context_settings=HELP)
def rsae(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks: results alone.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say versions, threads and what the libraries remark.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Upgrade a pretrained sparse autoencoder to a rational one, with a report you can believe."""
    global DEBUG
    DEBUG = debug
    terminal.quiet = quiet
    if verbose:
        terminal.tell_surroundings()


def main() -> None:
    """Entry point: exit codes 0 done, 1 refused, 2 wrong use, 130 interrupted."""
    end_like_ctrl_c()
    try:
        code = app(standalone_mode=False, prog_name="rsae")
    except (KeyboardInterrupt, typer.Abort):
        terminal.say("interrupted; run the same command again", always=True)
        code = 130
    except Exception as error:
        code = failures.end(error, debug=DEBUG)
    sys.exit(code if isinstance(code, int) else 0)
