"""A job's folder while it runs: settings, a log line a step, and checkpoints to go on from after any end.

    with JobFolder(out, resume=True) as folder:
        done = upgrade(settings, keeper=folder)
        write(done, out, force=True)
        folder.finish()

`out` is not touched before the inputs have been verified. It then holds settings.yaml, log.jsonl and checkpoint/; the
last is removed once the result is written. A job is finished when report.json is there: it is written last.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

import torch
import yaml
from safetensors import SafetensorError

from rational_sae.errors import OutputError, RationalSAEError, SettingsError, TrainingError
from rational_sae.files import is_locked, locked, write_whole
from rational_sae.interrupt import shielded
from rational_sae.report import environment
from rational_sae.sources import load
from rational_sae.upgrade.checkpoint import Checkpoint, Checkpoints
from rational_sae.upgrade.keeper import Keeper, Training
from rational_sae.upgrade.log import LOG, step_lines, whole_log
from rational_sae.upgrade.settings import MOST_STEPS, Settings, completed
from rational_sae.upgrade.state import contents, put_back
from rational_sae.upgrade.write import REPORT, check_out

CHECKPOINT, SETTINGS, LOCK = "checkpoint", "settings.yaml", "lock"

EVERY_STEPS, EVERY_SECONDS = 1000, 120.0
"""A checkpoint is written at whichever comes first."""

MOST_OF_TIME = 0.05
"""Share of the time that checkpoints written by the clock may take: large SAEs get them further apart."""


class Tracker(Protocol):
    """Somebody else's log of a run."""

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Interval:
    """When checkpoints are written: at whichever comes first."""

    steps: int = EVERY_STEPS
    seconds: float = EVERY_SECONDS

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS or not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise SettingsError(
                f"checkpoints every {self.steps} steps or {self.seconds:g} seconds",
                f"give 1 to {MOST_STEPS} steps, and seconds that are finite and not negative",
            )


