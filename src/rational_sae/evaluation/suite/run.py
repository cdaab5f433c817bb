"""All tasks of the suite on any number of SAEs: one pass over the texts, paired differences over tasks."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rational_sae.data.activations import Reader
from rational_sae.data.tokens import require_words
from rational_sae.errors import TextError
from rational_sae.evaluation.comparison import JOIN, put_beside
from rational_sae.evaluation.suite.codes import LastCodes, last_codes
from rational_sae.evaluation.suite.probe import SEED, Score, largest_differences, probe, split
from rational_sae.evaluation.suite.tasks import SUITE, Labelled, Size, SuiteTask, require_texts
from rational_sae.metrics.probes import AUC_ALL, AUC_OF
from rational_sae.report.rows import ACTIVATIONS
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress, Silent

TEST, ELSEWHERE = "test", "elsewhere"
"""What a probe is tested on: texts of its task, and the same labels on texts of another source."""

Scores = dict[str, dict[str, dict[str, Score]]]
"""What is tested on, then row, then key."""


@dataclass
class TaskScores:
    """One task."""

    train: int
    test: int
    copies: int
    """Rows of the package left out as copies of another, or as found under both labels."""
    scores: Scores
    """`elsewhere` too, where the package has such texts."""


@dataclass
class Suite:
    """All tasks."""

    size: Size
    context: int
    tasks: dict[str, TaskScores] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Task → why."""

    def report(self, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """`report["suite"]`. pairs: (row, base)."""
        pairs = list(pairs)
        return {
            "protocol": {
                "method": "sae-probes 0.4.2: codes at the last token; k latents of the largest difference of class "
                "means, each in units of its own mean; logistic regression, L1, C by validation; AUC on test texts",
                "texts": f"at most {self.size.texts} of a class; copies count once",
                "seed": SEED,
                "context": self.context,
                "interval": "95 %, over tasks (t)",
            },
            "tasks": {
                name: {
                    "train_texts": task.train,
                    "test_texts": task.test,
                    "copies": task.copies,
                    **{
                        which: {row: {key: asdict(one) for key, one in keys.items()} for row, keys in rows.items()}
                        for which, rows in task.scores.items()
                    },
                }
                for name, task in self.tasks.items()
            },
            "left_out": self.left_out,
            **{which: self._summary(which, pairs) for which in (TEST, ELSEWHERE) if self._with(which)},
        }

    def add_to(
        self,
        rows: dict[str, dict[str, float]],
        intervals: dict[str, dict[str, list[float]]],
        differences: dict[str, dict[str, dict[str, float | list[float]]]],
    ) -> None:
        """Put the means over tasks beside the other metrics of a report; differences are paired by task."""
        means = self._summary(TEST, [])["mean"]
        put_beside(means, lambda row, base: self._difference(TEST, row, base), rows, intervals, differences)

    def _summary(self, which: str, pairs: Collection[tuple[str, str]]) -> dict[str, Any]:
        tasks = self._with(which)
        scores = tasks[0].scores[which]
        return {
            "tasks": len(tasks),
            "mean": {
                row: {key: _over_tasks(self._aucs(which, row, key), share=True) for key in keys}
                for row, keys in scores.items()
            },
            "differences": {
                f"{row}{JOIN}{base}": self._difference(which, row, base)
                for row, base in pairs
                if row in scores and base in scores
            },
        }

    def _difference(self, which: str, row: str, base: str) -> dict[str, dict[str, Any]]:
        """Key → mean difference over tasks, its interval, and in how many tasks each is better."""
        scores = self._with(which)[0].scores[which]
        found = {}
        for key in scores[row].keys() & scores[base].keys():
            change = self._aucs(which, row, key) - self._aucs(which, base, key)
            counts = {"wins": int((change > 0).sum()), "losses": int((change < 0).sum())}
            found[key] = _over_tasks(change) | counts
        return {key: found[key] for key in scores[row] if key in found}

    def _aucs(self, which: str, row: str, key: str) -> NDArray[np.float64]:
        """[tasks]"""
        return np.array([task.scores[which][row][key].auc for task in self._with(which)])

    def _with(self, which: str) -> list[TaskScores]:
        return [task for task in self.tasks.values() if which in task.scores]


def probe_suite(
    reader: Reader, saes: dict[str, SAE], tasks: list[SuiteTask], size: Size, *, progress: Progress | None = None
) -> Suite:
    """Probe SAEs and what they read on tasks. The time it takes is told once a task has been timed.

    Raises TextError if the only task has too few texts that count, or no text is known to the tokenizer.
    """
    from rational_sae.support.bars import spoken  # rich is slow to import

    progress = progress or Silent()
    progress.stage(f"{SUITE}: texts of {len(tasks)} tasks")
    found = Suite(size, reader.tokeniser.context)
    texts, ends = _counted(reader, tasks, found)
    order = _timed_first(texts, ends)
    done: LastCodes | None = None
    reading = probing = 0.0
    for parts in filter(None, (order[:1], order[1:])):
        known = {} if done is None else done.place
        left = {one: ends[one] for name in parts for one in _texts(texts[name]) if one not in known}
        tokens = sum(map(len, left.values()))
        seconds = reading * tokens + probing * len(parts)
        about = f"{tokens} tokens of {len(parts)} tasks; all of it takes about {spoken(seconds)}"
        progress.stage(f"{SUITE}: {'time one task' if done is None else f'read {about}'}", tokens)
        began = time.perf_counter()
        codes = last_codes(reader, saes, left, progress=progress.advance)
        reading = (time.perf_counter() - began) / max(1, tokens)
        done = codes if done is None else done.with_others(codes)
        progress.stage(f"{SUITE}: probe {len(parts)} of {len(tasks)} tasks", len(parts))
        began = time.perf_counter()
        for name in parts:
            _score(name, texts[name], done, [ACTIVATIONS, *saes], found)
            progress.advance()
        probing = time.perf_counter() - began
    found.tasks = {task.name: found.tasks[task.name] for task in tasks if task.name in found.tasks}
    if not found.tasks:
        raise TextError(*_why_none(found.left_out))
    return found


Texts = dict[str, Labelled]
"""What is tested on → texts of a task, those of training among `test`'s."""


def _counted(reader: Reader, tasks: list[SuiteTask], found: Suite) -> tuple[dict[str, Texts], dict[str, list[int]]]:
    """Task → its texts whose last position may count, and text → its last tokens."""
    texts: dict[str, Texts] = {}
    for task in tasks:
        own = {TEST: task.labelled}
        if task.elsewhere is not None:
            own[ELSEWHERE] = task.elsewhere
        texts[task.name] = own
    distinct = list(dict.fromkeys(one for own in texts.values() for one in _texts(own)))
    require_words(reader.tokeniser, SUITE, distinct)
    ends = {text: ids for text, ids in zip(distinct, reader.tokeniser.ends(distinct), strict=True) if ids}
    return {name: kept for name, own in texts.items() if (kept := _usable(name, own, ends, found))}, ends


def _usable(name: str, own: Texts, known: Mapping[str, Any], found: Suite) -> Texts:
    """A task's texts that are known; nothing, and why, if they are too few."""
    kept = {which: one.only([i for i, text in enumerate(one.texts) if text in known]) for which, one in own.items()}
    try:
        require_texts(name, kept[TEST])
    except TextError as error:
        found.left_out[name] = error.cause
        return {}
    return kept


def _texts(own: Texts) -> list[str]:
    return [text for one in own.values() for text in one.texts]


def _timed_first(texts: Mapping[str, Texts], ends: Mapping[str, list[int]]) -> list[str]:
    """The tasks, first the one with as many tokens as they have on average."""
    tokens = {name: sum(len(ends[text]) for text in _texts(own)) for name, own in texts.items()}
    middle = sum(tokens.values()) / max(1, len(tokens))
    return sorted(tokens, key=lambda name: abs(tokens[name] - middle))


def _score(name: str, own: Texts, codes: LastCodes, rows: list[str], found: Suite) -> None:
    """Probe one task, or say why it is left out."""
    own = _usable(name, own, codes.place, found)
    if not own:
        return
    own[TEST] = own[TEST].first(len(own[TEST].texts))  # as many of each class
    labels = own[TEST].labels
    trained, tested = split(labels)
    scores: Scores = {which: {} for which in own}
    for row in rows:
        z = codes.of(row, own[TEST].texts)
        further = codes.of(row, own[ELSEWHERE].texts) if ELSEWHERE in own else None
        largest = None if row == ACTIVATIONS else largest_differences(z[trained], labels[trained], max(AUC_OF.values()))
        for key, k in {AUC_ALL: None}.items() if largest is None else AUC_OF.items():
            columns = slice(None) if largest is None else largest[:k]
            tests = {TEST: (_dense(z[tested][:, columns]), labels[tested])}
            if further is not None:
                tests[ELSEWHERE] = (_dense(further[:, columns]), own[ELSEWHERE].labels)
            penalty = "l2" if largest is None else "l1"
            for which, one in probe(_dense(z[trained][:, columns]), labels[trained], tests, penalty).items():
                scores[which].setdefault(row, {})[key] = one
    found.tasks[name] = TaskScores(len(trained), len(tested), own[TEST].copies, scores)


def _dense(z: Any) -> NDArray[np.float32]:
    return z if isinstance(z, np.ndarray) else z.toarray()


def _over_tasks(values: NDArray[np.float64], *, share: bool = False) -> dict[str, Any]:
    """Mean, and its 95 % interval if there are tasks enough. values: [tasks]; share: stay in [0, 1]."""
    from scipy.stats import t

    mean, n = float(values.mean()), len(values)
    if n < 2:
        return {"value": mean}
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    low, high = mean - half, mean + half
    return {"value": mean, "interval": [max(0.0, low), min(1.0, high)] if share else [low, high]}


def _why_none(left_out: Mapping[str, str]) -> tuple[str, str]:
    first = next(iter(left_out.values()), "there is no task")
    return first, "raise --probe-texts, or give another task"
