"""The options of reading: what the language model computes in."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_FAMILIES, save_tiny_text

from rational_sae.data.reading import Reading
from rational_sae.errors import HostError
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE, Metadata


def test_a_model_in_bfloat16_gives_float32_vectors_near_those_of_float32(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"w{i % 50} w{i % 7} w{i % 31} w{i % 13}" for i in range(40)))
    sae = SAE(torch.zeros(32, 8), torch.zeros(8), torch.zeros(8, 32), torch.zeros(32), ReLUGate())
    options = {"text": str(text), "model": str(tiny_folders["llama"]), "hook": "model.layers.1", "context": 20}
    found = {}
    for precision in ("float32", "bfloat16"):
        reader = Reading.model_validate({**options, "precision": precision}).open(sae)
        assert reader.host.model.dtype == getattr(torch, precision)
        found[precision] = torch.cat(list(reader.vectors("train", 60)))
        assert found[precision].dtype == torch.float32
    error = (found["bfloat16"] - found["float32"]).norm() / found["float32"].norm()
    assert 0 < float(error) < 0.05


def test_float16_is_refused() -> None:
    with pytest.raises(ValueError, match="precision"):
        Reading.model_validate({"precision": "float16"})


def any_sae(**metadata: Any) -> SAE:
    weights = torch.zeros(32, 8), torch.zeros(8), torch.zeros(8, 32), torch.zeros(32)
    return SAE(*weights, ReLUGate(), metadata=Metadata(**metadata))


def reading(model: Path, text: Path, **options: Any) -> Reading:
    return Reading(text=str(text), model=str(model), hook="blocks.1.hook_resid_post", **options)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return save_tiny_text(tmp_path / "text.jsonl", 50)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_context_beyond_the_models_positions_is_refused(
    tiny_folders: dict[str, Path], text: Path, family: str
) -> None:
    """The tiny models have 64: GPT-2 would end in an index error, the rotary ones would run on."""
    folder = tiny_folders[family]
    for config in ({}, {"context_size": 65}):
        with pytest.raises(HostError, match=f"context of 65 tokens is beyond the 64 positions of {folder}"):
            reading(folder, text, context=65).open(any_sae(**config))
    assert reading(folder, text, context=64).open(any_sae()).tokeniser.context == 64


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_the_default_context_is_within_the_models_positions(
    tiny_folders: dict[str, Path], text: Path, family: str
) -> None:
    for config, context in (({}, 64), ({"context_size": 65}, 64), ({"context_size": 63}, 63)):
        assert reading(tiny_folders[family], text).open(any_sae(**config)).tokeniser.context == context
    longer = shutil.copytree(tiny_folders[family], text.parent / "longer")
    config = (longer / "config.json").read_text()
    (longer / "config.json").write_text(re.sub(r'("(?:n_positions|max_position_embeddings)": )64', r"\g<1>200", config))
    assert reading(longer, text).resolved(any_sae()).context == 128
    assert reading(text.parent / "nowhere", text).resolved(any_sae()).context == 128  # refused where it is loaded


def test_bos_that_the_tokenizer_lacks_is_refused(tiny_folders: dict[str, Path], text: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_folders["llama"], tmp_path / "bare")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(HostError, match=r"the SAE's config \(prepend_bos\) starts .* has none; give --bos no"):
        reading(folder, text, context=16).open(any_sae(prepend_bos=True))
    with pytest.raises(HostError, match=r"--bos yes starts sequences with BOS, the tokenizer of .* has none"):
        reading(folder, text, context=16, bos="yes").open(any_sae())
    for options, config in (({"bos": "no"}, {"prepend_bos": True}), ({}, {})):
        assert not reading(folder, text, context=16, **options).open(any_sae(**config)).tokeniser.bos


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_model_without_a_tokenizer_is_named_so(
    tiny_folders: dict[str, Path], text: Path, tmp_path: Path, family: str
) -> None:
    """transformers makes some an empty tokenizer, and fails on others."""
    folder = shutil.copytree(tiny_folders[family], tmp_path / "bare")
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(HostError, match=f"the model {folder} has no tokenizer") as error:
        reading(folder, text, context=16).open(any_sae())
    assert "\n" not in str(error.value)


def test_a_damaged_tokenizer_is_not_a_missing_one(tiny_folders: dict[str, Path], text: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folders["llama"], tmp_path / "damaged")
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(HostError, match=f"cannot load the tokenizer of the model {folder}") as error:
        reading(folder, text, context=16).open(any_sae())
    assert "\n" not in str(error.value)


def test_warnings_of_the_text_are_those_of_the_reader(tiny_folders: dict[str, Path], text: Path) -> None:
    with text.open("a") as more:
        more.write('{"text": null}\n')
    reader = reading(tiny_folders["llama"], text, context=16).open(any_sae())
    reader.sample("calibration", 10**6, needed=1)
    assert reader.warnings() == [f"{text}: 1 of 51 texts are empty or null and were passed over"]
