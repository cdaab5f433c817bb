"""Evidence of another gate than the one that a file names, or would be read with, is a refusal and not passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from format_cases import CASES, Shape
from random_sae import gate_of_mode

from rational_sae.errors import SourceError
from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE

SHAPE = Shape(5, 9, 3)


def made(folder: Path, format: str, kind: str) -> Path:  # noqa: A002
    case = next(case for case in CASES if (case.format, case.kind) == (format, kind))
    case.make(folder, SHAPE)
    return folder


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(str(folder))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def with_plain(folder: Path, **changes: Any) -> None:
    """Change the file of weights of a folder; None takes an entry away."""
    (path,) = folder.glob("*.pt")
    found = torch.load(path, weights_only=True) | changes
    torch.save({key: value for key, value in found.items() if value is not None}, path)


def with_config(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | changes))


@pytest.mark.parametrize("activation", [None, "ReLU"])
def test_an_openai_file_with_the_parameters_of_a_topk_is_no_relu(tmp_path: Path, activation: str | None) -> None:
    folder = made(tmp_path / "sae", "OpenAI", "TopK")
    with_plain(folder, activation=activation)
    refused(folder, "activation_state_dict holds k")


def test_an_openai_file_without_any_activation_is_a_relu(tmp_path: Path) -> None:
    folder = made(tmp_path / "sae", "OpenAI", "ReLU")
    with_plain(folder, activation=None, activation_state_dict=None)
    assert load(str(folder)).metadata.family == "relu"


@pytest.mark.parametrize("format", ["OpenAI", "dictionary_learning"])
def test_a_number_beside_the_tensors_that_nobody_asked_for_is_refused(tmp_path: Path, format: str) -> None:  # noqa: A002
    folder = made(tmp_path / "sae", format, "ReLU" if format == "OpenAI" else "AutoEncoder")
    with_plain(folder, k=32)
    refused(folder, "what its architecture does not have (k)")


@pytest.mark.parametrize("kind", ["AutoEncoder", "AutoEncoderNew"])
def test_a_dictionary_whose_trainer_had_a_k_is_no_relu(tmp_path: Path, kind: str) -> None:
    folder = made(tmp_path / "sae", "dictionary_learning", kind)
    load(str(folder))
    with_config(folder, "config.json", trainer={"k": 32})
    refused(folder, "k is 32", "a ReLU has none")


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 32},
        {"activation_fn": "topk"},
        {"sae_lens_version": "5.0.0", "metadata": {}, "activation_fn_kwargs": {"k": 32}},
        {"sae_lens_version": "5.0.0", "metadata": {}, "activation_fn_str": "relu", "activation_fn_kwargs": {"k": 32}},
    ],
    ids=["k", "activation", "version 5", "version 5, named"],
)
def test_a_standard_config_with_another_gates_parameters_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = made(tmp_path / "sae", "SAELens", "standard")
    load(str(folder))
    with_config(folder, "cfg.json", **changes)
    refused(folder, "k is 32" if "activation_fn" not in changes else "activation 'topk'")


def test_a_threshold_beside_a_relu_or_a_topk_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for kind in ("standard", "topk"):
        folder = made(tmp_path / kind, "SAELens", kind)
        path = folder / "sae_weights.safetensors"
        save_file(load_file(path) | {"threshold": torch.ones(9)}, path)
        refused(folder, "does not have (threshold)")


@pytest.mark.parametrize("changes", [{"architecture": "topk"}, {"k": 32}])
def test_a_gemma_scope_config_that_says_another_gate_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = made(tmp_path / "sae", "Gemma Scope", "Gemma 3")
    with_config(folder, "config.json", architecture="jump_relu")
    load(str(folder))
    with_config(folder, "config.json", **changes)
    refused(folder, "'topk'" if "architecture" in changes else "k is 32")


@pytest.mark.parametrize("mode", ["hard", "smooth"])
def test_a_rational_gate_with_a_k_that_it_does_not_use_is_refused(tmp_path: Path, mode: Any) -> None:
    gate = gate_of_mode(mode, PartialFractions(0.1, 1.0, [0.2], [0.1], [0.3], [0.5]), torch.ones(9), torch.ones(9))
    draw = lambda *size: torch.randn(size, generator=torch.Generator().manual_seed(0))  # noqa: E731
    save(SAE(draw(5, 9), draw(9), draw(9, 5), draw(5), gate), tmp_path / "sae")
    load(str(tmp_path / "sae"))
    with_config(tmp_path / "sae", "cfg.json", k=3)
    refused(tmp_path / "sae", "k is 3", f"a {mode} gate has none")
