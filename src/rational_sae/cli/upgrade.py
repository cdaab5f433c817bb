"""rsae upgrade and rsae demo: one job, in one process or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import (
    PATH,
    AcceptImplausible,
    Bos,
    Cache,
    CacheGb,
    CheckpointSeconds,
    CheckpointSteps,
    Device,
    HookName,
    Model,
    Overwrite,
    Probe,
    ProbeTrain,
    Resume,
    Seed,
    TrustRemoteCode,
    checked,
    degrees_of,
    given_options,
    is_given,
    not_stored,
)
from rational_sae.support.safe_text import printable

if TYPE_CHECKING:
    from rational_sae.upgrading.run.folder import JobFolder

UNSTORED = ("cache", "cache_gb", "checkpoint_seconds", "checkpoint_steps", "track", "trust_remote_code")
"""Options that settings.yaml does not hold, so that a command to go on repeats them."""


def demo(
    family: Annotated[Literal["relu", "jumprelu", "topk"], typer.Option(help="Which teacher.")] = "topk",
    out: Annotated[Path, typer.Option(**PATH, help="Where the result goes.")] = Path("runs/demo"),
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """The whole job on embedded inputs.

    Example: rsae demo --family jumprelu --out runs/jumprelu
    """
    from rational_sae.demo import demo_settings

    again = ["rsae", "demo", "--family", family, "--seed", str(seed), "--out", str(out), "--resume"]
    folder = _folder(out, resume=resume, overwrite=overwrite)
    _upgrade(demo_settings(family, seed), folder, again)


def upgrade(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(**PATH, help="Where the result goes.")],
    teacher: Annotated[
        str | None, typer.Argument(help="File, folder, hub:OWNER/REPO[/PATH] or saelens:RELEASE/ID.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help=".txt, .jsonl[.gz], a folder of them, hf:NAME[/CONFIG][:SPLIT], or news.")
    ] = None,
    model: Model = None,
    hook: HookName = None,
    gate: Annotated[Literal["hard", "smooth", "topk"], typer.Option(help="Support of the gate.")] = "hard",
    recipe: Annotated[
        Literal["default", "paper"],
        typer.Option(
            help="paper: smooth safe-Padé gate, 3,2 for a ReLU, ‖z‖₁ of fixed weight, one learning rate, 22000 steps; "
            "options given here come first."
        ),
    ] = "default",
    degrees: Annotated[str, typer.Option("--type", help="Degrees P,Q of the rational.")] = "5,4",
    calibrate: Annotated[
        Literal["teacher", "reconstruction"], typer.Option(help="Fit the first shape to the teacher's gate, or to x.")
    ] = "teacher",
    token_scale: Annotated[float, typer.Option(help="Each token's bar: a fixed threshold (0) to a quota (1).")] = 0.0,
    revive: Annotated[
        bool, typer.Option("--revive/--no-revive", help="Give latents that never fire a new direction.")
    ] = True,
    refit_decoder: Annotated[
        bool, typer.Option("--refit-decoder", help="Fit every row's decoder again by least squares at the end.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Fine-tuning steps.")] = 600,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of one step.")] = 1024,
    train_tokens: Annotated[
        int | None,
        typer.Option(help="Distinct tokens; fewer are used again, and are worth less. [default: steps × batch]"),
    ] = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens.")] = 16384,
    context: Annotated[int | None, typer.Option(help="Sequence length. [default: the SAE's, at most 128]")] = None,
    bos: Bos = "auto",
    target_l0: Annotated[str, typer.Option(help="teacher, or a number.")] = "teacher",
    probe: Probe = None,
    probe_train: ProbeTrain = 4000,
    control: Annotated[str, typer.Option(help="native, jumprelu, identity, all or none; commas join.")] = (
        "native,identity"
    ),
    seed: Seed = 0,
    device: Device = "auto",
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            **PATH,
            help="settings.yaml of another job; options given here come first.",
        ),
    ] = None,
    resume: Resume = False,
    checkpoint_steps: CheckpointSteps = 1000,
    checkpoint_seconds: CheckpointSeconds = 120.0,
    cache: Cache = None,
    cache_gb: CacheGb = 50.0,
    track: Annotated[str | None, typer.Option(help="Log there too: tensorboard, wandb; commas join.")] = None,
    trust_remote_code: TrustRemoteCode = False,
    accept_implausible: AcceptImplausible = False,
    overwrite: Overwrite = False,
) -> None:
    """Replace a teacher's gate by a trainable rational function and fine-tune it beside its controls.

    Example: rsae upgrade demo/teachers/topk --text news --out runs/topk --train-tokens 200000

    After an interruption: rsae upgrade --out runs/topk --resume

    The same job again: rsae upgrade --settings runs/topk/settings.yaml --out runs/again

    As the paper does it: rsae upgrade demo/teachers/topk --text news --recipe paper --steps 400 --out runs/paper
    """
    values: dict[str, Any] = {
        "teacher": teacher,
        "text": text,
        "model": model,
        "hook": hook,
        "recipe": recipe,
        "gate": gate,
        "type": degrees_of(degrees),
        "calibrate": calibrate,
        "token_scale": token_scale,
        "revive": revive,
        "refit_decoder": refit_decoder,
        "controls": _controls(control),
        "steps": steps,
        "batch_tokens": batch_tokens,
        "train_tokens": train_tokens,
        "eval_tokens": eval_tokens,
        "context": context,
        "bos": bos,
        "target_l0": _target(target_l0),
        "probes": tuple(probe or ()),
        "probe_train": probe_train,
        "seed": seed,
        "device": device,
    }
    from rational_sae.upgrading.run.schedule import Interval
    from rational_sae.upgrading.settings import RECIPE_OPTIONS, Settings, read_settings

    if settings_file is None and resume and (out / "settings.yaml").exists():
        settings_file = out / "settings.yaml"
    named = {"degrees": "type", "control": "controls", "probe": "probes"}
    given = {named.get(name, name) for name in ctx.params if is_given(ctx, name)}
    values = {name: value for name, value in values.items() if name in given}
    if settings_file is not None:
        others = RECIPE_OPTIONS if "recipe" in given else ()
        stored = {name: value for name, value in read_settings(settings_file).items() if name not in others}
        values = stored | values
    for name in ("teacher", "text"):
        if name not in values:
            raise typer.BadParameter(f"give {'TEACHER' if name == 'teacher' else '--text'}, or --settings FILE")
    settings = checked(Settings, **values, **not_stored(trust_remote_code, cache, cache_gb))
    interval = Interval(checkpoint_steps, checkpoint_seconds)
    folder = _folder(out, resume=resume, overwrite=overwrite, interval=interval, track=_trackers(track))
    again = ["rsae", "upgrade", "--out", str(out), "--resume", *given_options(ctx, UNSTORED)]
    _upgrade(settings, folder, again, accept_implausible=accept_implausible)


def _folder(out: Path, *, resume: bool, overwrite: bool, track: Sequence[Any] = (), **options: Any) -> JobFolder | None:
    """The job's folder, in the process that writes."""
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on and --overwrite starts again: give one of them")
    from rational_sae.support import distributed
    from rational_sae.upgrading.run.folder import JobFolder
    from rational_sae.upgrading.run.trackers import require, tracker

    distributed.start()
    if not distributed.leads():
        return None
    for name in track:
        require(name)
    return JobFolder(
        out,
        resume=resume,
        overwrite=overwrite,
        trackers=lambda step, settings: [tracker(name, out, step, settings) for name in track],
        **options,
    )


