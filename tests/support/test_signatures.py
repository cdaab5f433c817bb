"""Functions that take the fields of a settings class: what help() shows, and what is said of a wrong one."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rational_sae.errors import SettingsError
from rational_sae.support.signatures import checked, takes_fields_of


class Colours(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str = "red"
    hue: Annotated[float, Field(gt=0)] | None = None
    """Where it lies
    on the wheel.

    In degrees."""
    seeds: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_grey(self) -> Colours:
        if self.name == "grey":
            raise ValueError("grey is none")
        return self


@takes_fields_of(Colours, without=("seeds",))
def paint(name: str, *, twice: bool = False, **options: Any) -> Colours:
    """Paint."""
    return checked(Colours, name=name, **options)


def test_help_shows_each_field_with_type_default_and_first_paragraph() -> None:
    parameters = inspect.signature(paint).parameters
    assert list(parameters) == ["name", "twice", "hue"]
    assert (parameters["hue"].default, parameters["hue"].annotation) == (None, float | None)
    assert inspect.getdoc(paint) == "Paint.\n\nOptions:\n    hue: Where it lies on the wheel."
    assert paint("blue", hue=1.0).hue == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hue": -1.0}, "hue: Input should be greater than 0; give another value"),
        ({"hues": 1.0}, "hues is no option; there are: name, hue, seeds"),
        ({"name": "grey"}, "options: grey is none; give another value"),
    ],
)
def test_a_wrong_field_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        checked(Colours, **options)
