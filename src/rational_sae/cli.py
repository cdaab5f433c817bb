"""The command `rsae`: one thin subcommand per stage. People's output goes to stderr; `--json -` alone to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console

from rational_sae.errors import RationalSAEError
from rational_sae.interrupt import end_like_ctrl_c
from rational_sae.safe_text import printable, redact

if TYPE_CHECKING:
    from rational_sae.upgrade.folder import JobFolder

app = typer.Typer(
    help="Upgrade a pretrained sparse autoencoder to a rational one, with a report you can believe.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # they could hold access tokens
)
console = Console(stderr=True)

Json = Annotated[str | None, typer.Option("--json", help="Write JSON to this file; - for stdout.")]
Model = Annotated[str | None, typer.Option(help="Hub id, folder, .gguf, smollm2 or gemma3-270m. [default: the SAE's]")]
HookName = Annotated[
    str | None, typer.Option(help="model.layers.11 or blocks.11.hook_resid_post. [default: the SAE's]")
]
TextName = Annotated[str, typer.Option(help=".txt, .jsonl[.gz], a folder, hf:NAME[:SPLIT], or news.")]
Probe = Annotated[
    list[str] | None,
    typer.Option(
        help="Task to probe on, any number: a .jsonl[.gz] with text and label, hf:NAME[:SPLIT], question-type, "
        "movie-sentiment, sms-spam, language, or first-letter (absorption)."
    ),
]
ProbeTrain = Annotated[int, typer.Option(min=40, help="Most training texts of a probe; fewer are quicker.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a job into --out stopped, to the same bits.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model. Read it first.")
]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps the model's activations for other jobs.")]
CacheGb = Annotated[float, typer.Option("--cache-gb", min=0.001, help="Largest size of --cache, in 1e9 bytes.")]
CheckpointSteps = Annotated[int, typer.Option(min=1, help="Steps between checkpoints, at most.")]
CheckpointSeconds = Annotated[float, typer.Option(min=0, help="Seconds between checkpoints, at most.")]
Bos = Annotated[Literal["auto", "yes", "no"], typer.Option(help="Start sequences with BOS.")]


@app.command()
def demo(
    family: Annotated[Literal["relu", "jumprelu", "topk"], typer.Option(help="Which teacher.")] = "topk",
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option()] = 0,
    resume: Resume = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
) -> None:
    """The whole job on embedded inputs.

    Example: rsae demo --family jumprelu --out runs/jumprelu
    """
    from rational_sae.demo import demo_settings

    folder = _folder(out, resume=resume, force=force)
    _upgrade(demo_settings(family, seed), folder, f"rsae demo --family {family} --out {out} --resume")


@app.command()
def upgrade(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Where the result goes.")],
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
    degrees: Annotated[str, typer.Option("--type", help="Degrees P,Q of the rational.")] = "9,8",
    calibrate: Annotated[
        Literal["teacher", "reconstruction"], typer.Option(help="Fit the first shape to the teacher's gate, or to x.")
    ] = "teacher",
    token_scale: Annotated[float, typer.Option(help="Each token's bar: a fixed threshold (0) to a quota (1).")] = 0.0,
    revive: Annotated[
        bool, typer.Option("--revive/--no-revive", help="Give latents that never fire a new direction.")
    ] = True,
    steps: Annotated[int, typer.Option(help="Fine-tuning steps.")] = 600,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of one step.")] = 1024,
    train_tokens: Annotated[int | None, typer.Option(help="Distinct tokens. [default: steps × batch]")] = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens.")] = 16384,
    context: Annotated[int | None, typer.Option(help="Sequence length. [default: the SAE's, at most 128]")] = None,
    bos: Bos = "auto",
    target_l0: Annotated[str, typer.Option(help="teacher, or a number.")] = "teacher",
    probe: Probe = None,
    probe_train: ProbeTrain = 4000,
    control: Annotated[str, typer.Option(help="native, jumprelu, identity, all or none; commas join.")] = (
        "native,identity"
    ),
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option()] = "auto",
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="settings.yaml of another job; options given here come first.")
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
        "type": _degrees(degrees),
        "calibrate": calibrate,
        "token_scale": token_scale,
        "revive": revive,
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
    from pydantic import ValidationError

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
    try:
        settings = Settings.model_validate(values | _not_stored(trust_remote_code, cache, cache_gb))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    interval = Interval(checkpoint_steps, checkpoint_seconds)
    folder = _folder(out, resume=resume, force=force, interval=interval, track=_trackers(track))
    _upgrade(settings, folder, f"rsae upgrade --out {out} --resume", force=force)


@app.command()
def evaluate(
    saes: Annotated[list[str], typer.Argument(help="SAE folders; the first is what the others are compared with.")],
    text: TextName,
    model: Model = None,
    hook: HookName = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens.")] = 16384,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    probe: Probe = None,
    probe_train: ProbeTrain = 4000,
    cache: Cache = None,
    cache_gb: CacheGb = 50.0,
    trust_remote_code: TrustRemoteCode = False,
    json_file: Json = None,
    out: Annotated[Path | None, typer.Option(help="Where report.json and report.html go. [default: nowhere]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into an --out that holds something.")] = False,
) -> None:
    """Measure SAEs on the same held-out tokens: reconstruction, ΔCE, loss recovered, KL, probes, with intervals.

    Example: rsae evaluate demo/teachers/topk runs/demo/sae --text news --probe sms-spam --out runs/compared
    """
    from rational_sae.evaluate import Protocol
    from rational_sae.evaluate import evaluate as run
    from rational_sae.reading import Reading
    from rational_sae.report import evaluation_report, write_report
    from rational_sae.upgrade.write import check_out

    if out is not None:
        check_out(out, force=force)
    not_stored = _not_stored(trust_remote_code, cache, cache_gb)
    reading = Reading(text=text, model=model, hook=hook, context=context, bos=bos, **not_stored)
    with _bars() as bars:
        found = run(
            saes, reading, eval_tokens=eval_tokens, probes=probe or [], protocol=Protocol(probe_train), progress=bars
        )
    report = evaluation_report(
        found.report(), {"saes": saes, "eval_tokens": eval_tokens, **reading.model_dump(mode="json")}
    )
    if out is not None:
        write_report(report, out)
    _emit(report, json_file)
    _print_table(report)
    if out is not None:
        console.print(f"wrote {out}/report.html and {out}/report.json", highlight=False, markup=False)


@app.command()
def headroom(
    sae: Annotated[str, typer.Argument(help="A ReLU, JumpReLU or TopK SAE.")],
    text: TextName,
    model: Model = None,
    hook: HookName = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens, and as many to fit on.")] = 16384,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    trust_remote_code: TrustRemoteCode = False,
    json_file: Json = None,
) -> None:
    """What a better magnitude alone can gain, in closed form, before any training.

    Encoder, decoder, support and poles stay; gains of selection lie outside, so 0 is no verdict on an upgrade.

    Example: rsae headroom demo/teachers/relu --text news
    """
    from rational_sae.headroom import headroom as run
    from rational_sae.reading import Reading
    from rational_sae.report import relative_difference

    reading = Reading(text=text, model=model, hook=hook, context=context, bos=bos, trust_remote_code=trust_remote_code)
    with _bars() as bars:
        found = run(sae, reading, eval_tokens=eval_tokens, progress=bars)
    report = _show_results(found, json_file)
    for name in found.differences:
        value, low, high = relative_difference(report, name, "fvu")
        console.print(f"{name}: FVU {value:+.1%} [{low:+.1%}, {high:+.1%}]", highlight=False, markup=False)


@app.command()
def fit(
    name: Annotated[Literal["relu", "jumprelu", "step", "sign", "leaky_relu"], typer.Argument(metavar="TARGET")],
    degrees: Annotated[str, typer.Option("--type", help="Degrees P,Q.")] = "9,8",
    threshold: Annotated[float | None, typer.Option(help="θ of jumprelu, step and sign.")] = None,
    gap: Annotated[float | None, typer.Option(help="δ, half-width of the gap.")] = None,
    slope: Annotated[float | None, typer.Option(help="Of leaky_relu left of 0.")] = None,
    kappa: Annotated[float, typer.Option(help="Weight of the error right of the threshold.")] = 1.0,
    method: Annotated[
        Literal["auto", "relaxed_remez", "aaa", "adam"], typer.Option(help="auto is certified; the others compare.")
    ] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Fit again, whatever is kept.")] = False,
    json_file: Json = None,
    plot: Annotated[Path | None, typer.Option(help="Picture: .html, .svg or .png.")] = None,
) -> None:
    """Best rational fit of a gate on [−1, 1], certified.

    TARGET is relu, jumprelu, step, sign or leaky_relu.

    Example: rsae fit jumprelu --type 9,8 --threshold 0.1 --gap 0.02 --json - --plot fit.png
    """
    from rational_sae.rational import cached_fit, target
    from rational_sae.rational import fit as fit_rational

    wanted = target(name, threshold=threshold, gap=gap, slope=slope, kappa=kappa)
    kept = method == "auto" and not fresh
    found = cached_fit(wanted, _degrees(degrees)) if kept else fit_rational(wanted, _degrees(degrees), method=method)
    _emit(found.to_json(), json_file)
    console.print(
        f"{name} {degrees}: error {found.error:.6e}, {found.alternations} alternations, "
        f"min Q {found.min_denominator:.3g}, {found.status}, {found.seconds:.2f} s"
    )
    if plot is not None:
        from rational_sae.report.fit_chart import save_fit_chart

        save_fit_chart(found, plot)
        console.print(f"wrote {plot}", highlight=False)


@app.command()
def inspect(
    sae: Annotated[str, typer.Argument(help="File, folder, hub:OWNER/REPO[/PATH] or saelens:RELEASE/ID.")],
    text: Annotated[str | None, typer.Option(help="Measure it on this text: .txt, .jsonl[.gz], …, or news.")] = None,
    model: Model = None,
    hook: HookName = None,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    json_file: Json = None,
) -> None:
    """What an SAE is: family, formula, shapes, scaling, model, hook, training; with --text, whether the formula holds.

    Example: rsae inspect demo/teachers/topk --text news
    """
    from rational_sae.inspection import inspect_sae
    from rational_sae.reading import Reading

    reading = Reading(text=text, model=model, hook=hook, context=context, bos=bos) if text else None
    with _bars() as bars:
        facts = inspect_sae(sae, reading, progress=bars)
    _emit(facts, json_file)
    for key, value in facts.items():
        lines = value if isinstance(value, list) else [value]
        for i, line in enumerate(lines):
            _say(f"{'' if i else key:22} {line}")


@app.command()
def export(
    sae: Annotated[str, typer.Argument(help="An SAE folder.")],
    form: Annotated[Literal["saelens", "jumprelu", "safetensors"], typer.Option("--as", help="What to write.")],
    out: Annotated[Path, typer.Option(help="Where it goes.")],
    text: Annotated[str | None, typer.Option(help="jumprelu: activations to fit on, as for evaluate.")] = None,
    model: Model = None,
    hook: HookName = None,
    eval_tokens: Annotated[int, typer.Option(help="jumprelu: test tokens, and as many to fit on.")] = 16384,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    json_file: Json = None,
) -> None:
    """Write an SAE for other tools.

    saelens: a folder that SAELens 6 reads (a rational one while rational_sae is imported).
    jumprelu: the same without any custom class; the gate is distilled on --text, and the loss is measured.
    safetensors: one plain file, with a forty-line loader in docs/format.md.

    Example: rsae export runs/demo --as jumprelu --text news --out runs/demo-jumprelu
    """
    from rational_sae.card import model_card
    from rational_sae.distil import distil, exactly
    from rational_sae.export import save, save_plain
    from rational_sae.reading import Reading
    from rational_sae.sources import load

    written = load(sae)
    if form == "jumprelu":
        if text is None and exactly(written) is None:
            raise typer.BadParameter("--as jumprelu fits this gate on activations: give --text")
        reading = Reading(text=text or "", model=model, hook=hook, context=context, bos=bos)
        with _bars() as bars:
            found = distil(sae, reading, eval_tokens=eval_tokens, progress=bars)
        written = found.sae
        if found.results is not None:
            _show_results(found.results, json_file)
            change = found.results.differences["jumprelu - sae"]["fvu"]
            low, high = cast(list[float], change["interval"])
            line = f"FVU {found.results.rows['jumprelu']['fvu']:.4f}, {change['value']:+.4f} [{low:+.4f}, {high:+.4f}]"
            console.print(f"JumpReLU: {line} against the SAE, on test tokens", highlight=False, markup=False)
    if form == "safetensors":
        save_plain(written, out)
    else:
        save(written, out, model_card(written))
    console.print(f"wrote {out}", highlight=False)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An SAE folder, or an --out folder with sae/ in it.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; created if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Create it private.")] = False,
) -> None:
    """Upload an SAE and its model card to the Hugging Face hub, with the token of `hf auth login`.

    Example: rsae push runs/demo me/smollm2-rational-sae --private
    """
    from rational_sae.push import push as run

    console.print(f"pushed: {run(folder, repo, private=private)}", highlight=False, markup=False)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="An --out folder.")]) -> None:
    """Rebuild report.html from report.json, or a sweep's sweep.html from its sweep.json.

    Example: rsae report runs/demo
    """
    from rational_sae.report import print_sweep, read_report, read_sweep, write_report, write_sweep

    if (folder / "sweep.json").exists():
        swept = read_sweep(folder)
        write_sweep(swept, folder)
        print_sweep(swept, console)
        console.print(f"wrote {folder / 'sweep.html'}", highlight=False, markup=False)
        return
    found = read_report(folder)
    write_report(found, folder)
    _print_table(found)
    console.print(f"wrote {folder / 'report.html'}")


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(metavar="GRID.yaml", help="Cells: teachers and their settings.")],
    out: Annotated[Path, typer.Option(help="Where cells, sweep.json and sweep.html go.")],
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where cells run; ray needs the extra ray.")
    ] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Cells at once on this machine.")] = 1,
    resume: Resume = False,
    checkpoint_steps: CheckpointSteps = 1000,
    checkpoint_seconds: CheckpointSeconds = 120.0,
    cache: Cache = None,
    cache_gb: CacheGb = 50.0,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Many upgrades into one table; learning rates of every row are chosen in pilot cells.

    Each finished cell is kept, whatever happens to the others; `--resume` does what is missing, and goes on in the
    middle of the cell that was interrupted.

    Example: rsae sweep configs/grid.yaml --out runs/grid --resume
    """
    from rational_sae.report import print_sweep
    from rational_sae.sweep import engine_named, read_plan
    from rational_sae.sweep import sweep as run
    from rational_sae.upgrade.folder import Interval

    plan = read_plan(grid)
    plan.defaults |= _not_stored(trust_remote_code, cache, cache_gb)
    interval = Interval(checkpoint_steps, checkpoint_seconds)
    try:
        with _bars() as bars:
            found = run(
                plan, out, bars, resume=resume, interval=interval, engine=engine_named(engine, workers), tell=_say
            )
    except KeyboardInterrupt:
        _say(f"interrupted; what was done is kept, go on with: rsae sweep {grid} --out {out} --resume")
        raise typer.Exit(130) from None
    print_sweep(found, console)
    _say(f"wrote {out}/sweep.html and {out}/sweep.json")
    if found["failed"]:
        for name, reason in found["failed"].items():
            _say(f"{name}: {reason}", head="failed:")
        raise typer.Exit(1)


