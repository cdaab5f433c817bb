"""Finding entries: the same ones as torch's own operators, ties, NaN and odd shapes included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rational_sae.kernels.selection import stable_order, where_above, where_largest, where_true


@pytest.fixture
def h() -> Tensor:
    return torch.randn(37, 301, generator=torch.Generator().manual_seed(0))


def test_true_entries_are_those_of_nonzero(h: Tensor) -> None:
    mask = h > 1.0
    assert torch.equal(where_true(mask), mask.flatten().nonzero()[:, 0])
    assert torch.equal(where_true(mask.T), mask.T.flatten().nonzero()[:, 0])


def test_an_entry_equal_to_its_level_and_nan_are_not_above_it(h: Tensor) -> None:
    level = torch.linspace(-1.0, 1.0, 301)
    h[3], h[4] = level, torch.nan
    found = where_above(h.requires_grad_(), level)
    assert torch.equal(found, (h > level).flatten().nonzero()[:, 0])
    assert not torch.isin(torch.tensor([3, 4]), found // 301).any()


@pytest.mark.parametrize(("width", "k"), [(301, 7), (301, 1), (301, 301), (5, 3), (4608, 32)])
def test_the_k_largest_are_those_of_topk(width: int, k: int) -> None:
    h = torch.randn(19, width, generator=torch.Generator().manual_seed(1))
    wanted = h.topk(k, dim=-1).indices + torch.arange(19)[:, None] * width
    assert torch.equal(where_largest(h, k), wanted.flatten().sort().values)


def test_of_equal_entries_exactly_k_are_taken() -> None:
    found = where_largest(torch.zeros(3, 100), 4)
    assert len(found.unique()) == 12
    assert torch.equal((found // 100).bincount(), torch.full((3,), 4))


@pytest.mark.parametrize("size", [60_000, 100_000])
def test_ordering_is_stable_on_both_sides_of_16_bits(size: int) -> None:
    index = torch.randint(size - 50, size, (5000,), generator=torch.Generator().manual_seed(2))
    assert torch.equal(stable_order(index, size), index.argsort(stable=True))
