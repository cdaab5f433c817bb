"""Options of the command line out of the settings: name, type, bounds, default and help are those of the field.

Loads torch, as the settings do: `commands.py` imports it when a command is used, not when it is listed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from rational_sae.cli.options import PANELS, PATH, RUNNING, Taken, degrees_of
from rational_sae.gates.registry import TRAINED
from rational_sae.upgrading.run.schedule import EVERY_SECONDS, EVERY_STEPS
from rational_sae.upgrading.settings import DEFAULT_TYPE, Control, Settings

NAMED_CONTROLS = get_args(Control)


def controls_of(value: str) -> tuple[str, ...] | str:
    if value in ("all", "none"):
        return value  # which those are depends on other settings
    chosen = tuple(part.strip() for part in value.split(","))
    for one in chosen:
        if one not in NAMED_CONTROLS:
            raise typer.BadParameter(f"{one!r}: choose from {', '.join(NAMED_CONTROLS)}, all, none")
    return chosen


def target_of(value: str) -> float | None:
    if value == "teacher":
        return None
    try:
        return float(value)
    except ValueError as error:
        raise typer.BadParameter(f"{value!r} is neither teacher nor a number") from error


@dataclass(frozen=True)
class Spelling:
    """How an option is written where that is not as the field is."""

    flag: str = ""
    read: dict[str, Any] | None = None
    """`parser` and `metavar`; the option is then text."""
    default: Callable[[Any], Any] = lambda default: default
    """What is shown, of the field's default."""


SPELLED = {
    "text": Spelling(default=lambda _news: None),  # said by whoever runs a job, never assumed
    "type": Spelling(
        read={"parser": degrees_of, "metavar": "P,Q"}, default=lambda _none: ",".join(map(str, DEFAULT_TYPE))
    ),
    "controls": Spelling("--control", {"parser": controls_of, "metavar": "NAMES"}, ",".join),
    "target_l0": Spelling(read={"parser": target_of, "metavar": "teacher|NUMBER"}, default=lambda _none: "teacher"),
    "probes": Spelling("--probe", default=lambda _empty: None),
    "cache": Spelling(read=PATH),
}

OTHERS: dict[str, tuple[type, Any, dict[str, Any]]] = {
    "checkpoint_steps": (int, EVERY_STEPS, {"min": 1, "metavar": "N", "help": "Steps between checkpoints, at most."}),
    "checkpoint_seconds": (
        float,
        EVERY_SECONDS,
        {"min": 0, "metavar": "X", "help": "Seconds between checkpoints, at most."},
    ),
}
"""Options that decide no result, and so are no settings: type, default, what typer is told."""


def parameter(name: str, taken: Taken) -> inspect.Parameter:
    """A command's keyword argument for a field of the settings, as typer reads it."""
    if name in OTHERS:
        kind, default, told = OTHERS[name]
        return _keyword(name, kind, default, typer.Option(**told, rich_help_panel=RUNNING))
    info, spelled = Settings.model_fields[name], SPELLED.get(name, Spelling())
    said = (info.description or "").partition("\n\n")[0].replace("\n", " ")  # no words without the source's text
    told: dict[str, Any] = {"help": taken.says.get(name, "{}").replace("{}", said), **(spelled.read or _bounds(info))}
    told |= {} if spelled.read else _short(_kind(name))
    default = spelled.default(None if info.is_required() else info.default)
    if name == "teacher":
        told["metavar"] = "TEACHER"
        return _keyword(name, str | None, default, typer.Argument(**told))
    kind = str | None if spelled.read else _kind(name)
    flag = flag_of(name)
    if kind is bool and default:
        flag += f"/--no-{flag.removeprefix('--')}"
    panel = next(panel for panel, names in PANELS.items() if name in names)
    default = inspect.Parameter.empty if name in taken.needs else default
    return _keyword(name, kind, default, typer.Option(flag, **told, rich_help_panel=panel))


METAVARS = {int: "N", float: "X", str: "NAME", bool: ""}
"""What stands for a value in the help: short, so that at 80 columns no option's name is cut."""
LARGEST_SHOWN = 9999
"""Largest allowed value that is worth its room in the help."""
WIDEST_CHOICE = 18
"""Characters of a list of choices that the column of values has room for."""


def _short(kind: Any) -> dict[str, str]:
    """What stands for a value in the help; choices themselves where there is room."""
    kinds = (
        [one for one in get_args(kind) if one is not type(None)] if get_origin(kind) in (Union, UnionType) else [kind]
    )
    kind = get_args(kinds[0])[0] if get_origin(kinds[0]) is list else kinds[0]
    if get_origin(kind) is Literal:
        return {} if len("|".join(get_args(kind))) <= WIDEST_CHOICE else {"metavar": "NAME"}
    return {"metavar": METAVARS[kind]} if kind in METAVARS else {}


def flag_of(name: str) -> str:
    """What a field of the settings is called on the command line."""
    return SPELLED.get(name, Spelling()).flag or f"--{name.replace('_', '-')}"


def _keyword(name: str, kind: Any, default: Any, told: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, told])


def _kind(name: str) -> Any:
    """A field's type without its bounds; any number of something is a list to typer, a name of a gate one that is
    registered."""
    if name == "gate":
        return Literal[tuple(TRAINED)]
    kind = get_type_hints(Settings)[name]
    return list[get_args(kind)[0]] | None if get_origin(kind) is tuple else kind


def _bounds(info: FieldInfo) -> dict[str, Any]:
    """The least and the largest value, as typer shows and checks them; what is open, and largest values that nobody
    comes near, are left to the settings."""
    found = {"min": "ge", "max": "le"}
    bounds = {key: getattr(at, name) for at in info.metadata for key, name in found.items() if hasattr(at, name)}
    return {key: value for key, value in bounds.items() if key == "min" or value <= LARGEST_SHOWN}