class JobFolder(Keeper):
    """Keeps a training in a folder. One process at a time may hold it."""

    def __init__(
        self,
        out: Path,
        *,
        resume: bool = False,
        force: bool = False,
        interval: Interval | None = None,
        trackers: Callable[[int, dict[str, Any]], Sequence[Tracker]] = lambda _step, _settings: (),
    ) -> None:
        """trackers: makes them, told of the step after which training goes on, and of the settings.

        Raises OutputError if `out` holds something and neither `resume` nor `force` is given.
        """
        super().__init__()
        self.out, self.resume, self.interval = out, resume, interval or Interval()
        self.checkpoints = Checkpoints(out / CHECKPOINT)
        self.number = 0
        """The latest whole step."""
        self._make_trackers = trackers
        self._trackers: Sequence[Tracker] = ()
        self._asked: dict[str, Any] = {}
        self._found: Checkpoint | None = None
        self._training: Training | None = None
        self._log: TextIO | None = None
        self._stack = contextlib.ExitStack()
        self._saved, self._saved_at, self._cost = -1, 0.0, 0.0
        if resume:
            check_out(out, force=True)
        elif not force and self.checkpoints.folder.exists():
            raise OutputError(f"{out} holds an unfinished job", "give --resume to go on, or --force to start again")
        else:
            check_out(out, force=force)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        for tracker in self._trackers:
            tracker.close()
        if self._log is not None:
            self._log.close()
        self._stack.close()

    @property
    def finished(self) -> bool:
        """Whether the result is there."""
        return (self.out / REPORT).exists()

    @property
    def goes_on(self) -> bool:
        return self._found is not None

    def check_finished(self, settings: Settings) -> None:
        """Raise OutputError if the result that is there was made with other settings."""
        require_same(self.out, stored_settings(self.out), settings.resolved(load(settings.teacher)).to_store())

    def check(self, asked: dict[str, Any]) -> None:
        """Find what there is to go on from. asked: everything that decides the result.

        Raises OutputError naming a setting that differs. Sums depend on the number of threads, so it becomes the
        checkpoint's.
        """
        self._asked = asked
        if not self.resume:
            return
        stored = stored_settings(self.out)
        self._found = self.checkpoints.newest()
        for name in self.checkpoints.damaged:
            self.warnings.append(f"checkpoint {name} was damaged; the one before was used")
        if self._found is not None:
            stored = completed(self._found.state["asked"])
            self._compare_environment(self._found.state["environment"])
        if stored:
            require_same(self.out, stored, asked)

    def begin(self, training: Training) -> int:
        """Take the folder, and bring the training to where the checkpoint was."""
        self._training = training
        if self._found is None:
            self._start(training)
        else:
            self._take()
            self._restore(self._found, training)
        self._trackers = self._make_trackers(self.number, self._asked)
        self._saved_at = time.monotonic()
        return self.number

    def stepped(self, number: int) -> None:
        assert self._training is not None
        assert self._log is not None
        try:
            self._log.write("".join(step_lines(self._training.candidates, number)))
            self._log.flush()
        except OSError as error:
            raise OutputError(
                f"{self.out / LOG} cannot be written ({error.strerror})", "free some space, then --resume"
            ) from error
        self.number = number
        self._track(number)
        waited = time.monotonic() - self._saved_at
        due = waited >= max(self.interval.seconds, self._cost / MOST_OF_TIME)
        last = number == self._asked.get("steps")
        if last or ((due or number - max(0, self._saved) >= self.interval.steps) and not self._skipped()):
            self.save()

    def stopped(self, error: BaseException) -> None:
        """Save where it stopped, but after repeated NaN keep the checkpoint before it: once the cause is mended, those
        steps are taken. An input that was refused at the start leaves nothing behind."""
        if isinstance(error, RationalSAEError) and self.number == 0:
            self._clear()
        elif not (isinstance(error, TrainingError) and self._saved >= 0):
            with shielded():
                self.save()

    def save(self) -> None:
        """Write a checkpoint of the latest step. One that cannot be written is a warning: training goes on."""
        assert self._training is not None
        if self._saved == self.number:
            return
        began = time.monotonic()
        tensors, state = self._contents(self._training)
        unsound = [name for name, value in tensors.items() if "/sae." in name and not bool(value.isfinite().all())]
        if unsound:
            self.warnings.append(f"no checkpoint at step {self.number}: {unsound[0]} is not finite")
            return
        try:
            self.checkpoints.save(self.number, tensors, state)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            self.warnings.append(f"the checkpoint at step {self.number} could not be written ({reason})")
            return
        self._saved, self._saved_at = self.number, time.monotonic()
        self._cost = self._saved_at - began

    def finish(self) -> None:
        """The result is written: checkpoints are of no more use."""
        shutil.rmtree(self.checkpoints.folder, ignore_errors=True)

    def _skipped(self) -> bool:
        """Whether a candidate skipped the latest step."""
        assert self._training is not None
        return any(one.curve.skipped[-1:] == [self.number] for one in self._training.candidates.values())

    def _start(self, training: Training) -> None:
        """A new job: whatever was here goes, now that the inputs are known to be good."""
        try:
            self._take()
            for path in self.out.iterdir():
                if path.name != CHECKPOINT:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            write_whole(self.out / SETTINGS, yaml.safe_dump(self._asked, sort_keys=False))
            self._log = (self.out / LOG).open("w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {self.out} ({error.strerror})", "choose another --out") from error

    def _take(self) -> None:
        folder = self.checkpoints.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(locked(folder / LOCK, str(self.out)))

    def _clear(self) -> None:
        if self._log is not None:
            self._log.close()
        self._stack.close()
        shutil.rmtree(self.checkpoints.folder, ignore_errors=True)
        for name in (LOG, SETTINGS):
            (self.out / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.out.rmdir()

    def _contents(self, training: Training) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors, state = contents(training)
        own = {"asked": self._asked, "inputs": training.inputs, "environment": environment()}
        return tensors, own | {"timing": dict(training.timing)} | state

    def _restore(self, found: Checkpoint, training: Training) -> None:
        state = found.state
        for what, value in training.inputs.items():
            if state["inputs"].get(what) != value:
                raise OutputError(
                    f"{self.out} cannot be resumed: {what} changed since step {found.step}",
                    "restore it, or start again: --force instead of --resume, or in a sweep without that folder",
                )
        put_back(training, found.tensors, state)
        for stage, seconds in state["timing"].items():
            training.timing[stage] = training.timing.get(stage, 0.0) + seconds
        self.number = self._saved = found.step
        write_whole(self.out / LOG, "".join(whole_log(training.candidates, found.step)))
        self._log = (self.out / LOG).open("a", encoding="utf-8")
        self._found = None  # its tensors are no longer needed

    def _compare_environment(self, then: dict[str, str]) -> None:
        torch.set_num_threads(int(then["threads"]))
        now = environment()
        differing = [f"{name} {then[name]} → {now.get(name)}" for name in then if now.get(name) != then[name]]
        if differing:
            self.warnings.append(f"resumed in another environment, so not bit for bit: {', '.join(differing)}")

    def _track(self, number: int) -> None:
        assert self._training is not None
        if not self._trackers:
            return
        values: dict[str, float] = {}
        for name, candidate in self._training.candidates.items():
            curve, validation = candidate.curve, candidate.validation
            if curve.step and curve.step[-1] == number:
                last = {"mse": curve.mse[-1], "l0": curve.l0[-1], "sparsity_weight": curve.sparsity_weight[-1]}
                values |= {f"{name}/{key}": value for key, value in last.items()}
            if validation["step"] and validation["step"][-1] == number:
                values[f"{name}/validation_fvu"] = validation["fvu"][-1]
        for tracker in self._trackers:
            tracker.log(number, values)


def stored_settings(out: Path) -> dict[str, Any]:
    """What settings.yaml says, or nothing."""
    try:
        found = yaml.safe_load((out / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return completed(found) if isinstance(found, dict) else {}


def require_same(where: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise OutputError naming the first setting that differs."""
    for key in dict.fromkeys([*asked, *stored]):
        if stored.get(key) != asked.get(key):
            raise OutputError(
                f"{where} was made with {key} {stored.get(key)!r}, now it is {asked.get(key)!r}",
                "choose another --out, or give the settings that it was made with",
            )


def how_to_resume(out: Path, command: str) -> str:
    """What to tell somebody whose job was interrupted."""
    step = Checkpoints(out / CHECKPOINT).newest_step()
    if (out / REPORT).exists():
        return f"interrupted; {out} is finished all the same"
    if step is None:
        return "interrupted before anything was saved; run the same command again"
    of = stored_settings(out).get("steps")
    return f"interrupted at step {step}{f' of {of}' if of else ''}, which is saved; go on with: {command}"


def is_running(out: Path) -> bool:
    """Whether a process is writing into a job's folder now."""
    return is_locked(out / CHECKPOINT / LOCK)
