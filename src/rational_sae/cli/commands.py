"""The commands as typer has them: listed without the settings, which load torch, and complete once they are used."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from rational_sae.cli import terminal
from rational_sae.cli.options import EVERY, RUNNING, TAKEN
from rational_sae.support.interrupt import shielded

HELP = {"help_option_names": ["-h", "--help"]}


class Commands(TyperGroup):
    """All of them; Ctrl-C in one that does not say itself how to go on ends in one line."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _told():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _told():
            return super().invoke(ctx)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """typer itself makes exit code 130 of a Ctrl-C, without a word."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.say("interrupted; run the same command again", always=True)
        raise typer.Exit(130) from None


def add(app: typer.Typer, function: Callable[..., None]) -> None:
    """Register a command; with options of the settings (see `takes`) if it has them."""
    if function.__name__ not in TAKEN:
        app.command(context_settings=HELP)(function)
        return

    @functools.cache
    def whole() -> Any:
        alone = typer.Typer(add_completion=False, rich_markup_mode=app.rich_markup_mode)
        alone.command(context_settings=HELP)(_signed(function, _signature(function)))
        return get_command(alone)

    class Later(TyperCommand):
        """Its parameters are made when they are asked for."""

        @property
        def params(self) -> Any:
            return whole().params

        @params.setter
        def params(self, _none: Any) -> None:  # type: ignore[override]
            """Those that a command is made with are none."""

        def invoke(self, ctx: Any) -> Any:
            return ctx.invoke(whole().callback, **ctx.params)

    app.command(cls=Later, context_settings=HELP)(_signed(function, inspect.Signature()))


def _signed(function: Callable[..., None], signature: inspect.Signature) -> Callable[..., None]:
    """The function under another signature."""

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> None:
        function(*args, **options)

    called.__signature__ = signature  # type: ignore[attr-defined]
    return called


def _signature(function: Callable[..., None]) -> inspect.Signature:
    """Of a command with its options of the settings, in the order of `--help`."""
    with shielded():  # a Ctrl-C that falls into the import of NumPy by torch is lost there, and breaks the import
        from rational_sae.cli.from_settings import parameter

    taken = TAKEN[function.__name__]
    own = inspect.signature(function, eval_str=True).parameters.values()
    found = [one.replace(kind=one.KEYWORD_ONLY) for one in own if one.kind is not one.VAR_KEYWORD]
    found += [parameter(name, taken) for name in taken.names]

    def place(one: inspect.Parameter) -> int:
        """Those of the command itself first, but what concerns running at the end."""
        told = getattr(one.annotation, "__metadata__", (None,))[0]
        own = len(EVERY) if getattr(told, "rich_help_panel", None) == RUNNING else -1
        return EVERY.index(one.name) if one.name in EVERY else own

    return inspect.Signature(sorted(found, key=place))
