"""rsae demo: the whole job on embedded inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rational_sae.cli.job import folder_of, run
from rational_sae.cli.options import PATH, Full, Overwrite, Resume, checked, takes


@takes("seed")
def demo(
    family: Annotated[Literal["relu", "jumprelu", "topk"], typer.Option(help="Which teacher.")] = "topk",
    out: Annotated[Path, typer.Option(**PATH, help="Where the result goes.")] = Path("runs/demo"),
    resume: Resume = False,
    overwrite: Overwrite = False,
    full: Full = False,
    **options: Any,
) -> None:
    """The whole job on embedded inputs.

    Example: rsae demo --family jumprelu --out runs/jumprelu
    """
    from rational_sae.demo import demo_settings

    seed = options["seed"]
    again = ["rsae", "demo", "--family", family, "--seed", str(seed), "--out", str(out), "--resume"]
    folder = folder_of(out, resume=resume, overwrite=overwrite)
    run(checked(demo_settings, family=family, seed=seed), folder, again, full=full)
