"""The floors of pyproject.toml: what `make test-floors` pins, and that it leaves nothing out."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def versions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("versions", ROOT / ".ci" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pins_are_the_floors_with_extras_and_markers(versions: ModuleType) -> None:
    text = """
    [project]
    name = "ours"
    dependencies = ["numpy>=2.0", "typing-extensions>=4.12"]
    [project.optional-dependencies]
    gpu = ["triton>=3.2; platform_system == 'Linux'"]
    dev = ["ours[gpu]", "pyright[nodejs]>=1.1"]
    """
    assert versions.floors(text) == [
        ("numpy", "numpy==2.0", "numpy"),
        ("typing-extensions", "typing-extensions==4.12", "typing-extensions"),
        ("triton", "triton==3.2; platform_system == 'Linux'", "triton; platform_system == 'Linux'"),
        ("pyright", "pyright[nodejs]==1.1", "pyright[nodejs]"),
    ]


@pytest.mark.parametrize("requirement", ["numpy", "numpy==2.0", "numpy>=2.0,<3", "numpy @ https://a/b.whl"])
def test_a_requirement_without_a_plain_floor_is_an_error(versions: ModuleType, requirement: str) -> None:
    text = f'[project]\nname = "ours"\ndependencies = ["{requirement}"]\n[project.optional-dependencies]\n'
    with pytest.raises(ValueError, match="has no floor"):
        versions.floors(text)


def test_every_requirement_of_this_project_is_pinned(versions: ModuleType) -> None:
    project = tomllib.loads(PYPROJECT)["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    names = {re.split(r"[\[>=;]", one)[0] for one in (*project["dependencies"], *extras)} - {project["name"]}
    assert {one.name for one in versions.floors(PYPROJECT)} == names


def test_the_core_tests_exist(versions: ModuleType) -> None:
    for name in versions.CORE:
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), path
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8") if test else True, name
