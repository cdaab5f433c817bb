"""rsae push: an SAE on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import path_of


def push(
    folder: Annotated[
        Path, typer.Argument(parser=path_of, metavar="DIR", help="An SAE folder, or an --out folder with sae/ in it.")
    ],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; created if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Create it private.")] = False,
) -> None:
    """Upload an SAE and its model card to the Hugging Face hub, with the token of `hf auth login`.

    Example: rsae push runs/demo me/smollm2-rational-sae --private
    """
    from rational_sae.publish.push import push as run

    terminal.result(f"pushed: {run(folder, repo, private=private)}")
