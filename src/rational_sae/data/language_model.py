"""Language models that an SAE reads from: loading, hook names, truncated and resumed forwards.

A hook is a place in the model: the residual stream between two blocks, or a part of a block. `hook_names` has the names
that are read, and `places` where each is in an architecture.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rational_sae.data.embedded import MODELS, embedded_path
from rational_sae.data.hook_names import parse, refuse_elsewhere
from rational_sae.data.model_names import hub_id
from rational_sae.data.places import Spot, at_input, at_output, edited_at, embedding_spot, spot, value_biases
from rational_sae.errors import HostError, RationalSAEError
from rational_sae.kernels.products import quick_products
from rational_sae.support.paths import cache_dir

LOAD_ERRORS = (OSError, ValueError, KeyError, IndexError, struct.error, SafetensorError)
"""What transformers, gguf and safetensors raise for files that are missing, cut or not what they claim."""

TOKENIZER_FILE = re.compile(r"tokenizer\..*|vocab\..*|spiece\.model|.*\.tiktoken|tekken\.json")
"""Files that hold a vocabulary (tokenizer_config.json does not)."""


@dataclass(frozen=True)
class Hook:
    """A place in a model: the residual stream between two blocks, or a spot in one."""

    name: str
    """As the user or the SAE's config wrote it."""
    boundary: int
    """Blocks that are run before: 0 is the embedding, n_blocks the last block's output."""
    spot: Spot | None = None
    """In the next block (for the embedding, in the model); None: the stream itself."""
    out: Hook | None = None
    """For a transcoder: where what it predicts is, behind. What is read here is then [x; y], side by side."""

    @property
    def is_added(self) -> bool:
        """Whether what is there is the residual stream, or is added to it."""
        return self.spot is None or self.spot.is_added

    def same_place(self, other: Hook) -> bool:
        """Whether another name means the same."""
        if self.out is not None and other.out is not None:
            return self.out.same_place(other.out) and (self.boundary, self.spot) == (other.boundary, other.spot)
        return (self.boundary, self.spot, self.out) == (other.boundary, other.spot, other.out)


