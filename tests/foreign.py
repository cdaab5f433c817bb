"""Random trees of somebody's files beside and inside `--out`, and every command that writes, killed at random moments.

    python tests/foreign.py --times 40 --seed 0

Prints as JSON how many processes were killed, how many ended by themselves, and which files changed. Each process is
forked and ended by SIGKILL before one of its calls that change the file system, or by an error of the disk there, or
not at all. Somebody's files lie beside, in the folder before the first command, and between two commands in folders
that the program made, under names like its own.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tiny import save_tiny, save_tiny_teacher, save_tiny_text

from rational_sae.data.reading import Reading
from rational_sae.errors import RationalSAEError
from rational_sae.evaluation import evaluate
from rational_sae.formats import load
from rational_sae.formats.save import save, save_plain
from rational_sae.report import evaluation_report, files, read_report, write_page, write_report
from rational_sae.support.outputs import EVALUATION, PAGE_MARK, check_out
from rational_sae.support.progress import Silent
from rational_sae.sweep import Plan, sweep
from rational_sae.theory import figures, write_theory
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run.folder import JobFolder
from rational_sae.upgrading.run.schedule import Interval
from rational_sae.upgrading.run.write import write
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start import initialise

NAMES = [
    "notes.md",
    "settings.yml",
    "report.json.bak",
    "report.html~",
    "log.jsonl.1",
    "out.partial",
    ".partial",
    ".settings.yaml.bak",
    "step-notes",
    "sae.json",
    "cfg.json.orig",
    ".rsae-mine",
    "lock.txt",
    "theory.txt",
    "ü",
    "b (1)",
    ".out.1a2b3c4d",
    ".out.1a2b3c4d.earlier",
    "events.out",
    "tensors.pt",
    ".cfg.json.tmp",
    "step-7.txt",
]
"""Of somebody's files: none is one of ours."""
FOLDERS = ["", "sub", "sub/deep", "earlier", "sae.old", "step-00000099", "wandb", "cells.bak"]
OURS = ["report.json", "settings.yaml", "log.jsonl", "theory.json", "sweep.json", "sae/cfg.json", "report.html"]
"""Names of ours with somebody's content; put only where no result of ours lies."""


def plant(rng: random.Random, folder: Path, count: int) -> None:
    """Put new files and links of somebody's into a folder and the folders that are in it."""
    inside = [path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()]
    for _ in range(count):
        place = rng.choice(inside) if inside and rng.random() < 0.7 else folder / rng.choice(FOLDERS)
        path = place / f"{rng.choice(['', 'x', 'old '])}{rng.choice(NAMES)}"
        if not os.path.lexists(path):
            place.mkdir(parents=True, exist_ok=True)
            if rng.random() < 0.1:
                path.symlink_to(rng.choice(["/nowhere", "notes.md", ".."]))
            else:
                path.write_bytes(rng.randbytes(rng.randrange(60)))
            KEPT[path] = read(path)


KEPT: dict[Path, bytes | str] = {}
"""Somebody's files, as they have to stay."""


def read(path: Path) -> bytes | str:
    return os.readlink(path) if path.is_symlink() else path.read_bytes()


def changed() -> list[str]:
    """Somebody's files that are gone or not the same."""
    return [str(path) for path, content in KEPT.items() if not os.path.lexists(path) or read(path) != content]


