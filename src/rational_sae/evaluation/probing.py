"""Sparse probing by SAEBench's protocol: how well a few latents, or all of them, tell the classes of a task apart.

Per class at most TRAIN / 2 training and TEST / 2 test texts, as many for each class; every class against the rest (of
two classes, one). The whole is repeated with other draws of the split and of the negatives: a figure is the mean over
these seeds, its interval says how far it would move with another draw of the texts that are there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rational_sae.data.activations import Reader
from rational_sae.data.tokens import require_words
from rational_sae.errors import SettingsError, TextError
from rational_sae.evaluation.comparison import put_beside
from rational_sae.evaluation.pooling import Pooled, pooled
from rational_sae.evaluation.probe import accuracy, balanced
from rational_sae.evaluation.tasks import Task
from rational_sae.metrics.probes import LATENTS_OF
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress, Silent

FEWEST_PER_CLASS = 100
"""Texts of a class below which a probe is refused: with fewer, under 20 of a class are left to test on (heuristic)."""

FEWEST_PROBE_TEXTS, MOST_PROBE_TEXTS = 40, 10**7
"""Training texts of one probe: fewer leave 5 of a class to test on; there are no tasks with more."""


@dataclass(frozen=True)
class Protocol:
    """Sizes of probing; the defaults are SAEBench's (seed 42 its first)."""

    train: int = 4000
    """Training texts of one probe, half of them positive; the test part is a quarter of it."""
    seeds: tuple[int, ...] = (42, 43, 44, 45, 46)
    """One draw of split and negatives each."""

    def __post_init__(self) -> None:
        if not FEWEST_PROBE_TEXTS <= self.train <= MOST_PROBE_TEXTS:
            raise SettingsError(
                f"{self.train} training texts of a probe were asked for",
                f"ask for {FEWEST_PROBE_TEXTS} to {MOST_PROBE_TEXTS} (--probe-train)",
            )

    @property
    def per_class(self) -> tuple[int, int]:
        """Most training and test texts of a class."""
        return self.train // 2, self.train // 8


@dataclass
class TaskScores:
    """One task's accuracies."""

    classes: list[str]
    train: int
    """Texts of one probe's training part, half of them positive."""
    test: int
    scores: dict[str, dict[str, NDArray[np.float64]]]
    """Row, then key → [seeds] mean accuracy over classes."""
    dropped: int
    """Copies, texts under two labels and texts without a counted position."""
    not_converged: int
    """Probes that were still moving after the protocol's iterations."""


