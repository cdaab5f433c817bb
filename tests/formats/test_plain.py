"""The plain file: what docs/format.md says is in it, and the loader on that page, computes what we compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gate_cases import D_IN, D_SAE, GATES, WAVY, batch, make, scale
from safetensors import safe_open

from rational_sae.errors import OutputError
from rational_sae.formats.save import PLAIN, save, save_plain
from rational_sae.sae.looks import Look, Looks
from rational_sae.sae.model import Metadata

PAGE = Path(__file__).parents[2] / "docs" / "format.md"


@pytest.fixture(scope="module")
def loader() -> dict[str, Any]:
    """The names of the page's own code block."""
    block = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 50
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return names


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize(("subtracted", "centred"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("name", list(GATES))
@torch.no_grad()
def test_the_pages_loader_computes_the_same(
    loader: dict[str, Any], tmp_path: Path, name: str, subtracted: bool, centred: bool, normalisation: Any
) -> None:
    sae = make(GATES[name](), apply_b_dec_to_input=subtracted, normalisation=normalisation, centred=centred)
    save_plain(sae, tmp_path / "out")
    config, tensors = loader["load"](tmp_path / "out" / PLAIN)
    x = batch()
    z = loader["encode"](x.numpy(), config, tensors)
    x_hat = loader["decode"](z, x.numpy(), config, tensors)
    wanted, wanted_z, _ = sae.outputs(x)
    assert np.array_equal(z != 0, (wanted_z != 0).numpy())
    assert np.linalg.norm(z - wanted_z.numpy()) <= 1e-5 * wanted_z.norm()
    assert np.linalg.norm(x_hat - wanted.numpy()) <= 1e-5 * wanted.norm()


@pytest.mark.parametrize(("subtracted", "centred"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
@pytest.mark.parametrize("looks", [2, 3])
@torch.no_grad()
def test_the_pages_loader_looks_as_often(
    loader: dict[str, Any], tmp_path: Path, looks: int, subtracted: bool, centred: bool, normalisation: Any
) -> None:
    each = [Look(WAVY, 0.04 / (i + 1), right_slope=0.7, cut=0.1 + 0.1 * i) for i in range(looks - 1)]
    options: dict[str, Any] = {"apply_b_dec_to_input": subtracted, "normalisation": normalisation, "centred": centred}
    sae, one = (
        make(GATES["hard"](), looks=Looks(each, 0.05, 0.4 * scale()), **options),
        make(GATES["hard"](), **options),
    )
    save_plain(sae, tmp_path / "out")
    config, tensors = loader["load"](tmp_path / "out" / PLAIN)
    assert config["version"] == 3
    x = batch()
    z, wanted = loader["encode"](x.numpy(), config, tensors), sae.encode(x)
    assert np.array_equal(z != 0, (wanted != 0).numpy())
    assert np.linalg.norm(z - wanted.numpy()) <= 1e-5 * wanted.norm()
    assert (wanted - one.encode(x)).norm() > 0.05 * wanted.norm()
    x_hat = loader["decode"](z, x.numpy(), config, tensors)
    assert np.linalg.norm(x_hat - sae(x).numpy()) <= 1e-5 * sae(x).norm()


def test_the_file_holds_what_the_page_says(tmp_path: Path) -> None:
    known = Metadata(model_name="gpt2", hook_name="blocks.8.hook_resid_pre", extra={"neuronpedia_id": "gpt2-small/8"})
    save_plain(make(GATES["hard"](), metadata=known), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PLAIN]
    with safe_open(tmp_path / PLAIN, framework="np") as file:
        config = json.loads(file.metadata()["config"])
        shapes = {name: (file.get_tensor(name).shape, file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
    assert shapes == {
        "W_enc": ((D_IN, D_SAE), np.float32),
        "b_enc": ((D_SAE,), np.float32),
        "W_dec": ((D_SAE, D_IN), np.float32),
        "b_dec": ((D_IN,), np.float32),
        "threshold": ((D_SAE,), np.float32),
        "scale": ((D_SAE,), np.float32),
    }
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{key}`" in page for key in config)
    assert (config["metadata"]["model_name"], config["metadata"]["neuronpedia_id"]) == ("gpt2", "gpt2-small/8")


def test_other_files_stay(tmp_path: Path) -> None:
    save_plain(make(GATES["relu"]()), tmp_path / "sae")
    save(make(GATES["relu"]()), tmp_path / "sae", card="# An SAE")
    assert {path.name for path in (tmp_path / "sae").iterdir()} == {"cfg.json", "sae_weights.safetensors", "README.md"}
    save_plain(make(GATES["topk"]()), tmp_path / "sae")
    assert [path.name for path in (tmp_path / "sae").iterdir()] == [PLAIN]
    (tmp_path / "sae" / "README.md").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        save_plain(make(GATES["topk"]()), tmp_path / "sae")
