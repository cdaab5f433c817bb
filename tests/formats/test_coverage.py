"""The count of SAEs in SAELens' table that can be upgraded (benchmarks/coverage.py), on a sample and as a whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from coverage import PAGE, README, Found, counts, judge_all, page, published, sae_lens, sample, transcoders, with_line
from torch import nn

from rational_sae.formats import release
from rational_sae.formats.hub import load_from_repository
from rational_sae.sae.model import SAE

ENOUGH, TRANSCODERS = 13_840, 3_830
"""Upgradable as they are, and transcoders among them, of 13 857 in SAELens 6.54.12."""


def told(found: list[Found]) -> list[str]:
    """What is not as it has to be."""
    bad = ("silently wrong", "refused for a false reason", "crash")
    return [f"{one.one.release}/{one.one.id}: {one.outcome}: {one.said}" for one in found if one.outcome in bad]


def test_a_tenth_of_the_table_is_upgradable_or_refused_for_what_it_is() -> None:
    """One of each release, and others drawn."""
    rows = published()
    found = list(judge_all(sample(rows, share=0.1, seed=0)))
    assert told(found) == []
    assert len(found) == round(0.1 * len(rows))
    assert {one.one.release for one in found} == {one.release for one in rows}
    assert {one.what for one in found if one.outcome == "refused"} <= {"temporal SAE", "SAE of embeddings"}
    assert transcoders(found) > 0.2 * len(found)


def test_a_sample_has_every_release_and_its_share() -> None:
    rows = published("gemma-scope-2-(270m|1b)")
    chosen = sample(rows, share=0.2, seed=1)
    assert {one.release for one in chosen} == {one.release for one in rows}
    assert len(chosen) == max(round(0.2 * len(rows)), len({one.release for one in rows}))
    assert len({(one.release, one.id) for one in chosen}) == len(chosen)
    assert chosen != sample(rows, share=0.2, seed=2)


def test_the_page_counts_what_was_found() -> None:
    rows = published("gpt2-small-res-jb$|temporal-sae")
    found = list(judge_all(rows))
    assert told(found) == []
    by_reading = defaultdict(Counter)
    for one in found:
        by_reading[one.what][one.outcome] += 1
    assert by_reading["temporal SAE"] == {"refused": 3}
    assert by_reading["resid_pre"] == {"upgradable": 12}
    written = page(found)
    assert "Of the 16 SAEs" in written
    assert "**13** can be upgraded" in written
    assert "| `temporal` | temporal SAE | 3 | 0 |" in written


def _turned(sae: SAE) -> None:
    sae.W_skip = None if sae.W_skip is None else nn.Parameter(sae.W_skip.T.clone())


def _before_the_norm(sae: SAE) -> None:
    sae.metadata.hook_name = "blocks.15.hook_resid_mid"


def _before_the_norm_behind(sae: SAE) -> None:
    sae.metadata.hook_name_out = "model.layers.15.mlp.output"


def _of_another_model(sae: SAE) -> None:
    sae.metadata.model_name = "google/gemma-3-4b-pt"


@pytest.mark.parametrize("change", [_turned, _before_the_norm, _before_the_norm_behind, _of_another_model])
def test_a_transcoder_that_is_read_wrongly_is_told(
    change: Callable[[SAE], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(repository: str, path: str) -> SAE:
        sae = load_from_repository(repository, path)
        change(sae)
        return sae

    rows = [
        one
        for one in published("gemma-scope-2-270m-pt-transcoders$")
        if one.id.endswith("layer_15_width_262k_l0_big_affine")
    ]
    assert [one.outcome for one in judge_all(rows)] == ["upgradable"]
    monkeypatch.setattr(release, "load_from_repository", wrong)
    assert [one.outcome for one in judge_all(rows)] == ["silently wrong"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_table_is_as_the_documentation_says() -> None:
    """Two minutes."""
    if sae_lens.__version__ not in PAGE.read_text(encoding="utf-8"):
        pytest.skip("the page is of another SAELens: make docs-coverage")
    found = list(judge_all(published()))
    assert told(found) == []
    assert counts(found)["upgradable"] >= ENOUGH
    assert transcoders(found) >= TRANSCODERS
    assert page(found) == PAGE.read_text(encoding="utf-8"), "run: python benchmarks/coverage.py --write"
    readme = README.read_text(encoding="utf-8")
    assert with_line(readme, found) == readme
