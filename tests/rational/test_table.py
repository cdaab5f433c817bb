"""The shipped coefficient table: sound, complete, and refused where it is not."""

from __future__ import annotations

import json

import pytest

from rational_sae.errors import FitError
from rational_sae.rational import cache, cached_fit, fit, target
from rational_sae.rational.table import ENTRIES, dump, parse, shipped


def test_every_entry_is_there_and_equals_a_fresh_fit() -> None:
    assert list(shipped()) == list(ENTRIES)
    for (wanted, degrees), kept in shipped().items():
        assert kept.status == "optimal"
        assert kept.error == pytest.approx(fit(wanted, degrees).error, rel=1e-6)


def test_an_entry_is_used_without_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr(cache, "fit", fail)
    assert cached_fit("relu", (9, 8)) is shipped()[target("relu"), (9, 8)]


def test_another_version_or_form_is_refused() -> None:
    text = dump(list(shipped().values())[:1])
    assert len(parse(text)) == 1
    with pytest.raises(FitError, match="version 2, not 1"):
        parse(text.replace('"version": 1', '"version": 2', 1))
    data = json.loads(text)
    data["fits"][0]["partial_fractions"]["version"] = 9
    with pytest.raises(FitError, match="version 9"):
        parse(json.dumps(data))


def test_an_entry_whose_error_is_not_what_it_says_is_fitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    key = (target("relu"), (3, 2))
    wrong = json.loads(dump([shipped()[key]]))
    wrong["fits"][0]["partial_fractions"]["e0"] += 1e-3
    monkeypatch.setattr(cache, "shipped", lambda: {key: parse(json.dumps(wrong))[0]})
    assert cached_fit(*key).error == pytest.approx(2.18445e-2, rel=1e-4)
