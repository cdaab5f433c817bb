"""Nothing heavy is imported before it is needed: that is what keeps `import rational_sae` and `rsae --help` quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "transformers", "sae_lens", "pydantic", "altair", "jinja2", "yaml", "safetensors")

HELP = """
import sys
from rational_sae.cli import app
try:
    app(["--help"])
except SystemExit as end:
    assert end.code == 0
"""


@pytest.mark.parametrize("code", ["import rational_sae", HELP], ids=["import", "help"])
def test_heavy_packages_are_not_imported(code: str) -> None:
    tell = f"\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code + tell], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines()[-1] == "[]"


def test_the_package_still_gives_what_it_promises() -> None:
    code = "import rational_sae; print(rational_sae.SAE.__name__, rational_sae.fit.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["SAE", "fit"]
