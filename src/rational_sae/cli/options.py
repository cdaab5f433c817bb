"""Options of several commands, and how a command says which fields of the settings it takes as options.

Those of the settings are made by `from_settings.py`, when a command is used: the class of settings loads torch, which
`rsae --help` must not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from rational_sae.support.outputs import check_file
from rational_sae.support.safe_text import name_of

Checked = TypeVar("Checked")
Function = TypeVar("Function", bound=Callable[..., Any])

RUNNING = "Running"

PANELS: dict[str, tuple[str, ...]] = {
    "Input": ("text", "chat", "chat_tokens", "vectors", "model", "hook", "context", "bos", "trust_remote_code"),
    "Gate and training": (
        *("recipe", "gate", "type", "looks", "calibrate", "revive", "refit_decoder", "controls", "target_l0"),
        *("objective", "kl_share", "adapter_rank", "pilot"),
        *("steps", "batch_tokens", "train_tokens"),
    ),
    "Evaluation": (
        *("eval_tokens", "probes", "probe_train", "probe_tasks", "probe_texts", "random", "least_effect"),
        "also",
    ),
    RUNNING: ("seed", "device", "cache", "cache_gb", "checkpoint_steps", "checkpoint_seconds"),
}
"""The fields of the settings that are options, in the order and under the headings of `--help`."""

EVERY = tuple(name for names in PANELS.values() for name in names)
READING = ("text", "model", "hook", "context", "bos", "device")
CHECKPOINTS = ("checkpoint_steps", "checkpoint_seconds")


@dataclass(frozen=True)
class Taken:
    """Fields of the settings that a command takes, as keyword arguments."""

    names: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Of these, what must be given."""
    says: Mapping[str, str] = field(default_factory=dict)
    """Other help for a field that means something else here; {} stands for its own."""


TAKEN: dict[str, Taken] = {}
"""By the name of the command."""


def takes(
    *names: str, needs: tuple[str, ...] = (), says: Mapping[str, str] | None = None
) -> Callable[[Function], Function]:
    """Mark a command that has fields of the settings as options; it gets them as **options."""

    def mark(function: Function) -> Function:
        TAKEN[function.__name__] = Taken(names, needs, says or {})
        return function

    return mark


def path_of(given: str | Path) -> Path:
    """A path that the system can take: not empty, no name too long, no loop of links on the way."""
    if not str(given):
        raise typer.BadParameter("an empty path")
    try:
        os.stat(given)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise typer.BadParameter(
            f"{name_of(str(given))!r} is no path here ({getattr(error, 'strerror', error)})"
        ) from None
    return Path(given)


PATH: dict[str, Any] = {"parser": path_of, "metavar": "PATH"}
"""For options that are paths."""


def degrees_of(value: str) -> tuple[int, int]:
    """Degrees P,Q of a rational function."""
    parts = value.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise typer.BadParameter(f"{value!r} is not P,Q, such as 9,8", param_hint="--type")
    return int(parts[0]), int(parts[1])


def checked(kind: Callable[..., Checked], **values: Any) -> Checked:
    """Options as a class of settings; what it refuses is a wrong use of the command."""
    from pydantic import ValidationError

    try:
        return kind(**values)
    except ValidationError as error:
        from rational_sae.cli.from_settings import flag_of

        first = error.errors(include_url=False)[0]
        option = flag_of(str(first["loc"][0])) if first["loc"] else "options"
        raise typer.BadParameter(f"{option}: {first['msg']}") from None


def _writable(value: str | None) -> str | None:
    """Looked at before any work is done."""
    if value is not None and value != "-":
        check_file(Path(value))
    return value


Json = Annotated[
    str | None,
    typer.Option("--json", help="Write JSON to this file; - for stdout.", callback=_writable, rich_help_panel=RUNNING),
]
Full = Annotated[
    bool, typer.Option("--full", help="Every row and difference, not the answer alone.", rich_help_panel=RUNNING)
]
AcceptImplausible = Annotated[
    bool,
    typer.Option(
        "--accept-implausible",
        help="Go on with an SAE that does not explain the activations.",
        rich_help_panel=RUNNING,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace the result or job in --out; other files there stay.", rich_help_panel=RUNNING
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on where a job into --out stopped, to the same bits.", rich_help_panel=RUNNING),
]


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def given_options(ctx: typer.Context, names: Iterable[str]) -> list[str]:
    """Those of the options that stand on the command line, as arguments again."""
    found: list[str] = []
    for parameter in ctx.command.params:
        if parameter.name in names and is_given(ctx, parameter.name):
            value = ctx.params[parameter.name]
            found += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
    return found
