"""The probes of SAEBench 0.6.0 (evals/sparse_probing/probe_training.py), from codes and labels alone.

One class against an equal number drawn evenly from the others; the k latents of the largest |difference of means|
on the training part; scikit-learn's logistic regression (L2, C = 1, at most 1000 iterations); test accuracy. Draws
are made in SAEBench's order from torch's generator, so that equal seeds give equal draws.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rational_sae.metrics.probes import ALL

MAX_ITERATIONS = 1000
"""SAEBench's."""


def balanced(
    members: dict[str, NDArray[np.int64]], positive: str, generator: torch.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of a one-against-rest problem, shuffled. members: [n] row numbers of each class, the same n for all.

    Returns rows: [2n] and labels: [2n], 1 for the positive class.
    """
    chosen, others = members[positive], [rows for name, rows in members.items() if name != positive]
    share = math.ceil(len(chosen) / len(others))
    negative = np.concatenate([rows[torch.randperm(len(rows), generator=generator).numpy()[:share]] for rows in others])
    negative = negative[torch.randperm(len(negative), generator=generator).numpy()[: len(chosen)]]
    rows, labels = np.concatenate([chosen, negative]), np.repeat([1, 0], [len(chosen), len(negative)])
    order = torch.randperm(len(rows), generator=generator).numpy()
    return rows[order], labels[order]


def largest_differences(x: Any, labels: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k columns of x: [n, d] (CSR) whose means differ most between the classes, in ascending order."""
    difference = np.abs(np.asarray(x[labels == 1].mean(0) - x[labels == 0].mean(0))).ravel()
    return np.sort(np.argsort(-difference, kind="stable")[:k])


def accuracy(
    train: Any,
    train_labels: NDArray[np.int64],
    test: Any,
    test_labels: NDArray[np.int64],
    k: int,
) -> tuple[float, bool]:
    """Test accuracy of a probe on k columns (ALL: all of them), and whether the solver converged.

    train, test: [n, d] float32, in SciPy's CSR form.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if k != ALL:
        columns = largest_differences(train, train_labels, k)
        train, test = train[:, columns].toarray(), test[:, columns].toarray()
    elif train.nnz > 0.5 * train.shape[0] * train.shape[1]:
        train, test = train.toarray(), test.toarray()
    probe = LogisticRegression(C=1.0, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said by the second value
        probe.fit(train, train_labels)
    return float(np.mean(probe.predict(test) == test_labels)), bool(probe.n_iter_.max() < MAX_ITERATIONS)
