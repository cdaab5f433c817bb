"""The package's statistics by hand: its split, its choice of latents, its probes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from rational_sae.evaluation.suite.probe import largest_differences, probe, split


@pytest.mark.parametrize(("texts", "sizes"), [(300, (200, 99)), (5000, (1024, 3975)), (150, (50, 99))])
def test_a_split_has_the_packages_sizes_and_as_many_of_each_class(texts: int, sizes: tuple[int, int]) -> None:
    labels = np.arange(texts) % 2
    train, test = split(labels)
    assert (len(train), len(test)) == sizes
    assert not set(train) & set(test)
    assert labels[train].mean() == 0.5
    assert abs(labels[test].sum() - sizes[1] / 2) <= 0.5
    np.testing.assert_array_equal(split(labels)[0], train)


def test_latents_are_ranked_by_difference_in_units_of_their_own_active_mean() -> None:
    labels = np.array([1, 1, 0, 0])
    z = sparse.csr_matrix(np.array([[100.0, 1, 0, 0], [100, 1, 0, 3], [90, 0, 0, 0], [90, 0, 0, 3]]))
    assert largest_differences(z, labels, 2).tolist() == [1, 0], "1 against 0, not 100 against 90"


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("size", [60, 200])
def test_a_probe_ranks_what_is_apart_and_cannot_rank_noise(penalty: str, size: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(size) % 2
    apart = (labels + rng.normal(0, 0.1, size))[:, None].astype(np.float32)
    tests = {"same": (apart, labels), "turned": (1 - apart, labels)}
    found = probe(apart, labels, tests, penalty)  # type: ignore[arg-type]
    assert found["same"].auc == 1.0
    assert found["same"].accuracy >= 0.95
    assert found["turned"].auc == 0.0
    silent = np.zeros((size, 2), dtype=np.float32)
    assert probe(silent, labels, {"same": (silent, labels)}, penalty)["same"].auc == 0.5  # type: ignore[arg-type]
