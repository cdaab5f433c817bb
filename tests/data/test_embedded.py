"""Embedded inputs: fetched with pip, checked before they are kept, refused in one line."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from rational_sae.data import embedded
from rational_sae.data.embedded import MODELS, TEXTS, Embedded, Part, embedded_path
from rational_sae.errors import RationalSAEError
from rational_sae.support.paths import cache_dir

SIX = "six==1.16.0"
SIX_SHA256 = "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "cache"))


def inputs(*parts: Part) -> dict[str, Embedded]:
    return {"tiny": Embedded("six.bin", parts, "a tiny real package")}


def left_behind() -> list[Path]:
    return [path for path in cache_dir().rglob("*") if path.is_file()]


def test_the_member_is_read_out_of_the_wheel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(SIX, SIX_SHA256, "six.py")
    path = embedded_path("tiny", inputs(part, part))
    content = path.read_bytes()
    assert content.startswith(b"# Copyright (c) 2010-2020 Benjamin Peterson")
    assert content[: len(content) // 2] == content[len(content) // 2 :]  # parts are joined in order
    assert left_behind() == [path]

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("a cached input must not be fetched again")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert embedded_path("tiny", inputs(part)) == path


def test_another_checksum_is_refused_and_nothing_is_kept() -> None:
    with pytest.raises(
        RationalSAEError, match=r"six==1\.16\.0 has sha256 8abb2f1d8689…, expected 000000000000…"
    ) as error:
        embedded_path("tiny", inputs(Part(SIX, "0" * 64, "six.py")))
    assert "\n" not in str(error.value)
    assert left_behind() == []


def test_a_package_that_pip_cannot_find_is_refused_in_one_line() -> None:
    with pytest.raises(RationalSAEError, match="could not download") as error:
        embedded_path("tiny", inputs(Part("six==0.0.0.1", SIX_SHA256, "six.py")))
    assert "\n" not in str(error.value)
    assert "check that pip reaches a package index" in error.value.remedy
    assert left_behind() == []


def test_a_missing_pip_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n", encoding="utf-8")
    silent.chmod(0o755)
    monkeypatch.setattr(embedded.sys, "executable", str(silent))
    with pytest.raises(RationalSAEError, match="could not download") as error:
        embedded_path("tiny", inputs(Part(SIX, SIX_SHA256, "six.py")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("item", [*MODELS.values(), *TEXTS.values()], ids=lambda item: item.filename)
def test_every_input_is_pinned(item: Embedded) -> None:
    for part in item.parts:
        assert "==" in part.package
        assert len(part.sha256) == 64
    assert item.notes


def test_the_cache_folder_can_be_set(tmp_path: Path) -> None:
    assert cache_dir() == tmp_path / "cache"
