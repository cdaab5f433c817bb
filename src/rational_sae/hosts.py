"""Language models that an SAE reads from: loading, hook names, truncated and resumed forwards.

A hook is a place in the residual stream, named either by a module path (`model.layers.11`, the output of that
block) or in TransformerLens style (`blocks.11.hook_resid_post`). `resid_pre` of block n is the output of
block n − 1.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rational_sae.embedded import MODELS, embedded_path
from rational_sae.errors import HostError
from rational_sae.paths import cache_dir

LOAD_ERRORS = (OSError, ValueError, KeyError, IndexError, struct.error, SafetensorError)
"""What transformers, gguf and safetensors raise for files that are missing, cut or not what they claim."""

ELSEWHERE = re.compile(r"hook_z|hook_mlp|hook_attn|\battn\b|\bmlp\b|self_attn|feedforward|resid_mid|hook_embed")
"""Places that published SAEs read and that are not between two blocks."""

TL_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


@dataclass(frozen=True)
class Hook:
    """A place in the residual stream, between two blocks."""

    name: str
    """As the user or the SAE's config wrote it."""
    boundary: int
    """Blocks run when the stream passes here: 0 is the embedding, n_blocks the last block's output."""


@dataclass
class Host:
    """A causal language model with its tokenizer. All forwards run without gradients or a KV cache."""

    name: str
    model: Any
    tokenizer: Any

    @property
    def d_model(self) -> int:
        return self.model.get_input_embeddings().embedding_dim

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def blocks(self) -> nn.ModuleList:
        return self._blocks()[1]

    def hook(self, name: str) -> Hook:
        """Resolve a hook name of either style. Raises HostError naming the nearest valid ones."""
        path, blocks = self._blocks()
        tl_name = TL_HOOK.fullmatch(name)
        if tl_name and int(tl_name[1]) < len(blocks):
            return Hook(name, int(tl_name[1]) + (tl_name[2] == "post"))
        prefix, _, index = name.rpartition(".")
        # sparsify names modules from the base model on: `layers.11` for `model.layers.11`.
        if prefix and f".{path}".endswith(f".{prefix}") and index.isdigit() and int(index) < len(blocks):
            return Hook(name, int(index) + 1)
        valid = [f"{path}.{i}" for i in range(len(blocks))]
        valid += [f"blocks.{i}.hook_resid_{side}" for i in range(len(blocks)) for side in ("pre", "post")]
        near = difflib.get_close_matches(name, valid, n=3, cutoff=0.0)
        other = " (attention and MLP outputs are not supported)" if ELSEWHERE.search(name) else ""
        raise HostError(f"{self.name} has no residual hook {name!r}{other}", f"nearest: {', '.join(near)}")

    @torch.no_grad()
    def residual(self, input_ids: Tensor, hook: Hook) -> Tensor:
        """Residual stream at the hook; no block after it is run.

        input_ids: [batch, context] int64. Returns [batch, context, d_model] in the model's dtype.
        """
        caught: list[Tensor] = []

        def catch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _StopForwardError

        handle = self.entry(hook).register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with contextlib.suppress(_StopForwardError):
                self._forward(input_ids)
        finally:
            handle.remove()
        return caught[0]

    @torch.no_grad()
    def logits_from(self, input_ids: Tensor, hook: Hook, x: Tensor) -> Tensor:
        """Logits with the residual stream at the hook replaced by x; blocks before the hook are skipped.

        x: [batch, context, d_model]. Returns [batch, context, vocabulary].
        """
        x = x.to(self.model.dtype)
        skipped = self.blocks[: hook.boundary]
        for block in skipped:
            block.forward = _pass_through
        handle = self.entry(hook).register_forward_pre_hook(_replace_hidden_states(x), with_kwargs=True)
        try:
            return self._forward(input_ids)
        finally:
            handle.remove()
            for block in skipped:
                del block.forward

    def entry(self, hook: Hook) -> nn.Module:
        """The module that the stream enters just after the hook."""
        blocks = self.blocks
        return blocks[hook.boundary] if hook.boundary < len(blocks) else self._final_norm()

    def _final_norm(self) -> nn.Module:
        """The module that follows the last block: the next norm among the block list's siblings."""
        path, _ = self._blocks()
        parent_path, _, own = path.rpartition(".")
        children = list(self.model.get_submodule(parent_path).named_children())
        after = children[[name for name, _ in children].index(own) + 1 :]
        return next(module for name, module in after if "norm" in name or name.startswith("ln"))

    def _forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids.to(self.device), use_cache=False).logits

    def _blocks(self) -> tuple[str, nn.ModuleList]:
        depth = self.model.config.get_text_config().num_hidden_layers
        for path, module in self.model.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return path, module
        raise HostError(f"{self.name}: its list of blocks was not found", "only decoder stacks are supported")


class _StopForwardError(Exception):
    """Raised inside a forward to leave it at the hook."""


def _pass_through(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
    return hidden_states


def _replace_hidden_states(x: Tensor):
    def replace(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

    return replace


def load_host(
    name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, trust_remote_code: bool = False
) -> Host:
    """MODEL of the command line: an embedded name, a `.gguf` file, a folder, or a hub id.

    trust_remote_code: whether Python files that come with the model may run; only for one whose code you have read.
    Raises HostError if it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = _local_folder(name)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_remote_code)
    except LOAD_ERRORS as error:
        if "trust_remote_code" in str(error):
            raise HostError(
                f"the model {name} needs code of its own, which was not run",
                "read that code, then give --trust-remote-code",
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HostError(
            f"cannot load the model {name} ({reason})",
            f"give a hub id, a folder, a .gguf file, or one of: {', '.join(MODELS)}",
        ) from error
    return Host(name, model.to(device).eval().requires_grad_(False), tokenizer)


def wants_bos(host: Host, setting: Literal["auto", "yes", "no"]) -> bool:
    """Whether sequences start with BOS. `auto`: what the tokenizer does by itself, and always for Gemma.

    Gemma needs BOS (loss 3.85 without, 1.39 with, on one plain sentence); its GGUF tokenizer does not add it.
    """
    if setting != "auto":
        return setting == "yes"
    bos = host.tokenizer.bos_token_id
    ids = host.tokenizer("a").input_ids
    return bos is not None and ("gemma" in host.model.config.model_type or ids[:1] == [bos])


def _local_folder(name: str) -> str:
    if name in MODELS:
        return str(_converted(embedded_path(name, MODELS)))
    path = Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise HostError(f"there is no file {name}", "check the path")
        return str(_converted(path))
    return name


def _converted(gguf: Path) -> Path:
    """A safetensors folder of a GGUF file, dequantised once to float32 and cached: loads ten times faster."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, __version__

    stat = gguf.stat()
    written_by = __version__.partition(".")[0]  # 4 cannot read the tokenizers that 5 saves
    identity = f"{gguf.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{written_by}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    target = cache_dir() / "models" / f"{gguf.stem}-{key}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            # What was loaded is plain float32; the mark of the source's quantisation would forbid saving it.
            model.hf_quantizer = None
            vars(model.config).pop("quantization_config", None)
            tokenizer.save_pretrained(scratch)
            model.save_pretrained(scratch)
        if not target.exists():  # another process may have been quicker
            os.replace(scratch, target)
    except LOAD_ERRORS as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise HostError(f"cannot read {gguf} ({reason})", "check that it is a whole GGUF file") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers' own bars and advice, silenced while we load (ours are shown) and restored after."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
