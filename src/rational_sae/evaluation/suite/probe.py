"""The probes of sae-probes 0.4.2 (utils_data.py, run_sae_evals.py, utils_training.py), from codes and labels alone.

A split with as many texts of each class on both sides; the k latents of the largest |difference of means|, each in
units of its own mean where it is active; logistic regression, whose C is the best of ten on a validation part by the
area under the ROC curve (AUC), then trained on the whole training part. Draws are NumPy's, as there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

STRENGTHS = np.logspace(5, -5, 10)
"""C, in the order in which the first of the best is taken."""

MAX_ITERATIONS = 1000
TEST_TEXTS, MOST_TRAINING = 100, 1024
"""Texts kept for testing, and the most that are trained on: one less than the rest is tested on."""

SEED = 42
"""The package's."""

Penalty = Literal["l1", "l2"]


@dataclass(frozen=True)
class Score:
    """Of one probe on test texts."""

    auc: float
    accuracy: float


def split(labels: NDArray[np.int64], seed: int = SEED) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of training and of test texts. labels: [n] 0 or 1, as many of each."""
    train = min(len(labels) - TEST_TEXTS, MOST_TRAINING)
    test = len(labels) - train - 1
    draw = np.random.RandomState(seed)
    kinds = [np.flatnonzero(labels == label) for label in (1, 0)]
    sizes = [(-(-train // 2), -(-test // 2)), (train // 2, test // 2)]
    trained = [draw.choice(own, size=size, replace=False) for own, (size, _) in zip(kinds, sizes, strict=True)]
    left = [np.setdiff1d(own, taken) for own, taken in zip(kinds, trained, strict=True)]
    tested = [draw.choice(own, size=size, replace=False) for own, (_, size) in zip(left, sizes, strict=True)]
    return draw.permutation(np.concatenate(trained)), draw.permutation(np.concatenate(tested))


def largest_differences(z: Any, labels: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k columns whose means differ most between the classes, the largest first. z: [n, d_sae] (CSR)."""
    size, active = np.asarray(abs(z).sum(0)).ravel(), z.getnnz(0)
    unit = size / (active + 1e-6) + 1e-6
    difference = np.asarray(z[labels == 1].mean(0) - z[labels == 0].mean(0)).ravel() / unit
    return np.argsort(-np.abs(difference), kind="stable")[:k]


def probe(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    tests: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]],
    penalty: Penalty,
    seed: int = SEED,
) -> dict[str, Score]:
    """Scores of one probe on each of the test sets. train: [n, k], in the order of the split."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import roc_auc_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the package's 1000 iterations, converged or not
        aucs = [_validated(train, labels, C, penalty, seed) for C in STRENGTHS]
        order = np.random.RandomState(seed).permutation(len(train))
        model = _regression(STRENGTHS[int(np.argmax(aucs))], penalty, seed).fit(train[order], labels[order])
    return {
        name: Score(
            float(roc_auc_score(truth, model.predict_proba(x)[:, 1])), float(np.mean(model.predict(x) == truth))
        )
        for name, (x, truth) in tests.items()
    }


def _validated(x: NDArray[np.float32], labels: NDArray[np.int64], C: float, penalty: Penalty, seed: int) -> float:
    """Mean AUC over validation parts."""
    from sklearn.metrics import roc_auc_score

    found = []
    for train, held in _folds(x, labels, seed):
        model = _regression(C, penalty, seed).fit(x[train], labels[train])
        found.append(roc_auc_score(labels[held], model.predict_proba(x[held])[:, 1]))
    return float(np.mean(found))


def _folds(x: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> list[tuple[Any, Any]]:
    """One validation part of a fifth, at most 100 texts; of fewer than 128 texts, six folds."""
    from sklearn.model_selection import StratifiedKFold

    if len(x) < 128:
        folds = StratifiedKFold(n_splits=6, shuffle=True, random_state=seed)
        return list(folds.split(x, labels))
    train = len(x) - min(len(x) // 5, 100)
    return [(np.arange(train), np.arange(train, len(x)))]


def _regression(C: float, penalty: Penalty, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    plain = LogisticRegression(C=C, random_state=seed, max_iter=MAX_ITERATIONS)
    if penalty == "l2":
        return plain
    # scikit-learn 1.8 says by l1_ratio what `penalty` said before, and warns of the other.
    newer = plain.get_params()["penalty"] == "deprecated"
    return plain.set_params(solver="saga", **({"l1_ratio": 1.0} if newer else {"penalty": "l1"}))
