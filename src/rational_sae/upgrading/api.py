"""`rational_sae.upgrade`: the whole job in one call."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

from torch import Tensor
from typing_extensions import Unpack

from rational_sae.data.vectors import Given
from rational_sae.errors import OutputError, SettingsError
from rational_sae.evaluation.api import ReadingOptions, own_copy
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress
from rational_sae.support.signatures import checked, takes_fields_of
from rational_sae.upgrading import job
from rational_sae.upgrading.result import Upgrade
from rational_sae.upgrading.run.folder import JobFolder
from rational_sae.upgrading.run.write import write
from rational_sae.upgrading.settings import Control, Form, Kind, Recipe, Settings

IN_MEMORY = "an SAE in memory"
"""What settings.yaml calls a teacher that came from nowhere."""

TENSORS = "tensors in memory"
"""What it calls vectors that did."""


class Options(ReadingOptions, total=False):
    """The fields of `Settings` but `teacher` and `text`, for type checkers; what each means stands there."""

    vectors: str | None
    recipe: Recipe
    gate: str
    looks: int
    type: tuple[int, int] | None
    form: Form
    calibrate: Literal["teacher", "reconstruction", "none"]
    penalty: Literal["l0", "l1"]
    objective: Kind
    kl_share: float
    jumprelu_revive: bool
    jumprelu_input: bool
    jumprelu_penalty: Literal["l0", "l1", "tanh"] | None
    pilot: bool
    adapter_rank: int | None
    hold_l0: bool
    revive: bool
    refit_decoder: bool
    controls: tuple[Control, ...]
    steps: int
    batch_tokens: int
    train_tokens: int | None
    eval_tokens: int
    target_l0: float | None
    probes: tuple[str, ...]
    probe_train: int
    probe_tasks: int | None
    probe_texts: int
    random: bool
    least_effect: float
    lr: float
    lr_threshold: float
    lr_shape: float
    rates: dict[str, float]
    seed: int


@takes_fields_of(Settings)
def upgrade(
    teacher: str | Path | SAE,
    text: str | Path = "news",
    *,
    out: str | Path | None = None,
    x: Tensor | None = None,
    y: Tensor | None = None,
    groups: Tensor | None = None,
    resume: bool = False,
    overwrite: bool = False,
    accept_implausible: bool = False,
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> Upgrade:
    """Replace a teacher's gate by a trainable rational function, and fine-tune it beside its controls.

    >>> done = rational_sae.upgrade("path/to/teacher", text="news", steps=600)  # doctest: +SKIP
    >>> done.sae  # W_enc [d_in, d_sae], W_dec [d_sae, d_in], float32, in the teacher's units  # doctest: +SKIP
    >>> done.compare("control_native").fvu_at_l0  # value, low, high  # doctest: +SKIP
    >>> done.save("runs/mine")  # doctest: +SKIP

    teacher: a path, `hub:OWNER/REPO[/PATH]`, `saelens:RELEASE/ID`, or an SAE in memory (W_enc [d_in, d_sae], any
    dtype), which stays as it is: a float32 copy of it is upgraded, and its metadata says model and hook. text: .txt,
    .jsonl[.gz], a folder of them, hf:NAME[/CONFIG][:SPLIT], or news.
    x: [n, d_in], vectors of any network that are read in place of a language model and text: an eighth of them, at most
    eval_tokens, are the test split, and half as many each are for calibration and validation, in a seeded order. y: [n,
    d_out], what a transcoder predicts. groups: [n] integers, the image, sequence or document that each is from: it is
    whole in one split, and stands for documents in intervals; default: runs of neighbours. Metrics of predictions (ΔCE,
    KL), probes and features are then absent. docs/tensors.md.
    out: a folder that gets what `rsae upgrade --out` writes, checkpoints while it runs among it; resume: go on with the
    job there, to the same bits; overwrite: replace a result or job there, and leave other files alone.
    accept_implausible: go on with a teacher that does not explain its activations. progress: who is told of the stages;
    default: bars in a terminal and in a notebook, nothing in a log. The other options are those of `Settings`.

    Raises RationalSAEError with a one-line reason if an input cannot be used or `out` not be written. After
    KeyboardInterrupt a job with `out` can be resumed.
    """
    if out is None and (resume or overwrite):
        raise SettingsError(f"{'resume' if resume else 'overwrite'} is for a job in a folder", "give out")
    if resume and overwrite:
        raise SettingsError("resume goes on and overwrite starts again", "give one of them")
    given = _given(x, y, groups, options)
    in_memory = own_copy(teacher) if isinstance(teacher, SAE) else None
    name = str(teacher) if in_memory is None else in_memory.metadata.source or IN_MEMORY
    if in_memory is not None:
        in_memory.metadata.source = name
        in_memory.metadata.family = in_memory.metadata.family or in_memory.gate.family
    where = {"text": str(text)} if given is None or text != "news" else {}
    settings = checked(Settings, teacher=name, **where, **options)
    with contextlib.ExitStack() as stack:
        folder = None if out is None else _folder(Path(out), resume=resume, overwrite=overwrite)
        keeper = None if folder is None else stack.enter_context(folder)
        if progress is None:
            from rational_sae.support.bars import watched  # rich is slow to import

            progress = stack.enter_context(watched())
        done = job.run(
            settings,
            teacher=in_memory,
            given=given,
            accept_implausible=accept_implausible,
            progress=progress,
            keeper=keeper,
        )
        if folder is not None:
            write(done, folder.out, overwrite=True)
            folder.finish()
    return done


def _given(x: Tensor | None, y: Tensor | None, groups: Tensor | None, options: Options) -> Given | None:
    """Vectors in memory, which the options then name. Raises SettingsError if x is missing, or is a second source."""
    if x is None:
        if y is not None or groups is not None:
            raise SettingsError(f"{'groups' if y is None else 'y'} was given without x", "give x: [n, d_in] too")
        return None
    if options.get("vectors") is not None:
        raise SettingsError("vectors names a file, and x was given", "give one of them")
    options["vectors"] = TENSORS
    return Given(x, y, groups)


def _folder(out: Path, *, resume: bool, overwrite: bool) -> JobFolder:
    folder = JobFolder(out, resume=resume, overwrite=overwrite)
    if resume and folder.finished:
        raise OutputError(
            f"{out} is finished", f"read {out}/report.json and load {out}/sae, or give overwrite=True to do it again"
        )
    return folder
