"""Vectors that a user has, in place of a language model and text: read from a file, split, handed out as a reader does.

    .npy            [n, d_in]; for a transcoder [n, d_in + d_out], x and y side by side
    .safetensors    x: [n, d_in]; y: [n, d_out] of a transcoder; groups: [n] integers, which source each is from

A group is what vectors of one image, sequence or patient are: it is whole in one split, and intervals are over groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rational_sae.data.text import Split
from rational_sae.errors import SettingsError
from rational_sae.sae.model import SAE

HELD_OUT: dict[Split, int] = {"test": 8, "calibration": 16, "validation": 16}
"""One vector in so many is for the split, or as many as are asked for, if those are fewer. The rest is for training."""

TEST_RUNS = 64
"""Without groups x is cut into runs, so many of them in the test split: neighbours are alike in most orders."""

CHUNK = 8192
"""Vectors handed out at a time."""


class Given(NamedTuple):
    """What a user gave."""

    x: Tensor
    """[n, d_in] of any floating dtype; of a transcoder [n, d_in + d_out], if there is no y."""
    y: Tensor | None = None
    """[n, d_out], of a transcoder: what it predicts."""
    groups: Tensor | None = None
    """[n] integers; None: runs of neighbours."""


@dataclass(frozen=True, eq=False)
class GivenVectors:
    """Vectors by split; what `TrainingBatches` asks of a reader is here too."""

    rows: Tensor
    """[n, width], as they were given."""
    groups: Tensor
    """[n] int64."""
    parts: dict[Split, Tensor]
    """[m] int64: places of each split's rows, in order."""
    device: torch.device
    """Where samples are wanted."""
    digests: dict[tuple[Split, int | None], str] = field(default_factory=dict)
    """sha256 of what was read so far, in order, by split and seed."""

    @classmethod
    def of(cls, given: Given, sae: SAE, test: int, seed: int) -> Self:
        """Split them by group in a seeded order. test: how many for the test split, at most an eighth of them all.

        Raises SettingsError if they cannot be rows of this SAE.
        """
        rows = _rows(given, sae)
        most: dict[Split, int] = {
            split: min(test if split == "test" else test // 2, len(rows) // share) for split, share in HELD_OUT.items()
        }
        groups = _groups(given.groups, len(rows), max(1, most["test"] // TEST_RUNS))
        return cls(rows, groups, _split(groups, most, seed), sae.device)

    @property
    def width(self) -> int:
        """Of one row."""
        return self.rows.shape[1]

    def vectors(self, split: Split, max_tokens: int, *, seed: int | None = None, skip: int = 0) -> Iterator[Tensor]:
        """Rows of a split, at most so many, in a seeded order: [n, width] float32 on the CPU. skip: parts before."""
        places, last = self.parts[split], b""
        if seed is not None:
            places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))]
        for number, part in enumerate(places[:max_tokens].split(CHUNK)):
            x = self.rows[part.to(self.rows.device)].cpu().float()
            last = hashlib.sha256(last + x.numpy().tobytes()).digest()
            self.digests[split, seed] = last.hex()
            if number >= skip:
                yield x

    def sample(self, split: Split, tokens: int) -> Tensor:
        """Rows of a held-out split, at most so many: [n, width] float32 where they are wanted."""
        return torch.cat(list(self.vectors(split, tokens))).to(self.device)

    def owners(self, split: Split) -> Tensor:
        """[n] int64: which group of the split, counted from 0, each of its rows is of."""
        return self.groups[self.parts[split]].unique(return_inverse=True)[1]

    def unrecorded(self) -> Self:
        """The same, which notes elsewhere what is read."""
        return replace(self, digests={})

    def require(self, found: int, needed: int, split: Split) -> None:
        """Raise SettingsError if a split has fewer vectors than a job needs."""
        if found < needed:
            raise SettingsError(
                f"the vectors leave {found} for the {split} split, {needed} are needed",
                "give more vectors, or a lower batch_tokens",
            )

    def warnings(self) -> list[str]:
        """What a reader of the result should know about how they were read."""
        return []


def read_vectors(path: Path) -> Given:
    """Vectors of a file, which are read as they are needed. Raises SettingsError if it holds none."""
    remedy = "give a .npy of [n, d_in], or a .safetensors with x: [n, d_in]"
    try:
        if path.suffix == ".npy":
            return Given(torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False)))
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys() if name in Given._fields}  # noqa: SIM118
            if "x" in found:
                return Given(**found)
    except (OSError, ValueError, TypeError, EOFError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
        raise SettingsError(f"the vectors {path} cannot be read ({reason})", remedy) from error
    raise SettingsError(f"{path} holds no vectors that are read here", remedy)


def _rows(given: Given, sae: SAE) -> Tensor:
    x, y = given.x, given.y
    beside = y is not None and sae.transcodes and x.dim() == y.dim() == 2 and len(x) == len(y)
    rows = torch.cat([x, y.to(x)], 1) if y is not None and beside else x
    if rows.dim() != 2 or rows.shape[1] != sae.row_width or (y is not None and not beside):
        shapes = f"x is {list(x.shape)}" + ("" if y is None else f" and y {list(y.shape)}")
        wanted = f"x: [n, {sae.d_in}]" + (f" and y: [n, {sae.d_out}]" if sae.transcodes else "")
        raise SettingsError(
            f"{shapes}, which this {'transcoder' if sae.transcodes else 'SAE'} cannot read", f"give {wanted}"
        )
    if not rows.is_floating_point():
        raise SettingsError(f"x is of {rows.dtype}", "give vectors of a floating dtype")
    if not all(bool(part.isfinite().all()) for part in rows.split(CHUNK)):
        raise SettingsError("x holds NaN or infinity", "leave such vectors out")
    return rows.detach()


def _groups(given: Tensor | None, count: int, run: int) -> Tensor:
    """[n] int64; runs of so many neighbours, if none were given."""
    if given is None:
        return torch.arange(count) // run
    if given.shape != (count,) or given.is_floating_point() or given.is_complex():
        raise SettingsError(
            f"groups is {list(given.shape)} of {given.dtype}, for {count} vectors", "give one integer a vector"
        )
    return given.detach().cpu().long()


def _split(groups: Tensor, most: dict[Split, int], seed: int) -> dict[Split, Tensor]:
    """Whole groups in a seeded order: to the test split until it has enough, and so on; the rest is for training."""
    _, owner, sizes = groups.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed))
    ends = sizes[order].cumsum(0)
    names: list[Split] = [*most, "train"]
    whose = torch.full((len(sizes),), names.index("train"))
    begin = 0
    for number, split in enumerate(most):
        before = int(ends[begin - 1]) if begin else 0
        end = min(len(order), 1 + int(torch.searchsorted(ends, before + max(1, most[split]))))
        whose[order[begin:end]] = number
        begin = end
    if begin >= len(order):
        raise SettingsError(
            f"{len(groups)} vectors of {len(sizes)} groups cannot be split in four",
            "give vectors of more images, sequences or documents",
        )
    return {split: (whose[owner] == number).nonzero()[:, 0] for number, split in enumerate(names)}
