"""Break running jobs in every way that is promised to be harmless, and count what is lost.

    python benchmarks/faults.py --write docs/reliability.md     (about five minutes on two free cores)
    python benchmarks/faults.py --only kill --times 20 --json -

Each fault is real: processes are forked and killed, files are cut, the model gives NaN. What a fault may never change
is the result, so each broken job is resumed until it is finished and then compared, byte by byte, with one that ran
undisturbed: weights, log and settings, and the report but for its times. The page made of the report is left out,
because drawing it takes longer than all the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny import save_tiny, save_tiny_teacher, save_tiny_text

from rational_sae.data import activations, reading
from rational_sae.errors import RationalSAEError
from rational_sae.formats import load
from rational_sae.report import files
from rational_sae.support.outputs import CHECKPOINT, PAGE_MARK
from rational_sae.support.progress import Silent
from rational_sae.sweep import Plan, sweep
from rational_sae.upgrading.harvest import harvest
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run import checkpoint, write
from rational_sae.upgrading.run.folder import JobFolder
from rational_sae.upgrading.run.schedule import Interval
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start import initialise

STEPS = 24
WINDOW_BYTES = 4 * 32 * 300
"""A third of the training vectors, so that the middle of a run harvests too."""
MARKS = ("<!-- faults -->", "<!-- /faults -->")
PATIENCE = 40
"""Resumes after which a job counts as lost."""


@dataclass
class Row:
    """One line of the table."""

    fault: str
    times: int
    lost: int
    """Results that were not what they had to be."""
    outcome: str


class Bench:
    """A tiny host, text and teacher, and jobs over them in child processes."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root, self.rng = root, random.Random(seed)
        model, text = save_tiny("llama", root / "model"), save_tiny_text(root / "text.jsonl")
        self.teacher = save_tiny_teacher(root / "teacher", model, text)
        self.settings = Settings(
            teacher=str(self.teacher),
            text=str(text),
            type=(3, 2),
            steps=STEPS,
            batch_tokens=64,
            train_tokens=900,
            eval_tokens=256,
            controls=("native",),
        )
        self.names = iter(range(10**6))
        # In this process first, so that the children inherit everything that is imported and cached.
        initialise.cached_fit = functools.cache(initialise.cached_fit)
        files.render = lambda _report: PAGE_MARK
        self.run(self.root / "first")
        began = time.process_time()
        self.run(self.root / "reference")
        self.seconds = time.process_time() - began
        self.reference = outcome_of(self.root / "reference")

    def fresh(self) -> Path:
        return self.root / f"job-{os.getpid()}-{next(self.names)}"

    def run(self, out: Path, *, every: int = 1, resume: bool = True, **changes: Any) -> None:
        teacher = load(str(self.teacher))
        settings = self.settings.model_copy(update=changes).resolved(teacher)
        shared = harvest(settings, teacher)
        shared.batches.buffer_bytes = WINDOW_BYTES
        with JobFolder(out, resume=resume, interval=Interval(steps=every)) as keeper:
            write.write(upgrade(settings, shared=shared, keeper=keeper), out, overwrite=True)
            keeper.finish()

    def child(self, job: Callable[[], None], *, kill_after: float | None = None, number: int = signal.SIGKILL) -> int:
        """Run a job in a process of its own. kill_after: seconds of its own processor time. Returns the exit code,
        negative for a signal: 0 done, 1 refused, 130 interrupted."""
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                job()
            except KeyboardInterrupt:
                os._exit(130)
            except RationalSAEError as error:
                print(f"  {error}", file=sys.stderr)
                os._exit(1)
            except BaseException as error:
                print(f"  {type(error).__name__}: {error}", file=sys.stderr)
                os._exit(70)
            os._exit(0)
        while True:
            done, status = os.waitpid(pid, os.WNOHANG if kill_after is not None else 0)
            if done:
                return os.waitstatus_to_exitcode(status)
            if kill_after is not None and processor_seconds(pid) >= kill_after:
                os.kill(pid, number)
                kill_after = None
            time.sleep(0.005)

    def finish(self, out: Path, job: Callable[[], None] | None = None) -> bool:
        """Resume until the job is done. Returns whether its result is that of the undisturbed one."""
        for _ in range(PATIENCE):
            if self.child(job or (lambda: self.run(out))) == 0:
                return outcome_of(out) == self.reference
        return False

    def moment(self) -> float:
        """A random amount of processor time within a run."""
        return self.rng.uniform(0.0, self.seconds)


def processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def outcome_of(out: Path) -> dict[str, str]:
    """sha256 of every file of a result. Left out: times and warnings of report.json, the page made of it, and the
    warnings that the model card repeats."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_dir() or path.name == "report.html":
            continue
        content = path.read_bytes()
        if path.name == "report.json":
            report = json.loads(content)
            content = json.dumps({key: report[key] for key in report if key not in ("timing", "warnings")}).encode()
        if path.name == "README.md":
            content = re.sub(rb"\n\nWarning: [^\n]*", b"", content)
        found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found


def kill(bench: Bench, times: int) -> Row:
    """SIGKILL at random moments of start, harvest, training, measuring and writing."""
    done, lost, jobs = 0, 0, 0
    while done < times:
        out = bench.fresh()
        jobs += 1
        while done < times:
            code = bench.child(lambda out=out: bench.run(out), kill_after=bench.moment())
            if code == 0:
                break
            done += code == -signal.SIGKILL
            lost += code not in (0, -signal.SIGKILL)
        if (out / "report.json").exists():  # the last kill may have left checkpoints of a finished job to be removed
            found = {name: digest for name, digest in outcome_of(out).items() if not name.startswith(CHECKPOINT)}
            lost += found != bench.reference
        else:
            lost += not bench.finish(out)
    return Row("`kill -9` at a random moment of an upgrade", done, lost, f"{jobs} jobs resumed, same bits")


def stop(bench: Bench, times: int) -> Row:
    """SIGTERM and SIGINT at random moments."""
    lost = 0
    for number in range(times):
        out = bench.fresh()
        which = (signal.SIGTERM, signal.SIGINT)[number % 2]
        code = bench.child(lambda out=out: bench.run(out), kill_after=bench.moment(), number=which)
        lost += code not in (0, 130) or not bench.finish(out)
    return Row("SIGTERM or Ctrl-C at a random moment", times, lost, "saved at the step reached, resumed, same bits")


def kill_in_harvest(bench: Bench, times: int) -> Row:
    """SIGKILL after a random number of harvested tokens, in any window of the run."""
    lost = 0
    for _ in range(times):
        out, left = bench.fresh(), bench.rng.randrange(50, 1500)

        def job(out: Path = out, left: int = left) -> None:
            count = activations.TrainingBatches._count
            held = [left]

            def counted(self: Any, x: torch.Tensor) -> None:
                held[0] -= len(x)
                if held[0] <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                count(self, x)

            activations.TrainingBatches._count = counted
            bench.run(out)

        lost += bench.child(job) not in (0, -signal.SIGKILL) or not bench.finish(out)
    return Row("`kill -9` while activations are harvested", times, lost, "resumed, same bits")


def kill_in_sweep(bench: Bench, times: int) -> Row:
    """SIGKILL at random moments of a sweep: a pilot cell and another."""
    common = bench.settings.model_dump(mode="json", exclude={"teacher", "rates"})
    cells = {"first": {"teacher": str(bench.teacher), "pilot": True}, "second": {"teacher": str(bench.teacher)}}
    plan = Plan.model_validate({"defaults": common, "rates": [0.5, 1.0], "cells": cells})

    def job(out: Path) -> None:
        sweep(plan, out, Silent(), resume=True, interval=Interval(steps=1))

    whole = bench.fresh()
    began = time.process_time()
    job(whole)
    seconds, expected = time.process_time() - began, swept(whole)
    lost = done = 0
    while done < times:
        out = bench.fresh()
        while done < times:
            code = bench.child(lambda out=out: job(out), kill_after=bench.rng.uniform(0, seconds))
            if code == 0:
                break
            done += 1
        lost += bench.child(lambda out=out: job(out)) != 0 or swept(out) != expected
    return Row(
        "`kill -9` at a random moment of a sweep", done, lost, "cells and pilots resumed in their middle, same bits"
    )


def swept(out: Path) -> dict[str, dict[str, str]]:
    found = {path.name: outcome_of(path) for path in sorted((out / "cells").iterdir())}
    return found | {"pilots": {path.name: path.read_text() for path in (out / "pilots").glob("*.json")}}


def kill_in_save(bench: Bench, times: int) -> Row:
    """SIGKILL at every file operation of a checkpoint in turn."""
    return _kill_at_operations(bench, times, checkpoint.Checkpoints, "save", "a checkpoint is written")


def kill_in_write(bench: Bench, times: int) -> Row:
    """SIGKILL at every file operation of the result in turn."""
    return _kill_at_operations(bench, times, write, "write", "the result is written")


def _kill_at_operations(bench: Bench, times: int, owner: Any, name: str, words: str) -> Row:
    lost = 0
    for number in range(times):
        out = bench.fresh()

        def job(out: Path = out, number: int = number) -> None:
            inner = getattr(owner, name)

            def watched(*args: Any, **options: Any) -> Any:
                with killing_at_operation(number):
                    return inner(*args, **options)

            setattr(owner, name, watched)
            bench.run(out, every=6)

        code = bench.child(job)
        lost += code not in (0, -signal.SIGKILL) or not bench.finish(out)
    return Row(f"`kill -9` while {words}, at each file operation in turn", times, lost, "resumed, same bits")


@contextlib.contextmanager
def killing_at_operation(number: int) -> Iterator[None]:
    """Kill this process before its number-th call that changes the file system, as the audit hooks count them."""
    left = [number]
    active = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
        changes = changes or (event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wa")
        if active[0] and changes:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)
    try:
        yield
    finally:
        active[0] = False


def damage(bench: Bench, times: int) -> Row:
    """A checkpoint whose bytes are not what was written."""
    lost = 0
    for number in range(times):
        out, at = bench.fresh(), bench.rng.randrange(3, STEPS)
        bench.child(lambda out=out, at=at: stopping_at(bench, out, at))
        newest = sorted((out / "checkpoint").glob("step-*"))[-1]
        file = newest / ("tensors.safetensors", "state.json", "manifest.json")[number % 3]
        kind = number // 3 % 3
        if kind == 0:
            content = bytearray(file.read_bytes())
            content[bench.rng.randrange(len(content))] ^= 1 << bench.rng.randrange(8)
            file.write_bytes(content)
        elif kind == 1:
            os.truncate(file, file.stat().st_size // 2)
        else:
            file.unlink()
        lost += not bench.finish(out)
        warnings = json.loads((out / "report.json").read_text())["warnings"]
        lost += not any(newest.name in warning for warning in warnings)
    return Row(
        "the newest checkpoint: a bit flipped, cut, or a file gone",
        times,
        lost,
        "noticed, the one before used, same bits",
    )


def damage_all(bench: Bench, times: int) -> Row:
    lost = 0
    for _ in range(times):
        out = bench.fresh()
        bench.child(lambda out=out: stopping_at(bench, out, STEPS // 2))
        for file in (out / "checkpoint").glob("step-*/state.json"):
            os.truncate(file, 10)
        lost += not bench.finish(out)
    return Row("every checkpoint cut", times, lost, "noticed, started again, same bits")


def stopping_at(bench: Bench, out: Path, step: int) -> None:
    """Run, and die at once after a step."""
    stepped = JobFolder.stepped

    def dying(self: JobFolder, number: int) -> None:
        stepped(self, number)
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    JobFolder.stepped = dying
    bench.run(out)


def no_space(bench: Bench, times: int) -> Row:
    """Files that may not grow beyond a size, as on a full disk: the system refuses the writes."""
    lost = 0
    for _ in range(times):
        out = bench.fresh()

        def job(out: Path = out) -> None:
            save = checkpoint.Checkpoints.save

            def limited(*args: Any) -> None:
                before = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
                try:
                    save(*args)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, before)

            checkpoint.Checkpoints.save = limited  # pyright: ignore[reportAttributeAccessIssue]
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            bench.run(out, every=8)

        lost += bench.child(job) != 0 or outcome_of(out) != bench.reference
        warnings = json.loads((out / "report.json").read_text())["warnings"]
        lost += not any("could not be written" in warning for warning in warnings)
    return Row("no room for a checkpoint", times, lost, "training goes on, the report says so, same bits")


def nan(bench: Bench, times: int) -> Row:
    """The model gives NaN on one batch of sequences of the train split."""
    lost = 0
    for _ in range(times):
        out = bench.fresh()
        lost += bench.child(lambda out=out: poisoned(bench, out, passes={0})) != 0
        report = json.loads((out / "report.json").read_text())
        skipped = report["data"]["skipped_steps"]
        lost += not (0 < skipped["rsae"] == skipped["control_native"] <= 3) or not report["warnings"]
        lost += any(value is None for value in report["rows"]["rsae"].values())
    return Row("NaN in a batch of activations", times, lost, "steps skipped for every row alike, counted in the report")


def nan_always(bench: Bench, times: int) -> Row:
    """The model gives NaN from some moment on."""
    lost = 0
    for _ in range(times):
        out = bench.fresh()
        lost += bench.child(lambda out=out: poisoned(bench, out, passes=set(range(1000)))) != 1
        lost += (out / "report.json").exists()
        found = checkpoint.Checkpoints(out / "checkpoint").newest()
        if found is None or not all(value.isfinite().all() for name, value in found.tensors.items() if "/sae." in name):
            lost += 1
            continue
        lost += bench.child(lambda out=out: bench.run(out)) != 0
        report = json.loads((out / "report.json").read_text())
        lost += report["data"]["skipped_steps"]["rsae"] > 3 or len(report["curves"]["validation"]["rsae"]["step"]) < 9
    return Row("NaN in every further batch", times, lost, "stopped, last good state kept, finished on a sound model")


def poisoned(bench: Bench, out: Path, passes: set[int]) -> None:
    """Run with a model whose block at the hook gives NaN at one position, from the second window of training on."""
    load_host, count = reading.load_host, activations.TrainingBatches._windows
    windows = [0]

    def loaded(*args: Any, **options: Any) -> Any:
        host = load_host(*args, **options)
        due = [0]

        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            if windows[0] < 1:
                return None
            due[0] += 1
            if due[0] - 1 not in passes:
                return None
            broken = output.clone()
            broken[0, -1] = torch.nan
            return broken

        host.blocks[1].register_forward_hook(hook)  # an earlier one would poison the whole sequence
        return host

    def counted(self: Any, start: Any) -> Any:
        for window in count(self, start):
            windows[0] += 1
            yield window

    reading.load_host, activations.TrainingBatches._windows = loaded, counted
    bench.run(out)


def twice(bench: Bench, times: int) -> Row:
    """A second process starts on a folder that one is writing."""
    lost = 0
    for _ in range(times):
        out = bench.fresh()

        def job(out: Path = out) -> None:
            stepped = JobFolder.stepped

            def meanwhile(self: JobFolder, number: int) -> None:
                stepped(self, number)
                if number == 5 and bench.child(lambda: second(bench, out)) != 1:
                    os._exit(71)

            JobFolder.stepped = meanwhile
            bench.run(out)

        lost += bench.child(job) != 0 or outcome_of(out) != bench.reference
    return Row("a second process writes into the same folder", times, lost, "the second is refused, same bits")


def second(bench: Bench, out: Path) -> None:
    JobFolder.stepped = lambda self, number: os._exit(72)
    bench.run(out)


def other_settings(bench: Bench, times: int) -> Row:
    """--resume with a setting that changes the result."""
    changes = [{"lr": 1e-3}, {"seed": 1}, {"steps": STEPS + 1}, {"controls": ()}, {"batch_tokens": 32}]
    lost = 0
    for number in range(times):
        out = bench.fresh()
        bench.child(lambda out=out: stopping_at(bench, out, 5))
        lost += bench.child(lambda out=out, n=number: bench.run(out, **changes[n % len(changes)])) != 1
        lost += not bench.finish(out)
    return Row(
        "`--resume` with another setting", times, lost, "refused naming it; resumed with the first ones, same bits"
    )


def other_text(bench: Bench, times: int) -> Row:
    """The text changes between two parts of a run."""
    lost = 0
    text = Path(bench.settings.text)
    for _ in range(times):
        out = bench.fresh()
        bench.child(lambda out=out: stopping_at(bench, out, 5))
        before = text.read_bytes()
        text.write_bytes(before.replace(b"w1 ", b"w2 "))
        lost += bench.child(lambda out=out: bench.run(out)) != 1
        text.write_bytes(before)
        lost += not bench.finish(out)
    return Row(
        "the text changed before `--resume`", times, lost, "refused naming it; resumed on the first one, same bits"
    )


FAULTS: dict[str, tuple[Callable[[Bench, int], Row], int]] = {
    "kill": (kill, 20),
    "harvest": (kill_in_harvest, 3),
    "save": (kill_in_save, 8),
    "write": (kill_in_write, 8),
    "sweep": (kill_in_sweep, 3),
    "stop": (stop, 4),
    "damage": (damage, 9),
    "damage-all": (damage_all, 1),
    "space": (no_space, 1),
    "nan": (nan, 1),
    "nan-always": (nan_always, 1),
    "twice": (twice, 1),
    "settings": (other_settings, 5),
    "text": (other_text, 1),
}
"""Name → what breaks, and how often."""


def measured(bench: Bench, names: list[str], times: int | None, jobs: int) -> list[Row]:
    """The rows of these faults, so many at a time, each in a process of its own."""
    running: dict[int, str] = {}

    def reap() -> None:
        running.pop(os.wait()[0])

    for name in names:
        # The last changes the text that all jobs read, so it runs alone.
        while len(running) >= jobs or (name == "text" and running):
            reap()
        pid = os.fork()
        if pid == 0:
            try:
                began = time.monotonic()
                bench.rng.seed(f"{bench.rng.random()} {name}")
                row = FAULTS[name][0](bench, times or FAULTS[name][1])
                (bench.root / f"{name}.row").write_text(json.dumps(asdict(row)))
                seconds = time.monotonic() - began
                print(f"{name}: {row.lost} of {row.times} lost, {seconds:.0f} s", file=sys.stderr, flush=True)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        running[pid] = name
    while running:
        reap()
    kept = {name: bench.root / f"{name}.row" for name in names}
    return [
        Row(**json.loads(path.read_text())) if path.exists() else Row(name, 0, 1, "the bench itself failed")
        for name, path in kept.items()
    ]


def table(rows: list[Row]) -> str:
    lines = ["| fault | times | lost | outcome |", "|---|---|---|---|"]
    lines += [
        f"| {row.fault} | {row.times} | {row.lost} | {row.outcome if not row.lost else 'FAILED'} |" for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"commas join: {', '.join(FAULTS)}")
    parser.add_argument("--times", type=int, help="instead of each fault's own number")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--write", type=Path, help="put the table between the marks of this page")
    parser.add_argument("--json", help="write the rows here too; - for stdout")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a fork and more threads do not go together
    names = args.only.split(",") if args.only else list(FAULTS)
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        bench = Bench(root, args.seed)
        rows = measured(bench, names, args.times, args.jobs)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if args.write:
        before, _, rest = args.write.read_text().partition(MARKS[0])
        args.write.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")
    if args.json == "-":
        print(json.dumps([asdict(row) for row in rows]))
    elif args.json:
        Path(args.json).write_text(json.dumps([asdict(row) for row in rows], indent=1))
    sys.exit(any(row.lost for row in rows))


if __name__ == "__main__":
    main()
