"""Tasks in several processes of this machine. Those of one hook share their activations in memory."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
import torch.multiprocessing  # registers how tensors travel: through shared memory

from rational_sae.errors import RationalSAEError
from rational_sae.formats import load
from rational_sae.support.interrupt import end_like_ctrl_c
from rational_sae.support.progress import Progress
from rational_sae.sweep.engines.here import Here
from rational_sae.sweep.engines.shared import Activations, activations_of, harvest_from
from rational_sae.sweep.task import Outcome, Task, harvest_key, work
from rational_sae.upgrading.harvest import harvest

MOST_LOSSES = 3
"""Workers in a row that may be lost without one task finished in between."""


class Pool:
    """A pool of worker processes, a new one for each harvest."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._key: tuple[Any, ...] = ()
        self._held: Activations | None = None

    def run(self, tasks: list[Task], progress: Progress) -> Iterator[Outcome]:
        for key, group in itertools.groupby(tasks, key=lambda task: harvest_key(task.settings)):
            yield from self._group(key, list(group), progress)

    def _group(self, key: tuple[Any, ...], tasks: list[Task], progress: Progress) -> Iterator[Outcome]:
        try:
            activations = self._activations(key, tasks[0], progress)
        except RationalSAEError as error:
            yield from (Outcome(task.name, f"{task.name}: failed: {error}", str(error)) for task in tasks)
            return
        progress.stage(f"{len(tasks)} tasks on {self.workers} workers", len(tasks))
        waiting, losses = {task.name: task for task in tasks}, 0
        while waiting and losses < MOST_LOSSES:
            losses += 1
            for outcome in self._round(list(waiting.values()), activations):
                losses = 0
                del waiting[outcome.name]
                progress.advance()
                yield outcome
        reason = f"its worker process was lost {MOST_LOSSES} times; use fewer --workers if memory ran out"
        yield from (Outcome(name, f"{name}: failed: {reason}", reason) for name in waiting)

    def _activations(self, key: tuple[Any, ...], task: Task, progress: Progress) -> Activations:
        if self._held is None or key != self._key:
            progress.stage(f"harvest {task.settings.hook}")
            self._held = None
            self._key, self._held = key, activations_of(harvest(task.settings, load(task.settings.teacher)))
        return self._held

    def _round(self, tasks: list[Task], activations: Activations) -> Iterator[Outcome]:
        """Outcomes until all are done, or a worker is lost."""
        others = set(multiprocessing.active_children())
        threads = max(1, torch.get_num_threads() // self.workers)
        workers = ProcessPoolExecutor(
            min(self.workers, len(tasks)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(threads, activations),
        )
        with workers:
            try:
                for future in as_completed([workers.submit(_work, task) for task in tasks]):
                    yield future.result()
            except BrokenProcessPool:
                return
            except BaseException:
                workers.shutdown(wait=False, cancel_futures=True)
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()  # each saves where it is
                raise


_here: Here | None = None
"""In a worker."""


def _begin(threads: int, activations: Activations) -> None:
    global _here
    end_like_ctrl_c()
    torch.set_num_threads(threads)
    _here = Here(lambda settings, teacher: harvest_from(activations, settings, teacher))


def _work(task: Task) -> Outcome:
    assert _here is not None
    return work(task, _here.get)
