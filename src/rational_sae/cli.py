"""The command `rsae`: one thin subcommand per stage. People's output goes to stderr; `--json -` alone to stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console

from rational_sae.errors import RationalSAEError

app = typer.Typer(
    help="Upgrade a pretrained sparse autoencoder to a rational one, with a report you can believe.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)
console = Console(stderr=True)

Json = Annotated[str | None, typer.Option("--json", help="Write JSON to this file; - for stdout.")]
Model = Annotated[str | None, typer.Option(help="Hub id, folder, .gguf, smollm2 or gemma3-270m. [default: the SAE's]")]
HookName = Annotated[
    str | None, typer.Option(help="model.layers.11 or blocks.11.hook_resid_post. [default: the SAE's]")
]
TextName = Annotated[str, typer.Option(help=".txt, .jsonl[.gz], a folder, hf:NAME[:SPLIT], or news.")]
Bos = Annotated[Literal["auto", "yes", "no"], typer.Option(help="Start sequences with BOS.")]


@app.command()
def demo(
    family: Annotated[Literal["relu", "jumprelu", "topk"], typer.Option(help="Which teacher.")] = "topk",
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option()] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
) -> None:
    """The whole job on embedded inputs.

    Example: rsae demo --family jumprelu --out runs/jumprelu
    """
    from rational_sae.demo import demo_settings

    _upgrade(demo_settings(family, seed), out, force=force)


@app.command()
def upgrade(
    teacher: Annotated[str, typer.Argument(help="File, folder, hub:OWNER/REPO[/PATH] or saelens:RELEASE/ID.")],
    text: TextName,
    out: Annotated[Path, typer.Option(help="Where the result goes.")],
    model: Model = None,
    hook: HookName = None,
    gate: Annotated[Literal["hard", "smooth", "topk"], typer.Option(help="Support of the gate.")] = "hard",
    degrees: Annotated[str, typer.Option("--type", help="Degrees P,Q of the rational.")] = "9,8",
    calibrate: Annotated[
        Literal["teacher", "reconstruction"], typer.Option(help="Fit the first shape to the teacher's gate, or to x.")
    ] = "teacher",
    steps: Annotated[int, typer.Option(help="Fine-tuning steps.")] = 600,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of one step.")] = 1024,
    train_tokens: Annotated[int | None, typer.Option(help="Distinct tokens. [default: steps × batch]")] = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens.")] = 16384,
    context: Annotated[int | None, typer.Option(help="Sequence length. [default: the SAE's, at most 128]")] = None,
    bos: Bos = "auto",
    target_l0: Annotated[str, typer.Option(help="teacher, or a number.")] = "teacher",
    control: Annotated[str, typer.Option(help="native, jumprelu, identity, all or none; commas join.")] = (
        "native,identity"
    ),
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option()] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Go on with an implausible SAE; replace --out.")] = False,
) -> None:
    """Replace a teacher's gate by a trainable rational function and fine-tune it beside its controls.

    Example: rsae upgrade demo/teachers/topk --text news --out runs/topk --train-tokens 200000
    """
    values: dict[str, Any] = {
        "teacher": teacher,
        "text": text,
        "model": model,
        "hook": hook,
        "gate": gate,
        "type": _degrees(degrees),
        "calibrate": calibrate,
        "controls": _controls(control),
        "steps": steps,
        "batch_tokens": batch_tokens,
        "train_tokens": train_tokens,
        "eval_tokens": eval_tokens,
        "context": context,
        "bos": bos,
        "target_l0": _target(target_l0),
        "seed": seed,
        "device": device,
    }
    from pydantic import ValidationError

    from rational_sae.upgrade.settings import Settings

    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    _upgrade(settings, out, force=force)


@app.command()
def evaluate(
    saes: Annotated[list[str], typer.Argument(help="SAE folders; the first is what the others are compared with.")],
    text: TextName,
    model: Model = None,
    hook: HookName = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens.")] = 16384,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    json_file: Json = None,
) -> None:
    """Measure SAEs on the same held-out tokens: reconstruction, ΔCE, loss recovered, KL, with intervals.

    Example: rsae evaluate demo/teachers/topk runs/demo/sae --text news --json -
    """
    from rational_sae.evaluate import evaluate as run
    from rational_sae.reading import Reading

    reading = Reading(text=text, model=model, hook=hook, context=context, bos=bos)
    with _bars() as bars:
        found = run(saes, reading, eval_tokens=eval_tokens, progress=bars)
    _show_results(found, json_file)


@app.command()
def headroom(
    sae: Annotated[str, typer.Argument(help="A ReLU, JumpReLU or TopK SAE.")],
    text: TextName,
    model: Model = None,
    hook: HookName = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens, and as many to fit on.")] = 16384,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    json_file: Json = None,
) -> None:
    """What a better magnitude alone can gain, in closed form, before any training.

    Encoder, decoder, support and poles stay; gains of selection lie outside, so 0 is no verdict on an upgrade.

    Example: rsae headroom demo/teachers/relu --text news
    """
    from rational_sae.headroom import headroom as run
    from rational_sae.reading import Reading
    from rational_sae.report import relative_difference

    reading = Reading(text=text, model=model, hook=hook, context=context, bos=bos)
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
            console.print(f"{'' if i else key:22} {line}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="An --out folder.")]) -> None:
    """Rebuild report.html from report.json.

    Example: rsae report runs/demo
    """
    from rational_sae.report import read_report, write_report

    found = read_report(folder)
    write_report(found, folder)
    _print_table(found)
    console.print(f"wrote {folder / 'report.html'}")


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(metavar="GRID.yaml", help="Cells: teachers and their settings.")],
    out: Annotated[Path, typer.Option(help="Where cells, sweep.json and sweep.html go.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a sweep into --out stopped.")] = False,
) -> None:
    """Many upgrades into one table; learning rates of every row are chosen in pilot cells.

    Each finished cell is kept, whatever happens to the others; `--resume` does what is missing.

    Example: rsae sweep configs/grid.yaml --out runs/grid --resume
    """
    from rational_sae.report import print_sweep
    from rational_sae.sweep import read_plan
    from rational_sae.sweep import sweep as run

    plan = read_plan(grid)
    with _bars() as bars:
        found = run(
            plan, out, bars, resume=resume, tell=lambda line: console.print(line, highlight=False, markup=False)
        )
    print_sweep(found, console)
    console.print(f"wrote {out}/sweep.html and {out}/sweep.json", highlight=False)
    if found["failed"]:
        for name, reason in found["failed"].items():
            console.print(f"[red]failed:[/] {name}: {reason}", highlight=False)
        raise typer.Exit(1)


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


def main() -> None:
    """Entry point: exit codes 0 done, 1 refused, 2 usage, 130 interrupted."""
    try:
        app()
    except RationalSAEError as error:
        console.print(f"[red]error:[/] {' '.join(str(error).split())}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written, run the same command again")
        sys.exit(130)


def _upgrade(settings: Any, out: Path, *, force: bool) -> None:
    from rational_sae.upgrade.job import upgrade
    from rational_sae.upgrade.write import check_out, write

    check_out(out, force=force)
    with _bars() as bars:
        done = upgrade(settings, force=force, progress=bars)
    found = write(done, out, force=force)
    _print_table(found)
    for warning in found["warnings"]:
        console.print(f"[yellow]warning:[/] {warning}")
    console.print(found["verdict"], style="bold", highlight=False)
    console.print(f"wrote {out}/sae, {out}/report.html and {out}/report.json", highlight=False)


def _bars() -> Any:
    from rational_sae.bars import Bars

    return Bars(console)


def _show_results(found: Any, json_file: str | None) -> dict[str, Any]:
    report = {"rows": found.rows, "intervals": found.intervals, "differences": found.differences}
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


def _target(value: str) -> float | None:
    if value == "teacher":
        return None
    try:
        return float(value)
    except ValueError as error:
        raise typer.BadParameter(f"--target-l0 {value!r} is neither teacher nor a number") from error
