"""GRID.yaml: which teachers are upgraded, with which settings, and where learning rates are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rational_sae.data.reading import refuse_trust
from rational_sae.errors import OutputError
from rational_sae.support.files import read_yaml
from rational_sae.upgrading.settings import Settings, without_removed

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A cell's name is a folder's too."""


class Cell(BaseModel):
    """One teacher."""

    model_config = ConfigDict(extra="forbid")

    teacher: str
    """An SAE's folder."""
    pilot: bool = False
    """Whether learning rates are chosen here, on validation: this cell's, and those of its model and family's cells
    that are no pilots themselves (by the first pilot in the order of the hooks)."""
    development: bool = False
    """Whether design choices were made on it, so that it stays out of the headline."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What differs from the plan's defaults."""


class Plan(BaseModel):
    """A whole sweep."""

    model_config = ConfigDict(extra="forbid")

    defaults: dict[str, Any] = Field(default_factory=dict)
    """Settings of every cell."""
    rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Factors on the learning rates that every row tries in a pilot cell; none: no pilots."""
    cells: dict[Name, Cell] = Field(min_length=1)

    @field_validator("defaults")
    @classmethod
    def _no_teacher(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "teacher" in value:
            raise ValueError("a teacher belongs to a cell")
        return value

    @field_validator("cells")
    @classmethod
    def _pilots_apart(cls, value: dict[str, Cell]) -> dict[str, Cell]:
        """What the pilot NAME chose lies in NAME.json, beside its folder NAME."""
        for name, cell in value.items():
            other = value.get(f"{name}.json")
            if cell.pilot and other is not None and other.pilot:
                raise ValueError(f"the pilots {name} and {name}.json would write one file; rename one of them")
        return value

    def settings(self, name: str) -> Settings:
        """Settings of one cell, before its learning rates are known."""
        cell = self.cells[name]
        return Settings.model_validate({**self.defaults, **cell.settings, "teacher": cell.teacher})


def read_plan(path: Path) -> Plan:
    """Read GRID.yaml, and check the settings of every cell. Raises OutputError with the place that is wrong, or
    SettingsError if it holds an option that was removed."""
    remedy = "see configs/grid.yaml for an example"
    content = read_yaml(path, OutputError, remedy)
    try:
        refuse_trust(content, str(path))
        plan = Plan.model_validate(content)
        plan.defaults = without_removed(plan.defaults, f"{path}: defaults")
        for name, cell in plan.cells.items():
            cell.settings = without_removed(cell.settings, f"{path}: cell {name}")
        for name in plan.cells:
            plan.settings(name)
    except RecursionError as error:
        raise OutputError(f"{path} holds itself", remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise OutputError(f"{path}: {place}: {first['msg']}", remedy) from error
    return plan
