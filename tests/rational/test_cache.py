"""The cache returns what was fitted, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rational_sae.rational import cache, cached_fit, target
from rational_sae.rational.result import LATER

TYPE = (5, 4)
"""Of no entry in the shipped table."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The problems that were really fitted."""
    solved: list[Any] = []
    plain = cache.fit

    def counted(*problem: Any) -> Any:
        solved.append(problem)
        return plain(*problem)

    monkeypatch.setattr(cache, "fit", counted)
    return solved


def test_second_call_reads_the_same_fit_from_disk(folder: Path, fits: list[Any]) -> None:
    first, second = cached_fit("jumprelu", TYPE), cached_fit("jumprelu", TYPE)
    assert len(fits) == 1
    assert second.to_json() == first.to_json()
    assert len(list((folder / "fits").iterdir())) == 1


def test_problems_do_not_share_a_file(fits: list[Any]) -> None:
    plain = target("jumprelu")
    cached_fit(plain, TYPE)
    cached_fit(plain, (4, 3))
    cached_fit(plain.scaled(2.0), TYPE)
    cached_fit(target("jumprelu", 0.1, 0.02 + 1e-12), TYPE)
    assert len(fits) == 4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data | {"error": data["error"] * 1.01},
        lambda data: data | {"error": data["error"] * 0.99},
        lambda data: data | {"partial_fractions": data["partial_fractions"] | {"version": 2}},
        lambda data: data | {"partial_fractions": data["partial_fractions"] | {"e0": 0.5}},
        lambda data: data | {"threshold": 0.11},
        lambda data: data | {"type": [3, 2]},
        lambda data: {key: data[key] for key in data if key != "numerator"},
        lambda data: [],
    ],
)
def test_a_copy_that_is_not_sound_is_fitted_again(fits: list[Any], spoil: Any) -> None:
    good = cached_fit("jumprelu", TYPE)
    path = cache.fit_path(target("jumprelu"), TYPE)
    path.write_text(json.dumps(spoil(good.to_json())))
    again = cached_fit("jumprelu", TYPE)
    assert len(fits) == 2
    assert again.error == good.error
    assert json.loads(path.read_text())["error"] == good.error


def test_a_fit_kept_before_there_were_weights_is_still_read(folder: Path, fits: list[Any]) -> None:
    good = cached_fit("jumprelu", TYPE)
    path = folder / "fits" / f"jumprelu_0.10000000000000001_0.02_1_1_{TYPE[0]}_{TYPE[1]}.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in data.items() if key not in (*LATER, "centre")}))
    again = cached_fit("jumprelu", TYPE)
    assert len(fits) == 1
    assert (again.error, again.target) == (good.error, good.target)


def test_slope_and_weight_have_files_of_their_own(fits: list[Any]) -> None:
    paths = {
        cache.fit_path(target("leaky_relu", slope=slope, kappa=kappa), TYPE)
        for slope in (0.0, 0.3)
        for kappa in (1.0, 0.3)
    }
    assert len(paths) == 4


def test_a_callable_is_fitted_and_not_kept(folder: Path) -> None:
    assert cached_fit(target(lambda t: t * t), (1, 0)).status == "optimal"
    assert not (folder / "fits").exists()


def test_a_torn_file_is_fitted_again(fits: list[Any]) -> None:
    cached_fit("step", TYPE)
    path = cache.fit_path(target("step"), TYPE)
    path.write_text(path.read_text()[:100])
    cached_fit("step", TYPE)
    assert len(fits) == 2


def test_a_cache_that_cannot_be_written_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: list[Any]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("RSAE_CACHE", str(blocked))
    assert cached_fit("step", TYPE).status == "optimal"
    assert len(fits) == 1
