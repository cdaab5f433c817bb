"""TransformerLens' names, against its own bridge of the same model: what is at a name here is what it has there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_tiny, tiny_model, tiny_tokenizer
from torch import Tensor

from rational_sae.data.hook_names import IN_BLOCK
from rational_sae.data.language_model import Host
from rational_sae.errors import HostError

IDS = torch.arange(4, 24).view(2, 10)

REFUSED = {
    "gpt2": {"ln1.hook_normalized", "ln2.hook_normalized"},  # of layer norms versions of TransformerLens differ
    "gemma2": set(),
    "gptj": {
        *("ln1.hook_normalized", "ln2.hook_normalized"),
        *("hook_resid_mid", "ln2.hook_in", "hook_mlp_in"),  # attention and MLP stand side by side
    },
}
"""Names that a model refuses."""


def bridged(family: str, folder: Path) -> dict[str, Tensor]:
    """All activations of a tiny model by TransformerLens' names, heads side by side."""
    from transformers import AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.model_bridge import TransformerBridge

        tokenizer = AutoTokenizer.from_pretrained(save_tiny(family, folder))
        options: Any = {"hf_model": tiny_model(family), "tokenizer": tokenizer, "device": "cpu"}
        bridge = TransformerBridge.boot_transformers(str(folder), **options)
        _, cache = bridge.run_with_cache(IDS)
    names = {name: f"blocks.1.{name}" for name in IN_BLOCK}
    return {name: cache[full].reshape(*IDS.shape, -1) for name, full in names.items() if full in cache}


@pytest.mark.slow  # importing the bridge takes longer than all the rest
@pytest.mark.parametrize("family", REFUSED)
@torch.no_grad()
def test_a_name_is_where_transformer_lens_has_it(family: str, tmp_path: Path) -> None:
    theirs = bridged(family, tmp_path)
    host = Host(family, tiny_model(family), tiny_tokenizer())
    compared, refused = set(), set()
    for name in IN_BLOCK:
        try:
            ours = host.residual(IDS, host.hook(f"blocks.1.{name}"))
        except HostError:
            refused.add(name)
            continue
        if name in theirs:
            torch.testing.assert_close(ours, theirs[name], atol=1e-5, rtol=1e-5)
            compared.add(name)
    assert refused == REFUSED[family]
    both = {"hook_resid_pre", "hook_resid_post", "hook_in", "hook_out", "attn.hook_z", "hook_attn_out", "hook_mlp_out"}
    assert both | {"attn.hook_out", "mlp.hook_in", "mlp.hook_out", "ln1.hook_out"} <= compared
