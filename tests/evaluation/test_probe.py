"""One probe against known answers, and its draws against SAEBench's own code run on the same seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from rational_sae.evaluation.probe import ALL, accuracy, balanced, largest_differences


def problem(n: int, separation: float, seed: int = 0) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Column 7 of 40 tells the classes apart by so many standard deviations; the rest is noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    x = rng.normal(size=(n, 40)).astype(np.float32)
    x[:, 7] += separation * labels
    return sparse.csr_matrix(x), labels


def test_the_columns_chosen_are_those_whose_means_differ_most() -> None:
    x, labels = problem(400, 3.0)
    assert largest_differences(x, labels, 1).tolist() == [7]
    three = largest_differences(x, labels, 3)
    dense = x.toarray()
    difference = np.abs(dense[labels == 1].mean(0) - dense[labels == 0].mean(0))
    assert set(three) == set(np.argsort(difference)[-3:])


@pytest.mark.parametrize("k", [1, 5, ALL])
def test_accuracy_is_near_the_best_possible_and_never_above_it_by_luck_alone(k: int) -> None:
    (train, train_labels), (test, test_labels) = problem(2000, 2.0), problem(4000, 2.0, seed=1)
    value, converged = accuracy(train, train_labels, test, test_labels, k)
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # two unit Gaussians 2 apart, cut in the middle: .841
    assert abs(value - best) < 0.02
    assert converged


def test_noise_gives_chance() -> None:
    (train, train_labels), (test, test_labels) = problem(1000, 0.0), problem(4000, 0.0, seed=1)
    assert abs(accuracy(train, train_labels, test, test_labels, 5)[0] - 0.5) < 0.05


def test_negatives_come_evenly_from_the_other_classes_and_nothing_is_lost() -> None:
    members = {name: np.arange(i * 100, i * 100 + 90) for i, name in enumerate("abc")}
    rows, labels = balanced(members, "b", torch.Generator().manual_seed(0))
    assert labels.sum() == 90
    assert len(labels) == 180
    assert set(rows[labels == 1]) == set(members["b"])
    negative = rows[labels == 0]
    assert len(set(negative)) == 90
    assert [sum(row // 100 == i for row in negative) for i in (0, 2)] == [45, 45]


def test_a_seed_gives_the_same_draw_and_another_seed_another() -> None:
    members = {name: np.arange(i * 100, i * 100 + 90) for i, name in enumerate("abc")}
    one, again, other = (balanced(members, "a", torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()
