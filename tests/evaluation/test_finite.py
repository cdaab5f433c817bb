"""A model that gives NaN has no figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import load_host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import HostError
from rational_sae.evaluation import measure
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE


def test_nan_in_the_measured_split_is_an_error(tiny_folders: dict[str, Path], tiny_text: Text) -> None:
    host = load_host(str(tiny_folders["llama"]))
    reader = Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, 20))
    d_in = host.d_model
    sae = SAE(torch.eye(d_in), torch.zeros(d_in), torch.eye(d_in), torch.zeros(d_in), ReLUGate())
    measure(reader, {"teacher": sae}, 100, torch.zeros(d_in))
    host.blocks[0].register_forward_hook(lambda _m, _i, output: output.index_fill(1, torch.tensor(3), torch.nan))
    with pytest.raises(HostError, match="NaN or infinity at model"):
        measure(reader, {"teacher": sae}, 100, torch.zeros(d_in))
