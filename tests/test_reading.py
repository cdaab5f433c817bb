"""The options of reading: what the language model computes in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rational_sae.gate import ReLUGate
from rational_sae.reading import Reading
from rational_sae.sae import SAE


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