@dataclass
class Probing:
    """All tasks."""

    protocol: Protocol
    context: int
    tasks: dict[str, TaskScores] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """`report["probing"]`."""
        first = "SAEBench 0.6.0: mean-pooled codes, one class against the rest, balanced; logistic regression, C = 1"
        return {
            "protocol": {
                "method": first,
                **asdict(self.protocol),
                "test": self.protocol.train // 4,
                "context": self.context,
                "interval": "95 %, over draws of split and negatives (corrected resampled t)",
            },
            "tasks": {
                name: {
                    "classes": task.classes,
                    "train": task.train,
                    "test": task.test,
                    "dropped": task.dropped,
                    "not_converged": task.not_converged,
                    "rows": {row: {key: _figure(v) for key, v in keys.items()} for row, keys in task.scores.items()},
                }
                for name, task in self.tasks.items()
            },
            "mean": {row: {key: _figure(v) for key, v in keys.items()} for row, keys in self.means().items()},
        }

    def means(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Row, then key → [seeds] mean accuracy over tasks."""
        scores = [task.scores for task in self.tasks.values()]
        return {row: {key: np.mean([s[row][key] for s in scores], axis=0) for key in LATENTS_OF} for row in scores[0]}

    def add_to(
        self,
        rows: dict[str, dict[str, float]],
        intervals: dict[str, dict[str, list[float]]],
        differences: dict[str, dict[str, dict[str, float | list[float]]]],
    ) -> None:
        """Put the means over tasks beside the other metrics of a report; differences are paired by seed."""
        means = self.means()

        def change(row: str, base: str) -> dict[str, dict[str, Any]]:
            return {key: _figure(means[row][key] - means[base][key], share=False) for key in LATENTS_OF}

        figures = {row: {key: _figure(values) for key, values in keys.items()} for row, keys in means.items()}
        put_beside(figures, change, rows, intervals, differences)


def probe(
    reader: Reader,
    saes: dict[str, SAE],
    tasks: Iterable[Task],
    protocol: Protocol | None = None,
    *,
    progress: Progress | None = None,
) -> Probing:
    """Probe SAEs and the raw activations on tasks.

    Raises TextError if a class has too few texts, or none that the tokenizer knows.
    """
    protocol, progress = protocol or Protocol(), progress or Silent()
    tasks = list(tasks)
    for task in tasks:
        require_texts(task)
    found = Probing(protocol, reader.tokeniser.context)
    for task in tasks:
        texts, members = _sample(task, protocol)
        progress.stage(f"read {task.name}", len(texts))
        codes = pooled(reader, saes, texts, progress=progress.advance)
        require_words(reader.tokeniser, f"the task {task.name}", texts)
        members = {name: places[codes.counted[places]] for name, places in members.items()}
        require_texts(task, {name: len(places) for name, places in members.items()})
        progress.stage(f"probe {task.name}", len(protocol.seeds) * len(codes.rows))
        found.tasks[task.name] = _scores(task, codes, members, protocol, progress)
    return found


def require_texts(task: Task, usable: dict[str, int] | None = None) -> None:
    """Raise TextError if a class has too few texts. usable: how many of each count, if not all do."""
    counts = usable or {name: len(texts) for name, texts in task.texts.items()}
    name, fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < FEWEST_PER_CLASS:
        raise TextError(
            f"the task {task.name} has {fewest} usable texts labelled {name!r}, {FEWEST_PER_CLASS} are needed",
            "add texts, or leave that label out",
        )


def _sample(task: Task, protocol: Protocol) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """At most as many texts of each class as one draw uses, and their places in the list."""
    most, generator = sum(protocol.per_class), torch.Generator().manual_seed(protocol.seeds[0])
    texts: list[str] = []
    members = {}
    for name, own in task.texts.items():
        chosen = torch.randperm(len(own), generator=generator)[:most].tolist()
        members[name] = np.arange(len(texts), len(texts) + len(chosen))
        texts += [own[place] for place in chosen]
    return texts, members


def _scores(
    task: Task, codes: Pooled, members: dict[str, NDArray[np.int64]], protocol: Protocol, progress: Progress
) -> TaskScores:
    fewest = min(map(len, members.values()))
    test = min(fewest // 5, protocol.per_class[1])
    train = min(fewest - test, protocol.per_class[0])
    positives = task.classes if len(task.classes) > 2 else task.classes[:1]
    scores = {row: {key: np.zeros(len(protocol.seeds)) for key in LATENTS_OF} for row in codes.rows}
    not_converged = 0
    for number, seed in enumerate(protocol.seeds):
        generator = torch.Generator().manual_seed(seed)
        order = {
            name: places[torch.randperm(len(places), generator=generator).numpy()] for name, places in members.items()
        }
        # A generator of its own, so that the draws of negatives are SAEBench's for this seed.
        generator.manual_seed(seed)
        draws = [
            (
                *balanced({name: places[:train] for name, places in order.items()}, positive, generator),
                *balanced({name: places[train : train + test] for name, places in order.items()}, positive, generator),
            )
            for positive in positives
        ]
        for row, z in codes.rows.items():
            for key, k in LATENTS_OF.items():
                results = [accuracy(z[a], a_labels, z[b], b_labels, k) for a, a_labels, b, b_labels in draws]
                scores[row][key][number] = np.mean([value for value, _ in results])
                not_converged += sum(not converged for _, converged in results)
            progress.advance()
    dropped = task.dropped + int((~codes.counted).sum())
    return TaskScores(task.classes, 2 * train, 2 * test, scores, dropped, not_converged)


def _figure(values: NDArray[np.float64], *, share: bool = True) -> dict[str, float | list[float]]:
    return {"value": float(values.mean()), "interval": interval(values, share=share)}


def interval(values: NDArray[np.float64], *, share: bool = False) -> list[float]:
    """95 % interval of a mean over repeated splits of the same texts. values: [seeds]; share: stay in [0, 1].

    The draws overlap, so their variance is enlarged by test / train = 1 / 4 (Nadeau and Bengio, Inference for the
    generalization error, Machine Learning 52, 2003).
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return [float(values.mean())] * 2
    half = float(t.ppf(0.975, n - 1) * np.sqrt(values.var(ddof=1) * (1 / n + 1 / 4)))
    low, high = float(values.mean()) - half, float(values.mean()) + half
    return [max(0.0, low), min(1.0, high)] if share else [low, high]
