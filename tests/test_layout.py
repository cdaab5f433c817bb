"""Data flows down: a stage imports only from the stages above it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rational_sae

PICTURE = Path(__file__).parents[1] / "CONTRIBUTING.md"

ROOMS = re.findall(r"│ ([a-z_]+)", PICTURE.read_text(encoding="utf-8").partition("```rooms")[2].partition("```")[0])
"""Modules and sub-packages of `rational_sae`, each allowed to import from those before it; read from the picture."""

ORDER = [*ROOMS, "__main__"]

ROOT = Path(str(rational_sae.__file__)).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def stage(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_stages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and stage of every import from this package, those inside functions too."""
    package = [ROOT.name, *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from rational_sae import x` names the stage in x.
            names = [f"{module}.{alias.name}" for alias in node.names] if module == ROOT.name else [module]
        for name in names:
            parts = name.split(".")
            if parts[0] == ROOT.name:
                assert len(parts) > 1, f"{path}:{node.lineno} imports the package's root"  # type: ignore[attr-defined]
                yield node.lineno, parts[1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_stage_imports_only_from_stages_above_it(path: Path) -> None:
    own = stage(path)
    assert own in ORDER, f"{own} is not in the picture: give it a place"
    allowed = ORDER[: ORDER.index(own) + (path.parent != ROOT)]
    for line, imported in imported_stages(path):
        assert imported in allowed, f"{path.relative_to(ROOT)}:{line} imports {imported}, which comes after {own}"


def test_the_picture_names_each_room_once_and_no_other() -> None:
    assert len(set(ORDER)) == len(ORDER)
    assert {stage(path) for path in MODULES} == set(ORDER)
