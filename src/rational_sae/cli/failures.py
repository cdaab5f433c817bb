"""How the command ends when something goes wrong: one line on stderr, and the traceback where it can be asked for."""

from __future__ import annotations

import tempfile
import time
import traceback
from pathlib import Path

import typer

from rational_sae.cli import terminal
from rational_sae.errors import LONGEST_CAUSE, RationalSAEError, bounded
from rational_sae.support.paths import log_dir
from rational_sae.support.safe_text import printable, redact

UsageError = typer.BadParameter.__mro__[1]
"""Of the click that typer brings or imports, by version."""

PACKAGE = Path(__file__).parents[1]


def end(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, in one line. debug: with the traceback before it. Returns the exit code."""
    if debug:
        terminal.console.print(_traceback(error), markup=False, highlight=False, soft_wrap=True)
    if isinstance(error, RationalSAEError):
        terminal.say(str(error), head="error:")
        return 1
    if isinstance(error, UsageError):
        return _usage(error)
    what = bounded(f"{type(error).__name__}: {error}", LONGEST_CAUSE)
    terminal.say(
        f"unexpected {what}{_place(error)}; {'a fault of this program' if debug else _kept(error)}", head="error:"
    )
    return 1


def _usage(error: BaseException) -> int:
    """A wrong option: which, and where help is; the help itself where nothing was given."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return 2
    said = bounded(error.format_message(), LONGEST_CAUSE).rstrip(".")  # type: ignore[attr-defined]
    help_at = f"; see {context.command_path} --help" if context is not None else ""
    terminal.say(f"{said}{help_at}", head="error:")
    return 2


def _place(error: BaseException) -> str:
    """The deepest line of this package that the error passed, as " (file:line)"."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(PACKAGE)
    ]
    if not frames:
        return ""
    return f" ({Path(frames[-1].filename).relative_to(PACKAGE.parent).as_posix()}:{frames[-1].lineno})"


def _traceback(error: BaseException) -> str:
    """Without values of variables, access tokens and control characters."""
    return printable(redact("".join(traceback.format_exception(error))))


def _kept(error: BaseException) -> str:
    """Write the traceback into a file that only its owner reads, and say where."""
    content = f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{_traceback(error)}".encode("utf-8", "backslashreplace")
    for folder in (log_dir(), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix="rsae-", suffix=".txt", dir=folder, delete=False) as file:
                file.write(content)
        except OSError:
            continue
        return f"its traceback is in {file.name}, and rsae --debug shows it"
    return "rsae --debug shows its traceback"
