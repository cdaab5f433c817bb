"""Tiny random-weight language models of the real architectures, in memory or as a folder in the hub's layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from rational_sae.data.language_model import Host
    from rational_sae.upgrading.settings import Settings

TINY_WORDS = [f"w{i}" for i in range(60)]
TINY_SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>"]
TINY_VOCABULARY = [*TINY_SPECIALS, *TINY_WORDS]
TINY_DEPTH, TINY_WIDTH = 3, 32
TINY_FAMILIES = ("gpt2", "gpt_neox", "gemma2", "llama")
PLACE_FAMILIES = (
    *TINY_FAMILIES,
    *("gpt_neo", "gptj", "opt", "phi", "phi3", "gemma", "gemma3", "gpt_oss", "mistral", "ministral", "mixtral"),
    *("olmo", "olmo2", "olmo3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_5", "qwen3_next", "smollm3"),
)
"""Those in the table of places."""


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

    ids: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    llama_like: dict[str, Any] = {
        "vocab_size": len(TINY_VOCABULARY),
        "hidden_size": TINY_WIDTH,
        "intermediate_size": 2 * TINY_WIDTH,
        "num_hidden_layers": TINY_DEPTH,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        **ids,
    }
    grouped: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}
    wide: dict[str, Any] = {
        "num_key_value_heads": 2,
        "head_dim": 12,
    }  # all heads side by side are wider than the stream
    experts: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    recurrent: dict[str, Any] = {f"linear_num_{name}_heads": 2 for name in ("key", "value")} | {
        **{f"linear_{name}_head_dim": 8 for name in ("key", "value")},
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    }
    gpt: dict[str, Any] = {
        "vocab_size": len(TINY_VOCABULARY),
        "n_embd": TINY_WIDTH,
        "n_layer": TINY_DEPTH,
        "n_head": 4,
        **ids,
    }
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
        # Its last norm lies before its blocks.
        "opt": lambda: hf.OPTConfig(
            vocab_size=len(TINY_VOCABULARY),
            hidden_size=TINY_WIDTH,
            word_embed_proj_dim=TINY_WIDTH,
            ffn_dim=2 * TINY_WIDTH,
            num_hidden_layers=TINY_DEPTH,
            num_attention_heads=4,
            max_position_embeddings=64,
            **ids,
        ),
        "gpt_neo": lambda: hf.GPTNeoConfig(
            vocab_size=len(TINY_VOCABULARY),
            hidden_size=TINY_WIDTH,
            num_layers=TINY_DEPTH,
            num_heads=4,
            attention_types=[[["global"], TINY_DEPTH]],
            max_position_embeddings=64,
            **ids,
        ),
        "gptj": lambda: hf.GPTJConfig(**gpt, n_positions=64, rotary_dim=4),
        "phi": lambda: hf.PhiConfig(**llama_like),
        "phi3": lambda: hf.Phi3Config(**llama_like),
        "gemma": lambda: hf.GemmaConfig(**llama_like, **wide),
        "gemma3": lambda: hf.Gemma3TextConfig(**llama_like, **wide, sliding_window=8),
        "gpt_oss": lambda: hf.GptOssConfig(
            **llama_like,
            **wide,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=8,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        ),
        "mistral": lambda: hf.MistralConfig(**llama_like, **wide),
        "ministral": lambda: hf.MinistralConfig(**llama_like, **wide),
        "mixtral": lambda: hf.MixtralConfig(**llama_like, **wide, num_local_experts=4),
        "olmo": lambda: hf.OlmoConfig(**llama_like),
        "olmo2": lambda: hf.Olmo2Config(**llama_like),
        "olmo3": lambda: hf.Olmo3Config(**llama_like),
        "qwen2": lambda: hf.Qwen2Config(**llama_like, num_key_value_heads=2),
        "qwen2_moe": lambda: hf.Qwen2MoeConfig(
            **llama_like, num_key_value_heads=2, **experts, shared_expert_intermediate_size=16
        ),
        "qwen3": lambda: hf.Qwen3Config(**llama_like, **wide),
        "qwen3_moe": lambda: hf.Qwen3MoeConfig(**llama_like, **wide, **experts),
        "qwen3_5": lambda: hf.Qwen3_5TextConfig(**llama_like, **wide, **recurrent),
        "qwen3_next": lambda: hf.Qwen3NextConfig(
            **llama_like, **wide, **experts, **recurrent, shared_expert_intermediate_size=16
        ),
        "smollm3": lambda: hf.SmolLM3Config(**llama_like),
        # It has no last norm, and its blocks return lists.
        "openai-gpt": lambda: hf.OpenAIGPTConfig(
            vocab_size=len(TINY_VOCABULARY),
            n_embd=TINY_WIDTH,
            n_layer=TINY_DEPTH,
            n_head=4,
            n_positions=64,
            **ids,
        ),
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


def save_tiny_text(path: Path, documents: int = 400) -> Path:
    """A .jsonl of distinct documents of 40 words of the tiny vocabulary."""
    rows = torch.randint(len(TINY_WORDS), (documents, 40), generator=torch.Generator().manual_seed(0))
    lines = [json.dumps({"text": " ".join(TINY_WORDS[i] for i in row.tolist())}) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def save_tiny_teacher(
    folder: Path, model: Path, text: Path, hook: str = "model.layers.1", family: str = "topk"
) -> Path:
    """An SAE that explains a tiny model's activations at a hook: its directions are their principal axes, both ways. A
    ReLU or a JumpReLU has about half of them below its bar."""
    from rational_sae.data.activations import Reader
    from rational_sae.data.language_model import load_host
    from rational_sae.data.text import open_text
    from rational_sae.data.tokens import Tokeniser
    from rational_sae.formats.save import save
    from rational_sae.gates.relu import ReLUGate
    from rational_sae.gates.threshold import ThresholdGate
    from rational_sae.gates.topk import TopKGate
    from rational_sae.sae.model import SAE, Metadata

    host = load_host(str(model))
    x = Reader(host, host.hook(hook), open_text(str(text)), Tokeniser(host.tokenizer, 16)).sample("calibration", 1000)
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2]
    W_dec = torch.cat([axes, -axes])
    expects = Metadata(family=family, model_name=str(model), hook_name=hook, context_size=16, prepend_bos=False)
    bar = float(((x - x.mean(0)) @ W_dec.T).abs().median()) * torch.ones(len(W_dec))
    gate = {"topk": TopKGate(8), "relu": ReLUGate(), "jumprelu": ThresholdGate(bar)}[family]
    b_enc = -bar if family == "relu" else torch.zeros_like(bar)
    save(SAE(W_dec.T, b_enc, W_dec, x.mean(0), gate, metadata=expects), folder)
    return folder


def tiny_transcoder(
    host: Host,
    text: Path,
    into: str,
    out: str,
    *,
    skip: bool = True,
    threshold: float = 0.0,
    tokens: int = 1000,
    bos: bool = False,
) -> dict[str, Tensor]:
    """Tensors of a transcoder that explains a tiny model's MLP: principal axes, both ways, then the decoder, and the
    skip connection if there is one, that least squares finds on so many tokens. z = h where h > threshold.

    W_enc: [d_in, d_sae], W_dec: [d_sae, d_out], W_skip: [d_out, d_in].
    """
    from rational_sae.data.activations import Reader
    from rational_sae.data.text import open_text
    from rational_sae.data.tokens import Tokeniser

    reader = Reader(host, host.pair(into, out), open_text(str(text)), Tokeniser(host.tokenizer, 16, bos=bos))
    rows = reader.sample("calibration", tokens)
    x, y = rows[:, : host.d_model], rows[:, host.d_model :]
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2]
    W_enc = torch.cat([axes, -axes]).T
    b_enc = -0.3 * ((x - x.mean(0)) @ W_enc).abs().median() - x.mean(0) @ W_enc
    h = x @ W_enc + b_enc
    parts = [h * (h > threshold), torch.ones(len(x), 1), *([x] if skip else [])]
    found = torch.linalg.lstsq(torch.cat(parts, 1), y, driver="gelsd").solution
    width = W_enc.shape[1]
    tensors = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": found[:width], "b_dec": found[width]}
    return tensors | ({"W_skip": found[width + 1 :].T} if skip else {})


def tiny_job(root: Path, model: Path) -> Settings:
    """A job of 12 steps beside the native control, on a tiny teacher and text that are made in a folder."""
    from rational_sae.upgrading.settings import Settings

    text = save_tiny_text(root / "text.jsonl")
    return Settings(
        teacher=str(save_tiny_teacher(root / "teacher", model, text)),
        text=str(text),
        type=(3, 2),
        steps=12,
        batch_tokens=64,
        train_tokens=600,
        eval_tokens=256,
        controls=("native",),
    )
