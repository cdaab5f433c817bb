"""Options that several commands have, and how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from rational_sae.support.outputs import check_file
from rational_sae.support.safe_text import name_of

Checked = TypeVar("Checked")


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


def checked(kind: Callable[..., Checked], **values: Any) -> Checked:
    """Options as a class of settings; what it refuses is a wrong use of the command."""
    from pydantic import ValidationError

    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + ".".join(map(str, first["loc"][:1])).replace("_", "-") if first["loc"] else "options"
        raise typer.BadParameter(f"{option}: {first['msg']}") from None


def _writable(value: str | None) -> str | None:
    """Looked at before any work is done."""
    if value is not None and value != "-":
        check_file(Path(value))
    return value


Json = Annotated[str | None, typer.Option("--json", help="Write JSON to this file; - for stdout.", callback=_writable)]
AcceptImplausible = Annotated[
    bool, typer.Option("--accept-implausible", help="Go on with an SAE that does not explain the activations.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the result or job in --out; other files there stay.")
]
Model = Annotated[str | None, typer.Option(help="Hub id, folder, .gguf, smollm2 or gemma3-270m. [default: the SAE's]")]
HookName = Annotated[
    str | None, typer.Option(help="model.layers.11 or blocks.11.hook_resid_post. [default: the SAE's]")
]
TextName = Annotated[str, typer.Option(help=".txt, .jsonl[.gz], a folder, hf:NAME[/CONFIG][:SPLIT], or news.")]
Probe = Annotated[
    list[str] | None,
    typer.Option(
        help="Task to probe on, any number: a .jsonl[.gz] with text and label, hf:NAME[/CONFIG][:SPLIT], "
        "question-type, movie-sentiment, sms-spam, language, or first-letter (absorption)."
    ),
]
ProbeTrain = Annotated[int, typer.Option(help="Most training texts of a probe; fewer are quicker.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a job into --out stopped, to the same bits.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model. Read it first.")
]
Cache = Annotated[
    Path | None,
    typer.Option(**PATH, help="Folder that keeps the model's activations for other jobs."),
]
CacheGb = Annotated[
    float, typer.Option("--cache-gb", min=0.001, max=1e6, help="Largest size of --cache, in 1e9 bytes.")
]
CheckpointSteps = Annotated[int, typer.Option(min=1, help="Steps between checkpoints, at most.")]
CheckpointSeconds = Annotated[float, typer.Option(min=0, help="Seconds between checkpoints, at most.")]
Device = Annotated[
    str, typer.Option(help="auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:1, or another with float64.")
]
EvalTokens = Annotated[int, typer.Option(help="Test tokens.")]
Seed = Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="Of the data order, calibration and bootstrap.")]
Bos = Annotated[Literal["auto", "yes", "no"], typer.Option(help="Start sequences with BOS.")]


def degrees_of(value: str) -> tuple[int, int]:
    parts = value.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise typer.BadParameter(f"--type {value!r} is not P,Q, such as 9,8")
    return int(parts[0]), int(parts[1])


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


def not_stored(trust_remote_code: bool, cache: Path | None, cache_gb: float) -> dict[str, Any]:
    """Options that no file may hold: only who runs a job says them, and they change no result."""
    return {"trust_remote_code": trust_remote_code, "cache": cache, "cache_gb": cache_gb}
