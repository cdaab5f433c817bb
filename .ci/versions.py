"""The core tests under the lowest versions that pyproject.toml allows, or under the newest there are.

    python .ci/versions.py lowest|newest [--torch]

Each runs in a virtual environment of its own, .venv-lowest or .venv-newest. The pins of `lowest` are the floors of
pyproject.toml, those of the extras included, so there is no second list; what these packages need in turn is the newest
that fits. torch is taken as constraints.txt pins it, because other builds from the index are gigabytes of CUDA;
`--torch` takes its own floor, or its newest, with the triton that belongs to it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

CORE = (
    "tests/rational",  # fits and certificates
    "tests/kernels",
    "tests/gates/test_gate.py",
    "tests/sae/test_sae.py",
    "tests/sae/test_match_l0.py",
    "tests/sae/test_sparse.py",  # the training step
    "tests/formats/test_formats.py",
    "tests/formats/test_parity.py",  # every format beside its owner's code
    "tests/formats/test_save.py",
    "tests/test_saelens.py",
    "tests/data/test_text.py",
    "tests/data/test_tokens.py",
    "tests/data/test_language_model.py",  # language models, GGUF among them
    "tests/data/test_activations.py",
    "tests/evaluation/test_measure.py",
    "tests/evaluation/test_run.py",  # evaluate from files to rows, probes too
    "tests/upgrading/run/test_report_sections.py",  # whole upgrades of tiny models
    "tests/upgrading/run/test_checkpoint.py",
    "tests/report/test_report_page.py",
    "tests/publish/test_card.py",
    "tests/upgrading/run/test_trackers.py",
    "tests/support/test_bars.py",
    "tests/cli/test_cli.py::test_inspect_and_fit_print_json_alone",
    "tests/cli/test_cli.py::test_fit_draws_a_picture_and_refuses_another_ending",
    "tests/cli/test_cli.py::test_every_command_has_help_with_an_example",
)
"""What must hold whatever the versions."""

WITH_TORCH = ("torch", "triton")
"""Built for each other."""

TOOLS = ("ruff", "pyright", "mkdocs-material", "mkdocstrings", "mkdocstrings-python", "nbconvert")
"""They judge the source or write of it, and run nothing of it."""

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[\w,-]+\])?>=(?P<floor>[\w.]+)(?P<marker>\s*;.*)?")


class Floor(NamedTuple):
    """One requirement of pyproject.toml."""

    name: str
    lowest: str
    """Pinned to its floor, as pip takes it."""
    newest: str
    """Without its floor."""


def floors(pyproject: str) -> list[Floor]:
    """Every requirement of a pyproject.toml's text and of its extras. Raises ValueError if one has no floor."""
    project = tomllib.loads(pyproject)["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return [_floor(one) for one in listed if not one.startswith(f"{project['name']}[")]


def _floor(requirement: str) -> Floor:
    found = REQUIREMENT.fullmatch(requirement)
    if not found:
        raise ValueError(f"{requirement!r} has no floor; write it as name>=version")
    name, extras, version, marker = found.group("name", "extras", "floor", "marker")
    start, end = name + (extras or ""), marker or ""
    return Floor(name, f"{start}=={version}{end}", f"{start}{end}")


def installed(which: str, *, torch: bool) -> Path:
    """The Python of the environment, made anew unless it holds the very pins."""
    left_out = TOOLS if torch else (*TOOLS, *WITH_TORCH)
    listed = [one for one in floors((ROOT / "pyproject.toml").read_text(encoding="utf-8")) if one.name not in left_out]
    wanted = [one.lowest if which == "lowest" else one.newest for one in listed]
    wanted += ["--editable", str(ROOT)] + ([] if torch else ["--constraint", str(ROOT / "constraints.txt")])
    folder = ROOT / f".venv-{which}"
    python, stamp = folder / "bin" / "python", folder / ".holds"
    if which == "lowest" and stamp.is_file() and stamp.read_text(encoding="utf-8") == "\n".join(wanted):
        return python
    venv.create(folder, clear=True, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    stamp.write_text("\n".join(wanted), encoding="utf-8")
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("lowest", "newest"))
    parser.add_argument("--torch", action="store_true", help="torch's own floor or newest too, gigabytes")
    args = parser.parse_args()
    python = installed(args.which, torch=args.torch)
    # Old versions of other people's packages warn beside new ones of others; the newest may not warn at all.
    quiet = ["-W", "ignore::DeprecationWarning"] if args.which == "lowest" else []
    pytest = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "not slow", *quiet]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*pytest, *CORE], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