@app.command()
def status(folder: Annotated[Path, typer.Argument(help="The --out folder of an upgrade or a sweep.")]) -> None:
    """How far a job is, whether it runs, and what can be resumed.

    Example: rsae status runs/grid
    """
    from rational_sae.status import status as of

    for one in of(folder):
        _say(one.line())
        for line in one.row_lines():
            _say(line)


@app.command()
def theory(
    out: Annotated[Path, typer.Option(help="Where theory.json and the figures go.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """The paper's statements measured and plotted, each beside its predicted rate; about a minute.

    Example: rsae theory --out runs/theory
    """
    from rational_sae.theory import measure_theory, write_theory

    with _bars() as bars:
        found = measure_theory(bars)
    write_theory(found, out, force=force)
    for row in found["exponents"]:
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        console.print(
            f"{row['family']:9} {row['count']:11} grows as ε^-{row['a']:.3f} {interval}", highlight=False, markup=False
        )
    console.print(f"wrote {out}", highlight=False)


@app.command()
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
    with _bars() as bars:
        found = run([replace(SHAPES[0], **chosen)] if chosen else SHAPES, device=device, progress=bars)
    _emit(found, json_file)
    print_bench(found, console)


def main() -> None:
    """Entry point: exit codes 0 done, 1 refused, 2 usage, 130 interrupted."""
    end_like_ctrl_c()
    try:
        app()
    except RationalSAEError as error:
        _say(" ".join(str(error).split()), head="error:")
        sys.exit(1)
    except KeyboardInterrupt:
        _say("interrupted; nothing was written, run the same command again")
        sys.exit(130)


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
                _say(f"{out} was finished before")
                found = read_report(out)
            else:
                with _bars() as bars:
                    done = upgrade(settings, force=force, progress=bars, keeper=folder)
                found = write(done, out, force=True)
            folder.finish()
        distributed.stop()
    except KeyboardInterrupt:
        _say(how_to_resume(out, again))
        raise typer.Exit(130) from None
    _print_table(found)
    for warning in found.get("warnings", []):
        _say(warning, head="warning:", colour="yellow")
    console.print(printable(found["verdict"]), style="bold", highlight=False, markup=False)
    _say(f"wrote {out}/sae, {out}/report.html and {out}/report.json")


def _say(line: str, *, head: str = "", colour: str = "red") -> None:
    """One line on stderr, as it is: no markup, no control characters, no access tokens."""
    from rich.text import Text

    text = Text.assemble((head, colour), " " if head else "", printable(redact(line)))
    console.print(text, soft_wrap=True)


def _bars() -> Any:
    from rational_sae.bars import shown

    return shown(console)


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _show_results(found: Any, json_file: str | None) -> dict[str, Any]:
    report = found.report()
    _emit(report, json_file)
    _print_table({"schema": 1, "title": "", "verdict": "", **report})
    return report


def _print_table(found: Any) -> None:
    from rational_sae.report import print_table

    print_table(found, console)


def _emit(value: dict[str, Any], json_file: str | None) -> None:
    if json_file is None:
        return
    text = json.dumps(value, indent=2) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
    else:
        Path(json_file).write_text(text)


def _degrees(value: str) -> tuple[int, int]:
    parts = value.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise typer.BadParameter(f"--type {value!r} is not P,Q, such as 9,8")
    return int(parts[0]), int(parts[1])


def _controls(value: str) -> tuple[str, ...]:
    if value == "none":
        return ()
    known = ("native", "jumprelu", "identity")
    chosen = known if value == "all" else tuple(part.strip() for part in value.split(","))
    for one in chosen:
        if one not in known:
            raise typer.BadParameter(f"--control {one!r}: choose from {', '.join(known)}, all, none")
    return cast(tuple[str, ...], chosen)


def _not_stored(trust_remote_code: bool, cache: Path | None, cache_gb: float) -> dict[str, Any]:
    """Options that no file may hold: only who runs a job says them, and they change no result."""
    return {"trust_remote_code": trust_remote_code, "cache": cache, "cache_gb": cache_gb}


def _trackers(value: str | None) -> tuple[Any, ...]:
    known, chosen = ("tensorboard", "wandb"), tuple(part.strip() for part in (value or "").split(",") if part.strip())
    for one in chosen:
        if one not in known:
            raise typer.BadParameter(f"--track {one!r}: choose from {', '.join(known)}")
    return chosen


def _target(value: str) -> float | None:
    if value == "teacher":
        return None
    try:
        return float(value)
    except ValueError as error:
        raise typer.BadParameter(f"--target-l0 {value!r} is neither teacher nor a number") from error
