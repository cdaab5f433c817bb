"""rsae upgrade and rsae demo: one job, in one process or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import (
    PATH,
    Bos,
    Cache,
    CacheGb,
    CheckpointSeconds,
    CheckpointSteps,
    HookName,
    Model,
    Probe,
    ProbeTrain,
    Resume,
    Seed,
    TrustRemoteCode,
    checked,
    degrees_of,
    not_stored,
)
from rational_sae.safe_text import printable

if TYPE_CHECKING:
    from rational_sae.upgrade.folder import JobFolder


def demo(
    family: Annotated[Literal["relu", "jumprelu", "topk"], typer.Option(help="Which teacher.")] = "topk",
    out: Annotated[Path, typer.Option(**PATH, help="Where the result goes.")] = Path("runs/demo"),
    seed: Seed = 0,
    resume: Resume = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
) -> None:
    """The whole job on embedded inputs.

    Example: rsae demo --family jumprelu --out runs/jumprelu
    """
    from rational_sae.demo import demo_settings

    folder = _folder(out, resume=resume, force=force)
    _upgrade(demo_settings(family, seed), folder, f"rsae demo --family {family} --out {out} --resume")


def upgrade(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(**PATH, help="Where the result goes.")],
    teacher: Annotated[
        str | None, typer.Argument(help="File, folder, hub:OWNER/REPO[/PATH] or saelens:RELEASE/ID.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help=".txt, .jsonl[.gz], a folder of them, hf:NAME[:SPLIT], or news.")
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
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option()] = "auto",
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
    force: Annotated[bool, typer.Option("--force", help="Go on with an implausible SAE; replace --out.")] = False,
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
    from rational_sae.upgrade.folder import Interval
    from rational_sae.upgrade.settings import RECIPE_OPTIONS, Settings, read_settings

    if settings_file is None and resume and (out / "settings.yaml").exists():
        settings_file = out / "settings.yaml"
    named = {"degrees": "type", "control": "controls", "probe": "probes"}
    given = {named.get(name, name) for name in ctx.params if _is_given(ctx, name)}
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
    folder = _folder(out, resume=resume, force=force, interval=interval, track=_trackers(track))
    _upgrade(settings, folder, f"rsae upgrade --out {out} --resume", force=force)


def _folder(out: Path, *, track: Sequence[Any] = (), **options: Any) -> JobFolder | None:
    """The job's folder, in the process that writes."""
    from rational_sae import distributed
    from rational_sae.trackers import require, tracker
    from rational_sae.upgrade.folder import JobFolder

    distributed.start()
    if not distributed.leads():
        return None
    for name in track:
        require(name)
    return JobFolder(
        out, trackers=lambda step, settings: [tracker(name, out, step, settings) for name in track], **options
    )


def _follow(settings: Any, *, force: bool) -> None:
    """The part of a process that does not write."""
    from rational_sae import distributed
    from rational_sae.upgrade.job import upgrade

    try:
        if not distributed.leaders_json(None):
            upgrade(settings, force=force)
    except distributed.LeaderGoesOn:
        pass
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # the leader says how to go on
    distributed.stop()


def _upgrade(settings: Any, folder: JobFolder | None, again: str, *, force: bool = False) -> None:
    if folder is None:
        return _follow(settings, force=force)
    from rational_sae import distributed
    from rational_sae.report import read_report
    from rational_sae.upgrade.folder import how_to_resume
    from rational_sae.upgrade.job import upgrade
    from rational_sae.upgrade.write import write

    out = folder.out
    try:
        with folder:
            if distributed.leaders_json(folder.resume and folder.finished):
                folder.check_finished(settings)
                terminal.say(f"{out} was finished before")
                found = read_report(out)
            else:
                with terminal.bars() as bars:
                    done = upgrade(settings, force=force, progress=bars, keeper=folder)
                found = write(done, out, force=True)
            folder.finish()
        distributed.stop()
    except KeyboardInterrupt:
        terminal.say(how_to_resume(out, again))
        raise typer.Exit(130) from None
    terminal.print_table(found)
    for warning in found.get("warnings", []):
        terminal.say(warning, head="warning:", colour="yellow")
    terminal.console.print(printable(found["verdict"]), style="bold", highlight=False, markup=False)
    terminal.say(f"wrote {out}/sae, {out}/report.html and {out}/report.json")


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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
