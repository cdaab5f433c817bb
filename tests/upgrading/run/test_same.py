"""What a resumed job must have in common with the one that was begun."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rational_sae.errors import OutputError
from rational_sae.report import environment
from rational_sae.upgrading.run.checkpoint import Checkpoint
from rational_sae.upgrading.run.same import require_same, require_same_inputs, stored_settings, take_over_environment


def test_settings_that_differ_or_are_new_are_named(tmp_path: Path) -> None:
    require_same(tmp_path, {"lr": 1.0}, {"lr": 1.0})
    for stored, asked in (({"lr": 1.0}, {"lr": 2.0}), ({"lr": 1.0}, {}), ({}, {"lr": 1.0})):
        with pytest.raises(OutputError, match=r"was made with lr .*, now it is .*; choose another --out"):
            require_same(tmp_path, stored, asked)


def test_what_is_no_settings_file_says_nothing(tmp_path: Path) -> None:
    assert stored_settings(tmp_path) == {}
    (tmp_path / "settings.yaml").write_text("- a list")
    assert stored_settings(tmp_path) == {}
    (tmp_path / "settings.yaml").write_text("steps: 3")
    assert stored_settings(tmp_path)["steps"] == 3


def test_an_input_that_changed_is_named(tmp_path: Path) -> None:
    found = Checkpoint(4, {}, {"inputs": {"the text": "abc"}})
    require_same_inputs(tmp_path, found, {"the text": "abc"})
    with pytest.raises(OutputError, match="cannot be resumed: the text changed since step 4"):
        require_same_inputs(tmp_path, found, {"the text": "abd"})


def test_threads_are_taken_over_and_what_else_differs_is_a_warning() -> None:
    then, before = environment(), torch.get_num_threads()
    try:
        assert take_over_environment({**then, "threads": str(before + 1)}) == []
        assert torch.get_num_threads() == before + 1
        (warning,) = take_over_environment({**then, "threads": str(before), "torch": "1.0"})
        assert warning.startswith("resumed in another environment, so not bit for bit: torch 1.0 → ")
    finally:
        torch.set_num_threads(before)
