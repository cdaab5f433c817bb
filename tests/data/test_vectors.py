"""Vectors in place of a model and text: how they are split, read from files, and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rational_sae.data.vectors import CHUNK, HELD_OUT, Given, GivenVectors, read_vectors
from rational_sae.errors import SettingsError
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE

SPLITS = ("test", "calibration", "validation", "train")


def sae(d_in: int = 3, d_out: int | None = None) -> SAE:
    width = d_out or d_in
    options = {"apply_b_dec_to_input": False, "transcodes": True} if d_out else {}
    return SAE(torch.ones(d_in, 5), torch.zeros(5), torch.ones(5, width), torch.zeros(width), ReLUGate(), **options)


def numbered(n: int) -> Tensor:
    """[n, 3]: row i holds i."""
    return torch.arange(n, dtype=torch.float32)[:, None].expand(n, 3)


def read(found: GivenVectors, split: str, **options: int) -> Tensor:
    """[m] which rows a split gives, in order."""
    return torch.cat(list(found.vectors(split, 10**6, **options)))[:, 0].long()  # type: ignore[arg-type]


def test_every_vector_is_in_one_split_and_groups_are_whole() -> None:
    groups = torch.arange(4000) % 97  # no group's vectors are neighbours
    found = GivenVectors.of(Given(numbered(4000), groups=groups), sae(), 10_000, seed=1)
    rows = {split: read(found, split) for split in SPLITS}
    assert torch.equal(torch.cat(list(rows.values())).sort().values, torch.arange(4000))
    owners = {split: set(groups[places].tolist()) for split, places in rows.items()}
    assert sum(map(len, owners.values())) == 97
    largest = 4000 // 97 + 1
    for split, share in HELD_OUT.items():
        assert 4000 // share <= len(rows[split]) < 4000 // share + largest
    owner = found.owners("test")
    assert len(owner.unique()) == int(owner.max()) + 1 == len(owners["test"])
    assert all(len(groups[rows["test"]][owner == one].unique()) == 1 for one in owner.unique())


def test_without_groups_neighbours_stay_together_in_many_runs() -> None:
    found = GivenVectors.of(Given(numbered(80_000)), sae(), 6400, seed=0)
    places, owner = read(found, "test"), found.owners("test")
    assert len(places) == 6400
    assert len(owner.unique()) == 64
    assert all(int(places[owner == one].max() - places[owner == one].min()) == 99 for one in owner.unique())


def test_the_seed_decides_the_split_and_the_order_of_training() -> None:
    one, same, other = (GivenVectors.of(Given(numbered(900)), sae(), 64, seed) for seed in (0, 0, 1))
    assert torch.equal(read(one, "test"), read(same, "test"))
    assert not torch.equal(read(one, "test"), read(other, "test"))
    assert torch.equal(read(one, "train", seed=3), read(same, "train", seed=3))
    assert not torch.equal(read(one, "train", seed=3), read(one, "train", seed=4))
    assert one.digests["train", 3] == same.digests["train", 3] != one.digests["train", 4]
    assert one.unrecorded().digests == {}


def test_parts_before_are_passed_over() -> None:
    found = GivenVectors.of(Given(numbered(3 * CHUNK)), sae(), 64, seed=0)
    whole = list(found.vectors("train", 10**6, seed=0))
    (last,) = found.vectors("train", 10**6, seed=0, skip=len(whole) - 1)
    assert torch.equal(last, whole[-1])
    assert sum(map(len, found.vectors("train", 100, seed=0))) == 100


def test_a_transcoders_y_stands_beside_x() -> None:
    x, y = numbered(500), -numbered(500)[:, :2]
    found = GivenVectors.of(Given(x, y), sae(d_out=2), 64, seed=0)
    assert found.width == 5
    row = found.sample("test", 1)[0]
    assert torch.equal(row[3:], -row[:2])
    beside = GivenVectors.of(Given(torch.cat([x, y], 1)), sae(d_out=2), 64, seed=0)
    assert torch.equal(found.sample("test", 64), beside.sample("test", 64))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Given(torch.ones(500, 4)), r"x is \[500, 4\], which this SAE cannot read; give x: \[n, 3\]"),
        (Given(torch.ones(500)), r"x is \[500\]"),
        (
            Given(torch.ones(500, 2), torch.ones(500, 1)),
            r"x is \[500, 2\] and y \[500, 1\], which this SAE",
        ),
        (Given(torch.ones(500, 3).long()), "int64"),
        (Given(torch.full((500, 3), torch.nan)), "NaN"),
        (Given(torch.ones(500, 3), groups=torch.ones(500)), "one integer a vector"),
        (Given(torch.ones(500, 3), groups=torch.arange(499)), r"groups is \[499\]"),
        (Given(torch.ones(500, 3), groups=torch.arange(500) % 3), "500 vectors of 3 groups cannot be split in four"),
        (Given(torch.ones(0, 3)), "cannot be split"),
    ],
)
def test_what_cannot_be_used_is_refused(given: Given, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        GivenVectors.of(given, sae(), 64, seed=0)
    with pytest.raises(SettingsError, match="lower batch_tokens"):
        GivenVectors.of(Given(numbered(500)), sae(), 64, seed=0).require(400, 1024, "train")


def test_files_hold_what_was_saved(tmp_path: Path) -> None:
    x, y, groups = torch.randn(8, 3), torch.randn(8, 2), torch.arange(8)
    np.save(tmp_path / "x.npy", x.numpy())
    save_file({"x": x.half(), "y": y, "groups": groups, "other": y.clone()}, tmp_path / "x.safetensors")
    assert torch.equal(read_vectors(tmp_path / "x.npy").x, x)
    found = read_vectors(tmp_path / "x.safetensors")
    assert torch.equal(found.x, x.half())
    assert found.y is not None
    assert found.groups is not None
    assert torch.equal(found.y, y)
    assert torch.equal(found.groups, groups)


def test_files_that_hold_no_vectors_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01")
    (tmp_path / "cut.safetensors").write_bytes(b"1234567")
    save_file({"z": torch.ones(2)}, tmp_path / "none.safetensors")
    (tmp_path / "x.pt").write_bytes(b"")
    for name in ("objects.npy", "cut.npy", "cut.safetensors", "none.safetensors", "x.pt", "missing.npy"):
        with pytest.raises(SettingsError, match=r"give a \.npy of \[n, d_in\]"):
            read_vectors(tmp_path / name)
