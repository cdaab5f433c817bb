"""A job's folder while it runs: settings, a log line a step, and checkpoints to go on from after any end.

    with JobFolder(out, resume=True) as folder:
        done = run(settings, keeper=folder)
        write(done, out, overwrite=True)
        folder.finish()

`out` is not touched before the inputs have been verified. It then holds settings.yaml, log.jsonl and checkpoint/; the
last is removed once the result is written. A job is finished when report.json is there: it is written last. A result
that is overwritten lies in .rsae-earlier/ until then.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

import torch
import yaml
from safetensors import SafetensorError

from rational_sae.errors import OutputError, RationalSAEError, SettingsError, TrainingError
from rational_sae.formats import load
from rational_sae.report import environment
from rational_sae.support import outputs
from rational_sae.support.files import write_whole
from rational_sae.support.interrupt import shielded
from rational_sae.support.locks import is_locked, locked
from rational_sae.support.outputs import (
    CHECKPOINT,
    LOCK,
    LOG,
    PARTIAL,
    REPORT,
    RESULT_NAMES,
    SETTINGS,
    UPGRADE,
    check_elsewhere,
    check_out,
    recover,
    remove,
    set_aside,
)
from rational_sae.upgrading.run.checkpoint import Checkpoint, Checkpoints
from rational_sae.upgrading.run.keeper import Keeper, Training
from rational_sae.upgrading.run.log import step_lines, whole_log
from rational_sae.upgrading.run.state import contents, put_back
from rational_sae.upgrading.settings import MOST_STEPS, Settings, completed

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
        overwrite: bool = False,
        interval: Interval | None = None,
        trackers: Callable[[int, dict[str, Any]], Sequence[Tracker]] = lambda _step, _settings: (),
    ) -> None:
        """trackers: makes them, told of the step after which training goes on, and of the settings.

        resume: goes on with the job in `out`, or begins one where nothing is. overwrite: replaces the result or the
        job there, and leaves other files alone. Raises OutputError if `out` holds anything else.
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
        self._made = self._wrote_settings = False
        check_out(out, UPGRADE, resume=resume, overwrite=overwrite)
        if not is_running(out):
            with _told(out):
                recover(out, UPGRADE)

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
        check_elsewhere(asked["teacher"], self.out)
        if is_running(self.out):
            raise OutputError(f"{self.out} is being written by another process", "wait for it, or choose another --out")
        if not self.resume:
            return
        stored = stored_settings(self.out)
        self._found = self.checkpoints.newest()
        for name in self.checkpoints.damaged:
            self.warnings.append(f"checkpoint {name} was damaged and moved aside; the one before was used")
        if self._found is not None:
            stored = completed(self._found.state["asked"])
            self._compare_environment(self._found.state["environment"])
        if stored:
            require_same(self.out, stored, asked)

    def begin(self, training: Training) -> int:
        """Take the folder, and bring the training to where the checkpoint was."""
        self._training = training
        with _told(self.out):
            self._take()
            if self._found is None:
                self._start()
            else:
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
        with contextlib.suppress(OSError):
            self.checkpoints.clear()
            outputs.tidy(self.out, UPGRADE)

    def _skipped(self) -> bool:
        """Whether a candidate skipped the latest step."""
        assert self._training is not None
        return any(one.curve.skipped[-1:] == [self.number] for one in self._training.candidates.values())

    def _start(self) -> None:
        """A new job, now that the inputs are known to be good: a result is set aside, what an unfinished job left goes.
        Checkpoints first, because an older one with a higher number would be gone on with."""
        self.checkpoints.begin(keep_damaged=self.resume)
        self._wrote_settings = not self.resume or not (self.out / SETTINGS).exists()
        try:
            set_aside(self.out, UPGRADE)
            remove(self.out, {name: what for name, what in RESULT_NAMES.items() if name != SETTINGS})
            remove(self.out, {PARTIAL: RESULT_NAMES})
            write_whole(self.out / SETTINGS, yaml.safe_dump(self._asked, sort_keys=False))
            write_whole(self.out / LOG, "")  # a new file: the old one may have another name somewhere
            self._log = (self.out / LOG).open("a", encoding="utf-8")
        except OSError:
            self._clear()
            raise

    def _take(self) -> None:
        folder = self.checkpoints.folder
        self._made = not self.out.exists()
        folder.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(locked(folder / LOCK, str(self.out)))

    def _clear(self) -> None:
        """As if there had been no job: only a result that was set aside is put back."""
        if self._log is not None:
            self._log.close()
        self._stack.close()
        with contextlib.suppress(OSError):
            self.checkpoints.clear(keep_damaged=self.resume)
            remove(self.out, {LOG: None} | ({SETTINGS: None} if self._wrote_settings else {}))
            outputs.put_back(self.out, UPGRADE)
            if self._made:
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
                    "restore it, or start again: --overwrite instead of --resume, or in a sweep without that folder",
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


@contextlib.contextmanager
def _told(out: Path) -> Iterator[None]:
    """An error of the system in one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {out} ({error.strerror or error})", "choose another --out") from error


def stored_settings(out: Path) -> dict[str, Any]:
    """What settings.yaml says, or nothing. Raises OutputError if it cannot be read."""
    try:
        found = yaml.safe_load((out / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    except OSError as error:
        raise OutputError(
            f"{out / SETTINGS} cannot be read ({error.strerror})", "mend that; nothing was changed"
        ) from error
    return completed(found) if isinstance(found, dict) else {}


def require_same(where: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise OutputError naming the first setting that differs."""
    for key in dict.fromkeys([*asked, *stored]):
        if stored.get(key) != asked.get(key):
            raise OutputError(
                f"{where} was made with {key} {stored.get(key)!r}, now it is {asked.get(key)!r}",
                "choose another --out, or give the settings that it was made with",
            )


def how_to_resume(out: Path, command: Sequence[str]) -> str:
    """What to tell somebody whose job was interrupted. command: its arguments, which are quoted for a shell."""
    step = Checkpoints(out / CHECKPOINT).newest_step()
    if (out / REPORT).exists():
        return f"interrupted; {out} is finished all the same"
    if step is None:
        return "interrupted before anything was saved; run the same command again"
    of = stored_settings(out).get("steps")
    return f"interrupted at step {step}{f' of {of}' if of else ''}, which is saved; go on with: {shlex.join(command)}"


def is_running(out: Path) -> bool:
    """Whether a process is writing into a job's folder now."""
    return is_locked(out / CHECKPOINT / LOCK)
