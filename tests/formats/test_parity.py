"""Every kind of SAE that is read computes what its owner's code computes; every other is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from format_cases import CASES, CONFIG_SUFFIXES, REFUSALS, Case, Owned, Refusal, Shape, batch

from rational_sae.errors import SourceError
from rational_sae.formats import load

ODD = [Shape(13, 37, 5), Shape(1, 2, 1), Shape(2, 2, 1), Shape(7, 3, 1), Shape(64, 65, 64), Shape(5, 129, 1)]


def name(case: Case | Refusal) -> str:
    return f"{case.format}-{case.kind}".replace(" ", "_")


def assert_parity(owned: Owned, shape: Shape, tolerance: float) -> None:
    """Codes and reconstructions within a relative tolerance, and for float32 exactly the same zeros.

    In bfloat16 the owner rounds pre-activations, so entries next to their threshold may fall on its other side: codes
    are compared where both are active, at most 2 % of the active entries may differ in that, and reconstructions are
    those of the same codes.
    """
    x = batch(shape)
    ours = load(str(owned.path))
    with torch.no_grad():
        found, z, _ = ours.outputs(x)
        theirs = owned.encode(x)
        wanted = owned.decode(theirs, x)
        assert (theirs != 0).sum() > 0
        if shape.dtype == torch.float32:
            assert torch.equal(z != 0, theirs != 0)
        else:
            both = (z != 0) & (theirs != 0)
            assert ((z != 0) ^ (theirs != 0)).sum() <= 0.02 * (theirs != 0).sum()
            normalised, state = ours.normalise(x.float())
            found = ours.with_skip(ours.decode(theirs.float(), state), normalised)
            z, theirs = z * both, theirs.float() * both
        assert (z - theirs).norm() <= tolerance * theirs.norm()
        assert (found - wanted.float()).norm() <= tolerance * wanted.float().norm()


@pytest.mark.parametrize(
    ("case", "choice"),
    [(case, choice) for case in CASES for choice in case.choices],
    ids=lambda part: name(part) if isinstance(part, Case) else "-".join(map(str, part.values())) or "default",
)
def test_computes_what_the_owner_computes(tmp_path: Path, case: Case, choice: dict[str, object]) -> None:
    shape = replace(Shape(), **choice)  # type: ignore[arg-type]
    assert_parity(case.make(tmp_path / "sae", shape), shape, 1e-5)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_odd_shapes_and_k_of_one(tmp_path: Path, case: Case) -> None:
    for i, shape in enumerate(shape for shape in ODD if shape.d_in >= case.least):
        assert_parity(case.make(tmp_path / str(i) / "sae", shape), shape, 1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case.bfloat16], ids=name)
def test_bfloat16(tmp_path: Path, case: Case) -> None:
    shape = Shape(64, 129, 8, dtype=torch.bfloat16)
    assert_parity(case.make(tmp_path / "sae", shape), shape, 1e-2)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_format_is_told_by_content(tmp_path: Path, case: Case) -> None:
    """Weights under another name, and named as a file as well as by their folder."""
    owned = case.make(tmp_path / "sae", Shape())
    folder = tmp_path / "sae"
    weights = next(path for path in folder.iterdir() if path.suffix not in CONFIG_SUFFIXES)
    moved = weights.rename(folder / "renamed.bin")
    for path in (folder, moved):
        sae = load(str(path))
        assert (sae.metadata.format, sae.d_in, sae.d_sae) == (case.format, 13, 37)
        assert sae.metadata.source == str(path)
    assert owned.path in (folder, weights)


@pytest.mark.parametrize("refusal", REFUSALS, ids=name)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, refusal: Refusal) -> None:
    path = refusal.make(tmp_path / "sae")
    with pytest.raises(SourceError) as caught:
        load(str(path))
    assert refusal.word in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
