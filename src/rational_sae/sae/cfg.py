"""`sae.cfg`: the attributes that other tools read and set on an SAE. A view: nothing is stored twice."""

from __future__ import annotations

import re
from typing import Any

METADATA = ("model_name", "hook_name", "hook_name_out", "context_size", "prepend_bos", "seqpos_slice")
"""Kept in the SAE's `Metadata`."""

KWARGS, CENTRING = "model_from_pretrained_kwargs", "center_writing_weights"
"""SAELens' word for how the model is to be loaded, and the one statement of it that changes what an SAE reads."""

BEHAVIOUR = {"apply_b_dec_to_input": "apply_b_dec_to_input", "normalize_activations": "normalisation"}
"""What the SAE itself calls them; setting one changes what the SAE computes."""

TENSORS = ("d_in", "d_sae", "dtype", "device", "architecture")
"""Facts of the tensors and the gate; setting one to anything else raises AttributeError."""

LAYER = re.compile(r"\.(\d+)(?:\.|$)")
"""The first number that is a whole part of a hook's name: 11 in `blocks.11.hook_resid_post` and `model.layers.11`."""


class Config:
    """Reads and writes through to the SAE; an attribute that nobody else keeps goes into `metadata.extra`.

    `hook_layer` follows the hook's name until it is set.
    """

    def __init__(self, sae: Any) -> None:
        object.__setattr__(self, "_sae", sae)

    @property
    def metadata(self) -> Any:
        """The SAE's `Metadata`."""
        return self._sae.metadata

    def to_dict(self) -> dict[str, Any]:
        """Every attribute, as plain values. What `metadata.extra` holds is there under its own names."""
        known = (*METADATA, *BEHAVIOUR, *TENSORS, KWARGS, "hook_layer", "hook_head_index")
        return dict(self.metadata.extra) | {name: getattr(self, name) for name in known}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copy and pickle ask before the SAE is there
            raise AttributeError(name)
        sae = self._sae
        if name in METADATA:
            return getattr(sae.metadata, name)
        if name in BEHAVIOUR:
            return getattr(sae, BEHAVIOUR[name])
        if name in ("d_in", "d_sae"):
            return getattr(sae, name)
        if name in ("dtype", "device"):
            return str(getattr(sae, name)).removeprefix("torch.")
        if name == "architecture":
            return sae.gate.architecture
        if name == KWARGS:
            stated = sae.metadata.extra.get(KWARGS) or {}
            return stated | {CENTRING: sae.centred} if sae.centred or CENTRING in stated else stated
        if name in sae.metadata.extra:
            return sae.metadata.extra[name]
        if name == "hook_layer":
            found = LAYER.search(sae.metadata.hook_name or "")
            return int(found[1]) if found else None
        if name == "hook_head_index":
            return None
        raise AttributeError(f"the SAE's cfg has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        sae = self._sae
        if name in METADATA:
            setattr(sae.metadata, name, value)
        elif name in BEHAVIOUR:
            setattr(sae, BEHAVIOUR[name], value)
        elif name == KWARGS:
            sae.metadata.extra[name] = dict(value or {})
            sae.centred = bool(sae.metadata.extra[name].get(CENTRING, False))
        elif name not in TENSORS:
            sae.metadata.extra[name] = value
        elif str(value).removeprefix("torch.") != str(getattr(self, name)):
            raise AttributeError(
                f"cfg.{name} is {getattr(self, name)!r} and follows the SAE; change the SAE, say by .to()"
            )

    def __repr__(self) -> str:
        return f"Config({self.to_dict()})"