@contextlib.contextmanager
def ending(number: int, kill: bool) -> Iterator[None]:
    """End this process by SIGKILL, or let the disk fail, before its number-th call that changes the file system."""
    left, active = [number], [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
        changes = changes or (event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax")
        if active[0] and changes:
            left[0] -= 1
            if left[0] == 0 and kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if left[0] == 0:
                raise OSError(errno.EIO, "Input/output error")

    sys.addaudithook(hook)
    try:
        yield
    finally:
        active[0] = False


class Commands:
    """Every command that writes, on a tiny host, as the command line calls it."""

    def __init__(self, root: Path) -> None:
        model, text = save_tiny("llama", root / "model"), save_tiny_text(root / "text.jsonl")
        self.teacher = save_tiny_teacher(root / "teacher", model, text)
        self.sae = load(str(self.teacher))
        self.settings = Settings(
            teacher=str(self.teacher),
            text=str(text),
            type=(3, 2),
            steps=6,
            batch_tokens=64,
            train_tokens=300,
            eval_tokens=128,
            controls=("native",),
        )
        common = self.settings.model_dump(mode="json", exclude={"teacher", "rates"})
        cells = {"first": {"teacher": str(self.teacher), "pilot": True}}
        self.plan = Plan.model_validate({"defaults": common, "rates": [1.0], "cells": cells})
        # In this process first, so that the children inherit everything that is imported and cached. Pages and
        # pictures are not drawn: it takes longer than all the rest.
        initialise.cached_fit = functools.cache(initialise.cached_fit)
        files.render = lambda _report: PAGE_MARK
        files.render_sweep = lambda _found: PAGE_MARK
        figures.save_theory_figures = lambda _found, out: [
            (out / f"theory-{n}.png").write_bytes(b"") for n in ("relu",)
        ]
        self.upgrade(root / "first")
        self.families: list[list[Callable[[Path], object]]] = [
            [self.upgrade, self.again, self.again, self.resume, self.resume, self.report],
            [self.swept, self.swept_on, self.swept_on],
            [self.saelens, self.plain, self.inside],
            [self.evaluated, self.report],
            [self.theory],
        ]

    def upgrade(self, out: Path, **options: Any) -> None:
        with JobFolder(out, interval=Interval(steps=2), **options) as keeper:
            write(upgrade(self.settings, keeper=keeper), out, overwrite=True)
            keeper.finish()

    def again(self, out: Path) -> None:
        self.upgrade(out, overwrite=True)

    def resume(self, out: Path) -> None:
        self.upgrade(out, resume=True)

    def saelens(self, out: Path) -> None:
        save(self.sae, out, "# A card")

    def inside(self, out: Path) -> None:
        save(self.sae, out / "sae")

    def plain(self, out: Path) -> None:
        save_plain(self.sae, out)

    def evaluated(self, out: Path) -> None:
        check_out(out, EVALUATION, overwrite=True)
        found = evaluate([str(self.teacher)], Reading(text=self.settings.text), eval_tokens=128)
        write_report(evaluation_report(found.report(), {"saes": []}), out)

    def report(self, out: Path) -> None:
        write_page(read_report(out), out)

    def theory(self, out: Path) -> None:
        write_theory({"exponents": []}, out, overwrite=True)

    def swept(self, out: Path) -> None:
        sweep(self.plan, out, Silent(), interval=Interval(steps=2))

    def swept_on(self, out: Path) -> None:
        sweep(self.plan, out, Silent(), resume=True, interval=Interval(steps=2))


def child(job: Callable[[], object], number: int, kill: bool) -> int:
    """The exit code of a process of its own, negative for a signal: 0 done, 1 refused, 2 anything else."""
    pid = os.fork()
    if pid == 0:
        try:
            with ending(number, kill):
                job()
        except RationalSAEError:
            os._exit(1)
        except BaseException as error:
            print(f"  {type(error).__name__}: {error}", file=sys.stderr)
            os._exit(2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    counts: dict[str, int] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        commands = Commands(root)
        done = 0
        while done < args.times:
            place = root / f"case-{done}"
            out = place / "out"
            place.mkdir()
            KEPT.clear()
            plant(rng, place, 4)
            if rng.random() < 0.2:
                plant(rng, out, 3)
            if rng.random() < 0.1:
                mine = out / rng.choice(OURS)
                mine.parent.mkdir(parents=True, exist_ok=True)
                mine.write_text('{"mine": true}')
                KEPT[mine] = read(mine)
            family = rng.choice([commands.families[0], rng.choice(commands.families)])
            for step in range(rng.randrange(2, 5)):
                job = family[0] if not step else rng.choice(rng.choice([family, family, *commands.families]))
                kill, number = rng.random() < 0.7, int(10 ** rng.uniform(0, 2.3))
                code = child(lambda job=job, out=out: job(out), number, kill)
                counts[str(code)] = counts.get(str(code), 0) + 1
                done += 1
                lost = changed()
                wrong += [f"seed {args.seed}, {job.__name__}, exit {code}: {path}" for path in lost]
                if lost:
                    break
                if out.is_dir() and rng.random() < 0.9:
                    plant(rng, out, 6)
    print(json.dumps({"codes": counts, "changed": wrong}))


if __name__ == "__main__":
    main()
