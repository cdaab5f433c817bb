"""Which model, hook and text an SAE is read with: the options that training and evaluation share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rational_sae.data.activations import Reader
from rational_sae.data.cache import MAX_GB, ActivationCache
from rational_sae.data.chat import Counted, require_template
from rational_sae.data.hook_names import parse, refuse_elsewhere
from rational_sae.data.language_model import Hook, Host, load_host, require_positions, stated_positions, wants_bos
from rational_sae.data.text import Text, open_text
from rational_sae.data.tokens import Sink, Tokeniser
from rational_sae.errors import HostError, SettingsError, SourceError
from rational_sae.sae.cfg import KWARGS
from rational_sae.sae.model import SAE, Metadata

MAX_DEFAULT_CONTEXT = 128
"""Default sequence length where neither the SAE's config nor the model's says less."""


LONGEST_CONTEXT = 1 << 20
"""Tokens of a sequence: more than any model that is read here takes."""

MOST_TOKENS = 10**13
"""More than any language model was trained on; beyond, a number is a slip of the hand."""

FEWEST_EVAL_TOKENS, MOST_EVAL_TOKENS = 32, 10**9
"""Test tokens. With fewer, half as many for calibration do not fix a handful of coefficients (heuristic)."""

SMALLEST_CACHE_GB, LARGEST_CACHE_GB = 0.001, 1e6
"""A megabyte holds nothing, and no disk is larger than a petabyte."""

Named = Annotated[str, Field(min_length=1, max_length=4096)]
"""A path or a name. Systems take paths of at most 4 096 bytes."""


class Reading(BaseModel):
    """Options that decide which activations an SAE sees.

    The first paragraph under a field is its help on the command line, too.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    text: Named = "news"
    """.txt, .jsonl[.gz], a folder of them, hf:NAME[/CONFIG][:SPLIT], or news."""
    chat: bool = False
    """Rows are dialogues: "messages", rendered by the chat template."""
    chat_tokens: Counted = "assistant"
    """Tokens of dialogues that count: the assistant's, or all."""
    also: Named | None = None
    """Second text, on which every row is measured too.

    Nothing is trained on it. With `chat` its rows are dialogues as well; `news` and a `.txt` stay what they are."""
    model: Named | None = None
    """Hub id, folder, .gguf, smollm2 or gemma3-270m. [default: the SAE's]"""
    hook: Named | None = None
    """Where the SAE reads: model.layers.11, blocks.11.hook_resid_post or blocks.11.hook_mlp_out. [default: the SAE's]

    `data/hook_names.py` has all names that are read."""
    context: int | None = Field(default=None, ge=2, le=LONGEST_CONTEXT)
    """Sequence length. [default: the SAE's, at most 128 and the model's positions]"""
    bos: Literal["auto", "yes", "no"] = "auto"
    """Start sequences with BOS."""
    sink: Sink = "exclude"
    """Whether attention sinks (the first position, and later ones by norm) stay out of training and metrics."""
    positions: tuple[int, int, int] | None = None
    """First, end and step of the positions of a sequence that count; default: what the SAE's config says."""
    device: str = "auto"
    """auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:1, or another with float64.

    Where the model and SAEs compute. Apple's MPS has no float64."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the language model computes in; residual vectors are float32 afterwards, and SAEs always."""
    trust_remote_code: bool = Field(default=False, exclude=True)
    """Run Python code that comes with the model. Read it first.

    Never stored, and refused in files: who runs a job says it."""
    cache: Path | None = Field(default=None, exclude=True)
    """Folder that keeps the model's activations for other jobs.

    It changes no bit of a result: never stored, and refused in files."""
    cache_gb: float = Field(default=MAX_GB, ge=SMALLEST_CACHE_GB, le=LARGEST_CACHE_GB, exclude=True)
    """Largest size of --cache, in 1e9 bytes; what was not used for longest goes."""

    @field_validator("device")
    @classmethod
    def _a_device(cls, value: str) -> str:
        try:
            known = value == "auto" or torch.device(value).type != "meta"
        except RuntimeError:
            known = False
        if not known:
            raise ValueError(f"{value[:80]!r} is not auto, cpu, cuda, cuda:N or mps")
        return value

    def resolved(self, sae: SAE) -> Self:
        """These options with every default filled from the SAE's own config.

        Raises SourceError if neither names the model or the hook, SettingsError if the device cannot be used.
        """
        meta = sae.metadata
        model, hook = self.model or meta.model_name, self.hook or meta.hook_name
        for value, option in ((model, "model"), (hook, "hook")):
            if not value:
                raise SourceError(f"the SAE's config names no {option}", f"give --{option}")
        assert hook is not None
        refuse_elsewhere(hook)  # before a model is loaded for it
        if self.model is None and meta.model_weights:
            raise SourceError(
                f"the SAE was trained on {model} of {meta.model_weights}, and only the newest weights are fetched",
                "give --model a folder that holds those",
            )
        bos = self.bos
        if bos == "auto" and meta.prepend_bos is not None:
            bos = "yes" if meta.prepend_bos else "no"
        device = usable_device(self.device)
        assert model is not None
        context = self.context or self._usual_context(meta, model)
        update = {"model": model, "hook": hook, "context": context, "bos": bos, "device": device}
        return self.model_copy(update=update | {"positions": self.positions or _positions(meta, context)})

    def _usual_context(self, meta: Metadata, model: str) -> int:
        """The SAE's, within the model's positions and MAX_DEFAULT_CONTEXT."""
        known = (meta.context_size, stated_positions(model, trust_remote_code=self.trust_remote_code))
        return min([MAX_DEFAULT_CONTEXT, *(one for one in known if one)])

    def open(self, sae: SAE) -> Reader:
        """Load the model and open the text, and move the SAE beside the model.

        Raises HostError if the SAE's width is not the model's, the context exceeds its positions, or BOS is asked for
        and the tokenizer has none.
        """
        options = self.resolved(sae)
        assert options.context is not None
        text = open_text(options.text, chat=options.chat)
        second = options._second_text(text)
        host, hook = options.place(sae)
        require_positions(host, options.context)
        bos = wants_bos(host, options.bos)
        if bos and host.tokenizer.bos_token_id is None:
            asked = "--bos yes" if self.bos == "yes" else "the SAE's config (prepend_bos)"
            raise HostError(
                f"{asked} starts sequences with BOS, the tokenizer of {host.name} has none", "give --bos no"
            )
        positions = range(*options.positions) if options.positions else None
        if text.chat or (second is not None and second.chat):
            require_template(host.tokenizer, host.name)
        tokeniser = Tokeniser(
            host.tokenizer,
            options.context,
            bos=bos,
            sink=options.sink,
            positions=positions,
            chat_tokens=options.chat_tokens,
        )
        cache = None if options.cache is None else ActivationCache(options.cache, host, hook, options.cache_gb)
        return Reader(host, hook, text, tokeniser, cache=cache)

    def place(self, sae: SAE) -> tuple[Host, Hook]:
        """The model and the hook alone, with the SAE moved beside the model. Of resolved options. Raises HostError."""
        assert self.model is not None
        assert self.hook is not None
        host = load_host(
            self.model,
            device=self.device,
            dtype=getattr(torch, self.precision),
            trust_remote_code=self.trust_remote_code,
        )
        place = parse(self.hook)
        if place is not None and place.kind.startswith("resid"):  # a model of another depth may not have the hook
            _require_width(sae.d_in, host.d_model, host)
        hook = host.hook(self.hook)
        _require_width(sae.d_in, host.width(hook), host, f" at {hook.name}")
        if sae.transcodes:
            hook = _with_output(sae, host, hook)
        sae.to(host.device)
        settle(sae, host, hook)
        return host, hook

    def _second_text(self, first: Text) -> Text | None:
        """What `also` names. Raises SettingsError if it is the first text, or if there are no dialogues for `chat`;
        TextError as `open_text` does."""
        if self.also == self.text:
            raise SettingsError(f"the second text is the first, {self.text}", "give another --also")
        second = None if self.also is None else open_text(self.also, chat=self.chat)
        if self.chat and not (second is not None and second.chat) and not first.chat:
            raise SettingsError("chat is set, but no text has rows of messages", "give a .jsonl[.gz], or no --chat")
        return second

    def elsewhere(self, reader: Reader) -> Reader | None:
        """The same reader of the second text; None without one."""
        second = self._second_text(reader.text)
        return None if second is None else replace(reader, text=second, digests={})


