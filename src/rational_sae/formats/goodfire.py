"""Goodfire: two linear layers in a .pt, a ReLU between them.

h = W_encᵀx + b_enc (b_dec is *not* subtracted), z = relu(h), x̂ = W_decᵀz + b_dec; both matrices are stored transposed.
Which model and layer it is of, only the file's name says (`repositories`).
"""

from __future__ import annotations

from collections.abc import Collection

from rational_sae.formats.checked import Tensors
from rational_sae.formats.containers import Contents
from rational_sae.gates.relu import ReLUGate
from rational_sae.sae.model import SAE, Metadata

FORMAT = "Goodfire"

WEIGHTS = {
    "W_enc": "encoder_linear.weight.T",
    "b_enc": "encoder_linear.bias",
    "W_dec": "decoder_linear.weight.T",
    "b_dec": "decoder_linear.bias",
}


def recognises(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is Goodfire's."""
    return {"encoder_linear.weight", "decoder_linear.weight"} <= set(names)


def read(contents: Contents) -> SAE:
    """The SAE of a file."""
    tensors = Tensors(contents)
    weights = tensors.weights(WEIGHTS)
    tensors.all_read()
    metadata = Metadata(source=str(contents.path), format=FORMAT, family="relu")
    return SAE(**weights, gate=ReLUGate(), apply_b_dec_to_input=False, metadata=metadata)