@dataclass
class Host:
    """A causal language model with its tokenizer. All forwards run without a KV cache."""

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

    def pair(self, name: str, out: str) -> Hook:
        """A transcoder's hook: what it reads, and what it predicts. Raises HostError as `hook` does."""
        into, place = self.hook(name), self.hook(out)
        if place.spot is not None and place.spot.unscaled:
            raise HostError(f"nothing can be put in place of {out[:200]!r}: it is read alone", "use another transcoder")
        return replace(into, out=place)

    def hook(self, name: str) -> Hook:
        """Resolve a hook's name. Raises HostError that says what is there instead, or names the nearest valid ones."""
        path, blocks = self._blocks()
        place = parse(name, path, dict(blocks[0].named_children()))
        if place is None:
            refuse_elsewhere(name)
        elif place.layer < len(blocks):
            if place.kind in ("resid_pre", "resid_post"):
                return Hook(name, place.layer + (place.kind == "resid_post"))
            if place.kind == "embed":
                return Hook(name, 0, embedding_spot(self.model, name))
            config = self.model.config.get_text_config()
            return Hook(name, place.layer, spot(place.kind, blocks[place.layer], config, name))
        valid = [f"{path}.{i}" for i in range(len(blocks))]
        ends = ("hook_resid_pre", "hook_resid_post", "hook_mlp_out", "hook_attn_out", "attn.hook_z")
        valid += [f"blocks.{i}.{end}" for i in range(len(blocks)) for end in ends]
        near = difflib.get_close_matches(name, valid, n=3, cutoff=0.0)
        raise HostError(f"{self.name} has no hook {name[:200]!r}", f"nearest: {', '.join(near)}")

    def width(self, hook: Hook) -> int:
        """Of one vector at the hook: d_model, or that of all heads side by side; of a transcoder's [x; y]."""
        if hook.out is not None:
            return self.width(replace(hook, out=None)) + self.width(hook.out)
        if hook.spot is None:
            return self.d_model
        return self.residual(torch.zeros(1, 1, dtype=torch.int64), hook).shape[-1]

    @torch.no_grad()
    def residual(self, input_ids: Tensor, hook: Hook) -> Tensor:
        """What passes at the hook; no block after it is run, and nothing of its own block behind it.

        input_ids: [batch, context] int64. Returns [batch, context, d_in] in the model's dtype.
        """
        caught: list[Tensor] = []

        def catch(x: Tensor) -> Tensor:
            caught.append(x)
            raise _StopForwardError

        def note(x: Tensor) -> Tensor:
            caught.append(x.clone())
            return x

        with contextlib.ExitStack() as stack:
            if hook.out is not None:
                stack.enter_context(self._at(hook, note))
            stack.enter_context(self._at(hook.out or hook, catch))
            with contextlib.suppress(_StopForwardError):
                self._forward(input_ids)
        if hook.out is not None and len(caught) < 2:
            raise HostError(
                f"{hook.out.name} comes before {hook.name}, which is to predict it", "use another transcoder or hook"
            )
        return torch.cat(caught, -1) if hook.out is not None else caught[0]

    def entering(self, input_ids: Tensor, hook: Hook) -> Tensor | None:
        """The residual stream that enters the hook's block, from which `logits_from` can go on; None where x itself is
        the stream, and where there is no block before.

        input_ids: [batch, context] int64. Returns [batch, context, d_model] in the model's dtype.
        """
        hook = hook.out or hook
        if hook.spot is None or hook.boundary == 0:
            return None
        return self.residual(input_ids, Hook(hook.name, hook.boundary))

    def logits_from(self, input_ids: Tensor, hook: Hook, x: Tensor, entering: Tensor | None = None) -> Tensor:
        """Logits with what passes at the hook (for a transcoder, where its output belongs) replaced by x; blocks before
        the hook are skipped where that can be.

        x: [batch, context, d_in]; it gets a gradient, if it records one. entering: what `entering` gave for these
        tokens, needed to skip blocks before a spot within one; without it they are run. Returns [batch, context,
        vocabulary].
        """
        x, hook = x.to(self.model.dtype), hook.out or hook
        with contextlib.ExitStack() as stack:
            if hook.spot is None:
                self._skip(hook.boundary, stack)
            elif entering is not None:
                self._skip(hook.boundary, stack)
                stack.enter_context(self.edited(Hook(hook.name, hook.boundary), lambda _stream: entering))
            stack.enter_context(self.edited(hook, lambda _x: x))
            return self._forward(input_ids)

    @contextlib.contextmanager
    def edited(self, hook: Hook, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """While open, every forward of the model goes on with edit(x) at the hook.

        edit: [batch, context, d_in] in the model's dtype to the same. Raises HostError for a place that is only read.
        """
        if hook.spot is not None and hook.spot.unscaled:
            raise HostError(f"nothing can be put in place of {hook.name}: it is read alone", "use another hook")
        with self._at(hook, edit):
            yield

    @contextlib.contextmanager
    def noted(self, hook: Hook, note: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """While open, every forward shows what passes at the hook to `note`, which gives it back unchanged."""
        with self._at(hook, note):
            yield

    @contextlib.contextmanager
    def _at(self, hook: Hook, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """`edited`, which may end the forward too."""
        blocks = self.blocks
        if hook.spot is not None:
            with edited_at(self.model if hook.spot.in_model else blocks[hook.boundary], hook.spot, edit):
                yield
            return
        if hook.boundary < len(blocks):
            handle = blocks[hook.boundary].register_forward_pre_hook(at_input(edit), with_kwargs=True)
        else:  # what follows the last block has no place of its own: some models have no norm there
            handle = blocks[-1].register_forward_hook(at_output(edit))
        try:
            yield
        finally:
            handle.remove()

    def _skip(self, count: int, stack: contextlib.ExitStack) -> None:
        """Pass the stream by the first blocks, until the stack is closed."""
        for block in self.blocks[:count]:
            block.forward = _pass_through_wrapped if self._wraps else _pass_through
            stack.callback(delattr, block, "forward")

    def value_biases(self, hook: Hook) -> Tensor:
        """What the biases of values add to all heads, side by side, of the hook's block: [d_in] float32."""
        found = value_biases(self.blocks[hook.boundary], self.model.config.get_text_config())
        if found is None:
            raise HostError(
                f"the SAE at {hook.name} was trained without biases of values, and where {self.name} has them is not"
                " known",
                "use an SAE of the model as it is",
            )
        return found.detach().float()

    @property
    def ignores_mean(self) -> bool:
        """Whether blocks read the stream through layer norms, which take off its mean over d_model; an RMS norm does
        not."""
        return any(isinstance(module, nn.LayerNorm) for module in self.blocks[0].modules())

    @functools.cached_property
    def _wraps(self) -> bool:
        """Whether blocks return the stream inside a tuple or a list, as some architectures still do."""
        seen: list[bool] = []

        def look(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            seen.append(not isinstance(output, Tensor))
            raise _StopForwardError

        handle = self.blocks[0].register_forward_hook(look)
        try:
            with contextlib.suppress(_StopForwardError):
                self._forward(torch.zeros(1, 1, dtype=torch.int64))
        finally:
            handle.remove()
        return seen[0]

    @functools.cached_property
    def _vocabulary(self) -> int:
        """Rows of the embedding."""
        return self.model.get_input_embeddings().weight.shape[0]

    def _require_known(self, input_ids: Tensor) -> None:
        """Raise HostError if a token has no row in the embedding: the model would end in an IndexError, or on a GPU in
        an assertion that ends the process's use of it."""
        largest = int(input_ids.max())
        if largest >= self._vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(largest)
            raise HostError(
                f"the tokenizer of {self.name} gives token {largest} ({token!r:.80}), "
                f"but its embedding has {self._vocabulary} rows",
                "give the model with the tokenizer that it was trained with",
            )

    def _forward(self, input_ids: Tensor) -> Tensor:
        self._require_known(input_ids)
        with quick_products():
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


def _pass_through_wrapped(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor]:
    return (hidden_states,)


def load_host(
    name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, trust_remote_code: bool = False
) -> Host:
    """MODEL of the command line: an embedded name, a `.gguf` file, a folder, a hub id, or TransformerLens' name of one.

    trust_remote_code: whether Python files that come with the model may run; only for one whose code you have read.
    Raises HostError if it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    folder = _local_folder(name)
    try:
        with _quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_remote_code)
    except LOAD_ERRORS as error:
        if "trust_remote_code" in str(error):
            raise HostError(
                f"the model {name} needs code of its own, which was not run",
                "read that code, then give --trust-remote-code",
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        known = f"{name}, which is {folder} on the hub" if folder == hub_id(name) != name else name
        raise HostError(
            f"cannot load the model {known} ({reason})",
            f"give a hub id, a folder, a .gguf file, or one of: {', '.join(MODELS)}",
        ) from error
    tokenizer = _tokenizer(name, folder, trust_remote_code=trust_remote_code)
    return Host(name, model.to(device).eval().requires_grad_(False), tokenizer)


def _tokenizer(name: str, folder: str, *, trust_remote_code: bool) -> Any:
    """The tokenizer of a model that has been loaded, so that what fails now is the tokenizer's. Without its files
    transformers either raises or makes one that knows its special tokens alone."""
    from transformers import AutoTokenizer

    reason = ""
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids):
            return tokenizer
    except Exception as error:  # of transformers, of each tokenizer's own library, which are many
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    files = [one.name for one in Path(folder).glob("*") if TOKENIZER_FILE.fullmatch(one.name)]
    if reason and (files or not Path(folder).is_dir()):
        raise HostError(
            f"cannot load the tokenizer of the model {name} ({reason})", "give the model with its tokenizer"
        )
    raise HostError(f"the model {name} has no tokenizer", "give the model with its tokenizer's files")


def require_positions(host: Host, context: int) -> None:
    """Raise HostError if sequences are longer than the model's config says that it was made for: some models then read
    past a table of positions, others (rotary ones) run on, far from what they were trained on."""
    positions = _positions(host.model.config)
    if positions is not None and context > positions:
        raise HostError(
            f"a context of {context} tokens is beyond the {positions} positions of {host.name}",
            f"give --context {positions} or less",
        )


def stated_positions(name: str, *, trust_remote_code: bool = False) -> int | None:
    """How many positions the config of a model, named as for `load_host`, says that it was made for.

    None if it says nothing of them, or if there is no such config: why, `load_host` tells.
    """
    from transformers import AutoConfig

    try:
        with _quiet():
            return _positions(AutoConfig.from_pretrained(_local_folder(name), trust_remote_code=trust_remote_code))
    except (*LOAD_ERRORS, RationalSAEError):
        return None


def _positions(config: Any) -> int | None:
    found = getattr(config.get_text_config(), "max_position_embeddings", None)  # n_positions of GPT-2
    return found if isinstance(found, int) else None


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
    return name if path.is_dir() else hub_id(name)


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
