"""Tiny random-weight language models of the real architectures, in memory or as a folder in the hub's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TINY_WORDS = [f"w{i}" for i in range(60)]
TINY_SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>"]
TINY_VOCABULARY = [*TINY_SPECIALS, *TINY_WORDS]
TINY_DEPTH, TINY_WIDTH = 3, 32
TINY_FAMILIES = ("gpt2", "gpt_neox", "gemma2", "llama")


def tiny_tokenizer() -> Any:
    """One token a word: `w0` … `w59`; adds nothing by itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = models.WordLevel({word: i for i, word in enumerate(TINY_VOCABULARY)}, unk_token="<unk>")
    inner = Tokenizer(words)
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def tiny_model(family: str) -> Any:
    """A random-weight causal LM of a real architecture: 3 blocks, width 32, the same at every call."""
    import transformers as hf

    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    llama_like = {
        "vocab_size": len(TINY_VOCABULARY),
        "hidden_size": TINY_WIDTH,
        "intermediate_size": 2 * TINY_WIDTH,
        "num_hidden_layers": TINY_DEPTH,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        **ids,
    }
    grouped = {"num_key_value_heads": 2, "head_dim": 8}
    configs: dict[str, Callable[[], Any]] = {
        "gpt2": lambda: hf.GPT2Config(
            vocab_size=len(TINY_VOCABULARY),
            n_embd=TINY_WIDTH,
            n_layer=TINY_DEPTH,
            n_head=4,
            n_positions=64,
            **ids,
        ),
        "gpt_neox": lambda: hf.GPTNeoXConfig(**llama_like),
        "gemma2": lambda: hf.Gemma2Config(**llama_like, **grouped, sliding_window=8),
        "llama": lambda: hf.LlamaConfig(**llama_like, **grouped),
    }
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(configs[family]())
    with torch.no_grad():
        for parameter in model.parameters():  # HF starts norms at 1 and biases at 0: too tame to tell hooks apart
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save_tiny(family: str, folder: Path) -> Path:
    """A folder in the hub's layout: config, safetensors and tokenizer."""
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
