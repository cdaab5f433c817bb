"""rsae bench: what a step costs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import Json


def bench(
    d_in: Annotated[int | None, typer.Option("--d-in", min=1, help="Width of the residual stream.")] = None,
    d_sae: Annotated[int | None, typer.Option("--d-sae", min=2, help="Latents.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Tokens of one step.")] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option()] = "cpu",
    json_file: Json = None,
) -> None:
    """What a fine-tuning step costs here, beside the bare products and other tools' steps, in one run.

    Three standard shapes, some minutes and 6 GB; or one of yours. SAELens, sparsify and dictionary_learning are timed
    where they are installed.

    Example: rsae bench --d-in 576 --d-sae 4608 --batch 1024 --json -
    """
    from dataclasses import replace

    from rational_sae.bench import SHAPES
    from rational_sae.bench import bench as run
    from rational_sae.report.bench_table import print_bench

    given = {"d_in": d_in, "d_sae": d_sae, "batch": batch}
    chosen = {name: value for name, value in given.items() if value is not None}
    with terminal.bars() as bars:
        found = run([replace(SHAPES[0], **chosen)] if chosen else SHAPES, device=device, progress=bars)
    terminal.emit(found, json_file)
    print_bench(found, terminal.results(json_file))
