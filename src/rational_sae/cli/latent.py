"""rsae latent: one latent of an SAE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import READING, Json, checked, takes


@takes(
    *(*READING, "trust_remote_code", "eval_tokens"),
    says={"text": "Read it, for how often and on what the latent fires: {}", "eval_tokens": "Test tokens of --text."},
)
def latent(
    sae: Annotated[str, typer.Argument(help="File, folder, hub:OWNER/REPO[/PATH], saelens:RELEASE/ID or demo:topk.")],
    number: Annotated[int, typer.Argument(min=0, metavar="J", help="Which latent, from 0.")],
    teacher: Annotated[
        str | None,
        typer.Option(metavar="SAE", help="Show latent J of this SAE, too. [default: of an upgrade, its teacher]"),
    ] = None,
    json_file: Json = None,
    **options: Any,
) -> None:
    """One latent: the formula of its gate, how often it fires and on what, tokens it promotes, its nearest latents.

    The tokens are the ends of its direct effect on the logits: its decoder row through the model's last norm and the
    unembedding. Of an upgraded SAE the teacher's latent is shown below.

    Example: rsae latent demo:topk 12 --text news
    """
    from rational_sae.data.reading import Reading
    from rational_sae.evaluation.latent import latent_card
    from rational_sae.report.latent_card import print_latent
    from rational_sae.upgrading.settings import Settings

    tokens = options.pop("eval_tokens")
    checked(Settings, teacher="any", eval_tokens=tokens)
    given = {name: value for name, value in options.items() if value is not None}
    with terminal.bars() as bars:
        found = latent_card(
            sae,
            number,
            checked(Reading, **given),
            with_text=options["text"] is not None,
            tokens=tokens,
            teacher=_teacher_of(Path(sae)) if teacher is None else teacher,
            progress=bars,
        )
    terminal.emit(found, json_file)
    print_latent(found, terminal.results(json_file))


def _teacher_of(sae: Path) -> str | None:
    """The teacher of an SAE in the folder of an upgrade, as its settings name it."""
    from rational_sae.upgrading.settings import read_settings

    for folder in (sae, sae.parent):
        if (folder / "report.json").is_file() and (folder / "settings.yaml").is_file():
            return read_settings(folder / "settings.yaml")["teacher"]
    return None