def _follow(settings: Any, *, accept_implausible: bool) -> None:
    """The part of a process that does not write."""
    from rational_sae.support import distributed
    from rational_sae.upgrading.job import run

    try:
        if not distributed.leaders_json(None):
            run(settings, accept_implausible=accept_implausible)
    except distributed.LeaderGoesOn:
        pass
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # the leader says how to go on
    distributed.stop()


def _upgrade(
    settings: Any, folder: JobFolder | None, again: Sequence[str], *, accept_implausible: bool = False
) -> None:
    if folder is None:
        return _follow(settings, accept_implausible=accept_implausible)
    from rational_sae.report import read_report
    from rational_sae.support import distributed
    from rational_sae.upgrading.job import run
    from rational_sae.upgrading.run.status import how_to_resume
    from rational_sae.upgrading.run.write import write

    out = folder.out
    try:
        with folder:
            if distributed.leaders_json(folder.resume and folder.finished):
                folder.check_finished(settings)
                terminal.say(f"{out} was finished before")
                found = read_report(out)
            else:
                with terminal.bars() as bars:
                    done = run(settings, accept_implausible=accept_implausible, progress=bars, keeper=folder)
                found = write(done, out, overwrite=True)
            folder.finish()
        distributed.stop()
    except KeyboardInterrupt:
        terminal.say(how_to_resume(out, again))
        raise typer.Exit(130) from None
    terminal.print_table(found)
    terminal.warn(found.get("warnings") or [])
    terminal.console.print(printable(found["verdict"]), style="bold", highlight=False, markup=False)
    terminal.say(f"wrote {out}/sae, {out}/report.html and {out}/report.json")


def _controls(value: str) -> tuple[str, ...]:
    if value == "none":
        return ()
    known = ("native", "jumprelu", "identity")
    chosen = known if value == "all" else tuple(part.strip() for part in value.split(","))
    for one in chosen:
        if one not in known:
            raise typer.BadParameter(f"--control {one!r}: choose from {', '.join(known)}, all, none")
    return cast(tuple[str, ...], chosen)


def _target(value: str) -> float | None:
    if value == "teacher":
        return None
    try:
        return float(value)
    except ValueError as error:
        raise typer.BadParameter(f"--target-l0 {value!r} is neither teacher nor a number") from error


def _trackers(value: str | None) -> tuple[Any, ...]:
    known, chosen = ("tensorboard", "wandb"), tuple(part.strip() for part in (value or "").split(",") if part.strip())
    for one in chosen:
        if one not in known:
            raise typer.BadParameter(f"--track {one!r}: choose from {', '.join(known)}")
    return chosen
