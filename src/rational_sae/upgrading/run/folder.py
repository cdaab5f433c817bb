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
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError
from torch import Tensor

from rational_sae.errors import OutputError, RationalSAEError, TrainingError
from rational_sae.formats import load
from rational_sae.report import environment
from rational_sae.support import outputs
from rational_sae.support.interrupt import shielded
from rational_sae.support.outputs import CHECKPOINT, LOG, REPORT, UPGRADE, check_elsewhere, check_out
from rational_sae.upgrading.run.beginning import Beginning
from rational_sae.upgrading.run.checkpoint import Checkpoint, Checkpoints
from rational_sae.upgrading.run.keeper import Keeper, Training
from rational_sae.upgrading.run.log import LogFile, step_lines, whole_log
from rational_sae.upgrading.run.owner import held, is_running, require_free
from rational_sae.upgrading.run.same import require_same, require_same_inputs, stored_settings, take_over_environment
from rational_sae.upgrading.run.schedule import Interval, Schedule
from rational_sae.upgrading.run.state import contents, put_back
from rational_sae.upgrading.run.trackers import Tracker, tracked
from rational_sae.upgrading.settings import Settings, completed


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
        self.out, self.resume = out, resume
        self.checkpoints = Checkpoints(out / CHECKPOINT)
        self.number = 0
        """The latest whole step."""
        self._schedule = Schedule(interval or Interval())
        self._log = LogFile(out / LOG)
        self._make_trackers = trackers
        self._trackers: Sequence[Tracker] = ()
        self._asked: dict[str, Any] = {}
        self._found: Checkpoint | None = None
        self._training: Training | None = None
        self._beginning: Beginning | None = None
        self._hold = contextlib.ExitStack()
        check_out(out, UPGRADE, resume=resume, overwrite=overwrite)
        if not is_running(out):
            with _told(out):
                outputs.recover(out, UPGRADE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        for tracker in self._trackers:
            tracker.close()
        self._log.close()
        self._hold.close()

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

        Raises OutputError naming a setting that differs.
        """
        self._asked = asked
        check_elsewhere(asked["teacher"], self.out)
        require_free(self.out)
        if not self.resume:
            return
        stored = stored_settings(self.out)
        self._found = self.checkpoints.newest()
        for name in self.checkpoints.damaged:
            self.warnings.append(f"checkpoint {name} was damaged and moved aside; the one before was used")
        if self._found is not None:
            stored = completed(self._found.state["asked"])
            self.warnings += take_over_environment(self._found.state["environment"])
        if stored:
            require_same(self.out, stored, asked)

    def begin(self, training: Training) -> int:
        """Take the folder, and bring the training to where the checkpoint was."""
        self._training = training
        with _told(self.out):
            self._beginning = Beginning(self.out, self.checkpoints, resume=self.resume)
            self._hold.enter_context(held(self.out))
            if self._found is None:
                self._start(self._beginning)
            else:
                self._go_on(self._found, training)
        self._trackers = self._make_trackers(self.number, self._asked)
        return self.number

    def stepped(self, number: int) -> None:
        assert self._training is not None
        self._log.add(step_lines(self._training.candidates, number))
        self.number = number
        if self._trackers:
            values = tracked(self._training.candidates, number)
            for tracker in self._trackers:
                tracker.log(number, values)
        last = number == self._asked.get("steps")
        if last or (self._schedule.is_due(number) and not self._skipped()):
            self.save()

    def stopped(self, error: BaseException) -> None:
        """Save where it stopped, but after repeated NaN keep the checkpoint before it: once the cause is mended, those
        steps are taken. An input that was refused at the start leaves nothing behind."""
        if isinstance(error, RationalSAEError) and self.number == 0:
            self._undo()
        elif not (isinstance(error, TrainingError) and self._schedule.saved is not None):
            with shielded():
                self.save()

    def save(self) -> None:
        """Write a checkpoint of the latest step. One that cannot be written is a warning: training goes on."""
        assert self._training is not None
        if self._schedule.saved == self.number:
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
        self._schedule.wrote(self.number, time.monotonic() - began)

    def finish(self) -> None:
        """The result is written: checkpoints are of no more use."""
        with contextlib.suppress(OSError):
            self.checkpoints.clear()
            outputs.tidy(self.out, UPGRADE)

    def _skipped(self) -> bool:
        """Whether a candidate skipped the latest step."""
        assert self._training is not None
        return any(one.curve.skipped[-1:] == [self.number] for one in self._training.candidates.values())

    def _start(self, beginning: Beginning) -> None:
        """A new job, now that the inputs are known to be good. Raises OSError.

        Checkpoints go first, because an older one with a higher number would be gone on with.
        """
        self.checkpoints.begin(keep_damaged=self.resume)
        try:
            beginning.make(self._asked)
            self._log.begin()
        except OSError:
            self._undo()
            raise
        self._schedule.begin(None)

    def _go_on(self, found: Checkpoint, training: Training) -> None:
        """Bring the training to a checkpoint. Raises OutputError if it started from something else."""
        require_same_inputs(self.out, found, training.inputs)
        put_back(training, found.tensors, found.state)
        for stage, seconds in found.state["timing"].items():
            training.timing[stage] = training.timing.get(stage, 0.0) + seconds
        self.number = found.step
        self._log.begin(whole_log(training.candidates, found.step))
        self._schedule.begin(found.step)
        self._found = None  # its tensors are no longer needed

    def _undo(self) -> None:
        """As if there had been no job."""
        self._log.close()
        self._hold.close()
        assert self._beginning is not None
        self._beginning.undo()

    def _contents(self, training: Training) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, state = contents(training)
        own = {"asked": self._asked, "inputs": training.inputs, "environment": environment()}
        return tensors, own | {"timing": dict(training.timing)} | state


@contextlib.contextmanager
def _told(out: Path) -> Iterator[None]:
    """An error of the system in one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {out} ({error.strerror or error})", "choose another --out") from error
