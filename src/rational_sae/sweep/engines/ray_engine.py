"""Tasks on a Ray cluster, one a SAE. Those of one hook share their activations in Ray's object store.

Ray gives a lost task to another worker, and makes a lost harvest again. Every node must see the sweep's folder,
teachers and text under the same paths. RAY_ADDRESS names a running cluster; without it one is started on this machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import torch

from rational_sae.errors import MissingExtraError, RationalSAEError
from rational_sae.formats import load
from rational_sae.support.progress import Progress
from rational_sae.sweep.engines.here import Here
from rational_sae.sweep.engines.shared import Activations, activations_of, harvest_from
from rational_sae.sweep.task import Outcome, Task, harvest_key, work
from rational_sae.upgrading.harvest import harvest

RETRIES = 3
"""Times that a task or a harvest is given to another worker."""


class RayEngine:
    """Each task takes one GPU where the cluster has any, and one CPU with one thread; `workers` bounds a cluster that
    is started here."""

    def __init__(self, workers: int = 1) -> None:
        """Raises MissingExtraError without Ray."""
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", extra="ray") from error
        self._ray: Any = ray
        if not ray.is_initialized():
            here: dict[str, Any] = (
                {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers, "include_dashboard": False}
            )
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **here)
        there = ray.cluster_resources()
        self._slots = int(there.get("GPU") or there.get("CPU", 1))
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": int(bool(there.get("GPU"))), "max_retries": RETRIES}
        self._harvest, self._work = ray.remote(**options)(_harvest), ray.remote(**options)(_work)
        self._key: tuple[Any, ...] = ()
        self._held: Any = None

    def run(self, tasks: list[Task], progress: Progress) -> Iterator[Outcome]:
        progress.stage(f"{len(tasks)} tasks on Ray", len(tasks))
        waiting, names = list(reversed(tasks)), dict[Any, str]()
        while waiting or names:
            # Not all at once: every harvest would be made, and held, before the first task begins.
            while waiting and len(names) < 2 * self._slots:
                task = waiting.pop()
                names[self._begin(task)] = task.name
            (reference,), _ = self._ray.wait(list(names), num_returns=1)
            name = names.pop(reference)
            progress.advance()
            try:
                yield self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                reason = f"Ray lost it {RETRIES + 1} times ({type(error).__name__})"
                yield Outcome(name, f"{name}: failed: {reason}", reason)

    def _begin(self, task: Task) -> Any:
        key = harvest_key(task.settings)
        if key != self._key:
            self._key, self._held = key, self._harvest.remote(task)
        return self._work.options(name=task.name).remote(task, self._held)


def _harvest(task: Task) -> Any:
    """Activations as NumPy arrays, which Ray's workers map without copying; or why there are none."""
    torch.set_num_threads(1)
    try:
        found = activations_of(harvest(task.settings, load(task.settings.teacher)))
    except RationalSAEError as error:
        return str(error)
    arrays = (found.calibration.numpy(), found.validation.numpy(), None if found.train is None else found.train.numpy())
    return (*arrays, found.mean.numpy(), found.distinct_tokens, found.digests)


def _work(task: Task, found: Any) -> Outcome:
    if isinstance(found, str):
        return Outcome(task.name, f"{task.name}: failed: {found}", found)
    torch.set_num_threads(1)
    try:
        return work(task, Here(lambda settings, teacher: harvest_from(_tensors(found), settings, teacher)).get)
    except KeyboardInterrupt:
        os._exit(1)  # it is saved; Ray would take an interrupted task for a cancelled one, a lost one it gives away


def _tensors(found: Any) -> Activations:
    *arrays, distinct_tokens, digests = found
    # Mapped arrays are read-only: copied once a task.
    calibration, validation, train, mean = (
        None if array is None else torch.from_numpy(array.copy()) for array in arrays
    )
    assert calibration is not None
    assert validation is not None
    assert mean is not None
    return Activations(calibration, validation, train, mean, distinct_tokens, digests)