def _with_output(sae: SAE, host: Host, hook: Hook) -> Hook:
    """The hook of a transcoder. Raises SourceError if its config does not say what it predicts."""
    out = sae.metadata.hook_name_out
    if not out:
        raise SourceError("the transcoder's config does not say what it predicts", "state hook_name_out there")
    pair = host.pair(hook.name, out)
    assert pair.out is not None
    _require_width(sae.d_out, host.width(pair.out), host, f" at {out}", does="predicts")
    return pair


def _require_width(wanted: int, width: int, host: Host, where: str = "", *, does: str = "reads") -> None:
    if width != wanted:
        raise HostError(
            f"the SAE {does} width {wanted}, {host.name} has width {width}{where}",
            "give the model that the SAE was trained on",
        )


def usable_device(name: str) -> str:
    """The device of this name; `auto` is CUDA where torch finds it, else the CPU.

    Raises SettingsError if torch cannot compute there, or not in float64, in which sums over tokens are kept.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.zeros(1, dtype=torch.float64, device=device).sum().item()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SettingsError(f"the device {device} cannot be used ({reason})", "give --device cpu") from error
    return device


def settle(sae: SAE, host: Host, hook: Hook) -> None:
    """Make an SAE one of the model as it is, where its config states that it was trained on TransformerLens' other form
    of it. A second time changes nothing.

    center_writing_weights: nothing to do where the model's norms do not take off the mean, for TransformerLens leaves
    its weights alone then, nor at a place that is not added to the stream. fold_value_biases: heads then give their
    values without biases, which attention adds up to the same vector at every token; it goes into b_dec.
    Raises HostError if biases were folded and where they are is not known.
    """
    if sae.centred and not hook.is_added:
        sae.centred = False
    if sae.centred and not host.ignores_mean:
        sae.centred = False
        sae.metadata.warnings.append(
            f"center_writing_weights is stated, but {host.name} has no layer norms, so its weights were not centred in"
            " training either: x is read as it is"
        )
    stated = sae.metadata.extra.get(KWARGS) or {}
    if stated.get("fold_value_biases") and hook.spot is not None and hook.spot.kind == "hook_z":
        folded = host.value_biases(hook).to(sae.device)
        with torch.no_grad():
            if not sae.apply_b_dec_to_input:
                sae.b_enc -= folded @ sae.W_enc
            sae.b_dec += folded
        sae.metadata.extra[KWARGS] = stated | {"fold_value_biases": False}


def _positions(meta: Metadata, context: int) -> tuple[int, int, int] | None:
    """What `seqpos_slice` of the context that the SAE was trained on comes to. Raises SettingsError if no position of
    this context is left."""
    if meta.seqpos_slice is None:
        return None
    places = range(meta.context_size or context)[slice(*meta.seqpos_slice)]
    if not any(place < context for place in places):
        raise SettingsError(
            f"the SAE was trained on positions {list(meta.seqpos_slice)} of sequences, and none is within {context}",
            f"give --context {places[0] + 1} or more" if places else "correct seqpos_slice in its config",
        )
    return places.start, places.stop, places.step


def check_eval_tokens(count: int) -> None:
    """Raise SettingsError if so many test tokens are too few to say anything, or more than there can be."""
    if not FEWEST_EVAL_TOKENS <= count <= MOST_EVAL_TOKENS:
        raise SettingsError(
            f"{count} test tokens were asked for", f"ask for {FEWEST_EVAL_TOKENS} to {MOST_EVAL_TOKENS} (--eval-tokens)"
        )


def refuse_trust(values: Any, where: str) -> None:
    """Raise SettingsError if settings from a file ask, at any depth, for the model's own code to be run, or for a cache
    in a folder that the user did not name."""
    if isinstance(values, Mapping):
        if "trust_remote_code" in values:
            raise SettingsError(
                f"{where} asks for the model's own code to be run",
                "remove trust_remote_code there, and give --trust-remote-code if you have read that code",
            )
        if isinstance(values.get("cache"), str):  # a mapping would be a cell of that name
            raise SettingsError(f"{where} names a cache folder", "remove cache there, and give --cache")
        for value in values.values():
            refuse_trust(value, where)
