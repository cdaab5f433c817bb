"""Which model, hook and text an SAE is read with: the options that training and evaluation share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rational_sae.activations import Reader
from rational_sae.cache import MAX_GB, ActivationCache
from rational_sae.errors import HostError, SettingsError, SourceError
from rational_sae.hosts import load_host, wants_bos
from rational_sae.sae import SAE
from rational_sae.text import open_text
from rational_sae.tokens import Sink, Tokeniser

MAX_DEFAULT_CONTEXT = 128
"""Default sequence length where the SAE's config says more."""


LONGEST_CONTEXT = 1 << 20
"""Tokens of a sequence: more than any model that is read here takes."""

MOST_TOKENS = 10**13
"""More than any language model was trained on; beyond, a number is a slip of the hand."""

FEWEST_EVAL_TOKENS, MOST_EVAL_TOKENS = 32, 10**9
"""Test tokens. With fewer, half as many for calibration do not fix a handful of coefficients (heuristic)."""

Named = Annotated[str, Field(min_length=1, max_length=4096)]
"""A path or a name. Systems take paths of at most 4 096 bytes."""


class Reading(BaseModel):
    """Options that decide which activations an SAE sees."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: Named = "news"
    """.txt, .jsonl[.gz], a folder of them, hf:NAME[:SPLIT], or an embedded name."""
    model: Named | None = None
    """Hub id, folder, .gguf file or embedded name; default: what the SAE's config says."""
    hook: Named | None = None
    """Where the SAE reads; default: what its config says."""
    context: int | None = Field(default=None, ge=2, le=LONGEST_CONTEXT)
    """Sequence length; default: what the SAE's config says, at most 128."""
    bos: Literal["auto", "yes", "no"] = "auto"
    """Whether sequences start with BOS."""
    sink: Sink = "exclude"
    """Whether attention sinks (the first position, and later ones by norm) stay out of training and metrics."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the language model computes in; residual vectors are float32 afterwards, and SAEs always."""
    trust_remote_code: bool = Field(default=False, exclude=True)
    """Whether code that comes with the model may run. Never stored, and refused in files: who runs a job says it."""
    cache: Path | None = Field(default=None, exclude=True)
    """Folder that keeps residual streams. It changes no bit of a result: never stored, and refused in files."""
    cache_gb: float = Field(default=MAX_GB, gt=0, exclude=True)
    """Size of that folder at most, in 1e9 bytes; what was not used for longest goes."""

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

        Raises SourceError if neither names the model or the hook, and HostError if there is no such device.
        """
        meta = sae.metadata
        model, hook = self.model or meta.model_name, self.hook or meta.hook_name
        for value, option in ((model, "model"), (hook, "hook")):
            if not value:
                raise SourceError(f"the SAE's config names no {option}", f"give --{option}")
        bos = self.bos
        if bos == "auto" and meta.prepend_bos is not None:
            bos = "yes" if meta.prepend_bos else "no"
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        _require_device(device)
        context = self.context or min(meta.context_size or MAX_DEFAULT_CONTEXT, MAX_DEFAULT_CONTEXT)
        return self.model_copy(update={"model": model, "hook": hook, "context": context, "bos": bos, "device": device})

    def open(self, sae: SAE) -> Reader:
        """Load the model and open the text, and move the SAE beside the model.

        Raises HostError if the SAE's width is not the model's.
        """
        options = self.resolved(sae)
        assert options.model is not None
        assert options.hook is not None
        assert options.context is not None
        text = open_text(options.text)
        host = load_host(
            options.model,
            device=options.device,
            dtype=getattr(torch, options.precision),
            trust_remote_code=options.trust_remote_code,
        )
        if host.d_model != sae.d_in:
            raise HostError(
                f"the SAE reads width {sae.d_in}, {options.model} has width {host.d_model}",
                "give the model that the SAE was trained on",
            )
        sae.to(host.device)
        tokeniser = Tokeniser(host.tokenizer, options.context, bos=wants_bos(host, options.bos), sink=options.sink)
        hook = host.hook(options.hook)
        cache = None if options.cache is None else ActivationCache(options.cache, host, hook, options.cache_gb)
        return Reader(host, hook, text, tokeniser, cache=cache)


def _require_device(name: str) -> None:
    """Raise HostError if there is no such GPU here. It is not touched: worker processes may be started yet."""
    device = torch.device(name)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(device.type)
    if count is not None and (device.index or 0) >= count:
        raise HostError(f"there is no device {name} here", "give --device auto or cpu")


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
