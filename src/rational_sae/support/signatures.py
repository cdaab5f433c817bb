"""Functions whose keyword options are the fields of a settings class: `help()` shows each with its type and default."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import TypeVar, get_type_hints

from pydantic import BaseModel, ValidationError

from rational_sae.errors import SettingsError

Function = TypeVar("Function", bound=Callable[..., object])
Settings = TypeVar("Settings", bound=BaseModel)


def takes_fields_of(kind: type[BaseModel], *, without: Collection[str] = ()) -> Callable[[Function], Function]:
    """Put the fields of a class in place of `**options` in a function's signature, and their help after its docstring.

    A field that the function has a parameter for is left out, like those that are named in `without`.

    >>> class Colours(BaseModel):
    ...     seed: int = 0
    >>> @takes_fields_of(Colours)
    ... def paint(what: str, **options: object) -> None:
    ...     '''Paint it.'''
    >>> print(inspect.signature(paint))
    (what: str, *, seed: int = 0) -> None
    """

    def with_fields(function: Function) -> Function:
        own = inspect.signature(function)
        hints = get_type_hints(function)
        parameters = [
            one.replace(annotation=hints.get(one.name, one.annotation))
            for one in own.parameters.values()
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        taken = {one.name for one in parameters} | set(without)
        fields = {name: field for name, field in kind.model_fields.items() if name not in taken}
        types = get_type_hints(kind)  # without pydantic's bounds
        parameters += [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.get_default(call_default_factory=True),
                annotation=types[name],
            )
            for name, field in fields.items()
        ]
        returns = hints.get("return", own.return_annotation)
        returns = None if returns is type(None) else returns
        function.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
        helped = {name: field.description for name, field in fields.items() if field.description}
        lines = [f"    {name}: {' '.join(text.partition(chr(10) * 2)[0].split())}" for name, text in helped.items()]
        if lines:
            function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Options:", *lines])
        return function

    return with_fields


def checked(kind: type[Settings], **values: object) -> Settings:
    """Settings of these values. Raises SettingsError with one line where pydantic has many."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "options"
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"{place} is no option", f"there are: {', '.join(kind.model_fields)}") from error
        raise SettingsError(f"{place}: {first['msg'].removeprefix('Value error, ')}", "give another value") from error
