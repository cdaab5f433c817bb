"""`rational_sae.evaluate`: SAEs side by side, from files or from memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import torch
from typing_extensions import Unpack

from rational_sae.data.reading import Reading
from rational_sae.data.tokens import Sink
from rational_sae.errors import SettingsError
from rational_sae.evaluation import run
from rational_sae.evaluation.probing import Protocol
from rational_sae.evaluation.result import Evaluation
from rational_sae.evaluation.suite.tasks import Size
from rational_sae.formats import load
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress
from rational_sae.support.signatures import checked, takes_fields_of


class ReadingOptions(TypedDict, total=False):
    """The fields of `Reading` but `text`, for type checkers; what each means stands there."""

    chat: bool
    chat_tokens: Literal["assistant", "all"]
    also: str | None
    model: str | None
    hook: str | None
    context: int | None
    bos: Literal["auto", "yes", "no"]
    sink: Sink
    positions: tuple[int, int, int] | None
    device: str
    precision: Literal["float32", "bfloat16"]
    trust_remote_code: bool
    cache: Path | None
    cache_gb: float


@takes_fields_of(Reading)
def evaluate(
    saes: Mapping[str, SAE | str | Path] | Sequence[str | Path] | str | Path,
    text: str | Path = "news",
    *,
    eval_tokens: int = run.EVAL_TOKENS,
    probes: Sequence[str] = (),
    probe_train: int = Protocol().train,
    probe_tasks: int | None = None,
    probe_texts: int = Size().texts,
    random: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Unpack[ReadingOptions],
) -> Evaluation:
    """Measure SAEs of one hook on the same held-out tokens: reconstruction, ΔCE, loss recovered, KL, probes.

    >>> found = rational_sae.evaluate({"teacher": "path/to/teacher", "mine": sae}, text="news")  # doctest: +SKIP
    >>> found.rows["mine"]["fvu_at_l0"], found.compare("mine").delta_ce_at_l0.value  # doctest: +SKIP
    >>> found.save("runs/compared")  # doctest: +SKIP

    saes: by name, or a list of paths; each is a path, `hub:OWNER/REPO[/PATH]`, `saelens:RELEASE/ID`, or an SAE in
    memory (W_enc [d_in, d_sae], any dtype), which stays as it is: a float32 copy of it is measured. The first is what
    the others are compared with, at its L0 too. text: .txt, .jsonl[.gz], a folder of them, hf:NAME[/CONFIG][:SPLIT], or
    news. eval_tokens: test tokens. seed: of the bootstrap.

    probes: tasks, `sae-probes[:TASK]`, or `first-letter` for feature absorption. probe_train: most training texts of a
    task; probe_tasks, probe_texts: how many tasks of sae-probes (default: all), and most texts of a class in them.
    random: probe an SAE of random weights too.

    progress: who is told of the stages; default: bars in a terminal and in a notebook, nothing in a log. The other
    options are those of `Reading`, by default from the first SAE's config.

    Raises RationalSAEError with a one-line reason if an input cannot be used.
    """
    named = {str(saes): saes} if isinstance(saes, str | Path) else saes
    named = dict(named) if isinstance(named, Mapping) else {str(one): one for one in named}
    if not named:
        raise SettingsError("no SAE was given", "give one or more")
    reading = checked(Reading, text=str(text), **options)
    with contextlib.ExitStack() as stack:
        if progress is None:
            from rational_sae.support.bars import watched  # rich is slow to import

            progress = stack.enter_context(watched())
        found = run.evaluate(
            {name: own_copy(one) if isinstance(one, SAE) else load(str(one)) for name, one in named.items()},
            reading,
            eval_tokens=eval_tokens,
            probes=probes,
            protocol=Protocol(probe_train),
            size=Size(probe_tasks, probe_texts),
            random=random,
            seed=seed,
            progress=progress,
        )
    asked = {"saes": list(named), "eval_tokens": eval_tokens, **reading.model_dump(mode="json")}
    return Evaluation(results=found, asked=asked)


def own_copy(sae: SAE) -> SAE:
    """A float32 copy of an SAE in memory, because what measures an SAE moves it and notes what it read otherwise."""
    return copy.deepcopy(sae).to(torch.float32)
