"""OpenAI's sparse_autoencoder: a state dict in a .pt, TopK on layer-normalised input, or ReLU on the input as it is.

x̃ = (x − μ)/(σ + 1e-5), σ with d_in − 1; h = W_encᵀ(x̃ − pre_bias) + latent_bias, z = relu of the k largest h,
x̂ = (W_decᵀz + pre_bias)·σ + μ (sparse_autoencoder/model.py). Its files do not say which model or hook they are for.
"""

from __future__ import annotations

from collections.abc import Collection

from rational_sae.errors import SourceError
from rational_sae.formats.checked import Config, Tensors
from rational_sae.formats.containers import Contents
from rational_sae.gates.base import Gate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata

FORMAT = "OpenAI"

WEIGHTS = {"W_enc": "encoder.weight.T", "b_enc": "latent_bias", "W_dec": "decoder.weight.T", "b_dec": "pre_bias"}

STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square", "num_updates")
"""What training counted; no part of the formula."""

ACTIVATION, STATE = "activation", "activation_state_dict"
"""The activation by name, and its parameters."""


def recognises(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is OpenAI's."""
    return {"pre_bias", "latent_bias"} <= set(names)


def read(contents: Contents) -> SAE:
    """The SAE of a file."""
    tensors = Tensors(contents)
    if "decoder.linear.weight" in tensors:
        raise SourceError(f"{contents.path}: its decoder is tied to its encoder", "use an SAE with two matrices")
    weights = tensors.weights(WEIGHTS)
    tensors.ignore(*STATISTICS, ACTIVATION, STATE)
    tensors.all_read()
    gate = _gate(contents, weights["W_enc"].shape[1])
    topk = gate.k is not None
    return SAE(
        **weights,
        gate=gate,
        apply_b_dec_to_input=True,
        # Its own loader decides by the activation, too: there is no flag.
        normalisation="layer_norm" if topk else "none",
        metadata=Metadata(source=str(contents.path), format=FORMAT, family="topk" if topk else "relu"),
    )


def _gate(contents: Contents, d_sae: int) -> Gate:
    plain = Config(contents.path, dict(contents.plain))
    activation, state = plain.word(ACTIVATION), plain.inner(STATE)
    if activation in (None, "ReLU"):
        # Its own loader takes a ReLU where no activation is named. One that has parameters is not one.
        if state.numbers:
            raise SourceError(
                f"{contents.path}: activation {activation or 'missing'}, but {STATE} holds {', '.join(state.numbers)}",
                "save the SAE again with its activation",
            )
        return ReLUGate()
    after = state.word("postact_fn")
    if activation != "TopK" or after != "ReLU":
        raise SourceError(
            f"{contents.path}: activation {str(activation)[:80]!r} followed by {str(after)[:80]!r} is not supported",
            "use an SAE with ReLU, or TopK followed by ReLU",
        )
    return TopKGate(state.k(d_sae))
