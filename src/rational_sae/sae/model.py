"""The SAE: an affine encoder, a gate and a decoder. Nothing here knows about files (see `storage.py`).

    z = sae.encode(x)          [..., d_sae], exactly 0 where a latent is inactive
    x_hat = sae.decode(z)      [..., d_in]; sae(x) does both

z = gate(W_encᵀ(n(x) − b_dec) + b_enc), x̂ = n⁻¹(W_decᵀ z + b_dec), with b_dec subtracted only if
`apply_b_dec_to_input`, and n the input normalisation, whose per-token state is undone on the way out. An SAE that was
trained on a model with centred writing weights reads x minus its mean over d_in, and puts that mean back.

A transcoder reads x at one place and gives ŷ = W_decᵀ z + b_dec + W_skip x of another place, [..., d_out]. In training
and measuring the two lie side by side in one row, [x; y], which everything that reads x takes as well.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rational_sae.gates.base import Gate
from rational_sae.sae.cfg import Config
from rational_sae.sae.looks import Looks
from rational_sae.sae.storage import offered

Normalisation = Literal["none", "layer_norm", "constant_norm_rescale"]

LAYER_NORM_EPSILON = 1e-5
"""SAELens' run_time_activation_ln_in (sae_lens/saes/sae.py), OpenAI's LN (sparse_autoencoder/model.py)."""


@dataclass
class Metadata:
    """Where an SAE comes from and which activations it expects. `None` means that its files do not say."""

    source: str = ""
    """What the user called it."""
    format: str = ""
    """What wrote its files: one of the formats that `rational_sae.formats` reads."""
    family: str = ""
    """relu, jumprelu, topk or rational."""
    model_name: str | None = None
    hook_name: str | None = None
    hook_name_out: str | None = None
    """Of a transcoder: where what it predicts is."""
    context_size: int | None = None
    prepend_bos: bool | None = None
    seqpos_slice: tuple[int | None, ...] | None = None
    """Which positions of a sequence it was trained on, as arguments of `slice`."""
    model_weights: str | None = None
    """Which of its model's weights, if not the newest: `revision step1000`."""
    warnings: list[str] = field(default_factory=list)
    """What its files state that is not honoured, for whoever uses it."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Everything else that the source's metadata says, kept for export."""


@dataclass(frozen=True)
class TokenState:
    """What the input normalisation took off each token. Both broadcast over [..., d_in]."""

    shift: Tensor
    scale: Tensor


class SAE(nn.Module):
    """A sparse autoencoder of any family.

    >>> from rational_sae import SAE
    >>> sae = SAE.from_pretrained("path/to/sae")  # doctest: +SKIP
    >>> z = sae.encode(x)  # [..., d_in] → [..., d_sae]  # doctest: +SKIP
    >>> x_hat = sae(x)  # [..., d_in]  # doctest: +SKIP
    >>> sae.save_pretrained("path/to/copy")  # doctest: +SKIP

    Parameters are float32 until `.to(torch.bfloat16)`: then the two products are bfloat16, the gate and the input
    normalisation stay float32, and codes and reconstructions have the weights' dtype.
    """

    def __init__(
        self,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        gate: Gate,
        *,
        apply_b_dec_to_input: bool = True,
        normalisation: Normalisation = "none",
        centred: bool = False,
        metadata: Metadata | None = None,
        looks: Looks | None = None,
        transcodes: bool = False,
        W_skip: Tensor | None = None,
    ) -> None:
        """W_enc: [d_in, d_sae], b_enc: [d_sae], W_dec: [d_sae, d_in], b_dec: [d_in]; the gate is moved beside them.

        centred: whether the mean over d_in of each x is taken off first. Where it is 0 already nothing changes. looks:
        those before the last, of a gate with scales. transcodes: whether it predicts another place, of width d_out,
        then in W_dec: [d_sae, d_out] and b_dec: [d_out]; it has no normalisation and one look, and does not subtract
        b_dec. W_skip: [d_out, d_in], of a transcoder, or None.
        """
        super().__init__()
        plain = not (apply_b_dec_to_input or centred or looks is not None or normalisation != "none")
        if not (plain if transcodes else W_skip is None):
            raise ValueError("a transcoder, which alone has W_skip, reads x as it is, once, and b_dec is of its output")
        # Latent by latent in memory: then its gradient, a sum over listed entries, needs no transposed copy.
        self.W_enc = nn.Parameter(W_enc.float().T.contiguous().clone().T)
        self.b_enc = nn.Parameter(b_enc.float().clone())
        self.W_dec = nn.Parameter(W_dec.float().clone().contiguous())
        self.b_dec = nn.Parameter(b_dec.float().clone())
        self.gate = gate.to(self.W_dec.device)
        self.apply_b_dec_to_input = apply_b_dec_to_input
        self.normalisation: Normalisation = normalisation
        self.centred = centred
        self.metadata = metadata or Metadata()
        self.looks = None if looks is None else looks.to(self.W_dec.device)
        self.transcodes = transcodes
        self.W_skip = None if W_skip is None else nn.Parameter(W_skip.float().clone().contiguous())

    @classmethod
    def from_pretrained(cls, name: str | Path) -> SAE:
        """The SAE of a file, a folder, `hub:OWNER/REPO[/PATH]` or `saelens:RELEASE/ID`, on the CPU, in float32.

        Raises SourceError if it is missing, damaged or of a kind that is not read. The same as `rational_sae.load`.

        >>> sae = SAE.from_pretrained("hub:EleutherAI/sae-pythia-160m-32k/layers.6")  # doctest: +SKIP
        """
        return offered("from_pretrained")(name)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the SAE as a folder that SAELens 6 and `from_pretrained` read: all of it or nothing. An earlier SAE of
        ours there is replaced. The same as `rational_sae.save`.

        Raises OutputError if the folder holds anything else or cannot be written, TrainingError if the SAE is not safe
        to save (NaN, or a gate that may be infinite).
        """
        offered("save_pretrained")(self, folder)

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Upload the SAE and its model card to `OWNER/NAME`, made if it is not there; returns the commit's address.

        The token is huggingface_hub's own business: `hf auth login`, or HF_TOKEN. Raises OutputError with a one-line
        reason if the hub does not take it.

        >>> sae.push_to_hub("me/my-sae", private=True)  # doctest: +SKIP
        """
        return offered("push_to_hub")(self, repo, private=private)

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        """Width of what is given: d_in, but of a transcoder."""
        return self.W_dec.shape[1]

    @property
    def row_width(self) -> int:
        """Of one row of training: d_in, or that of [x; y] for a transcoder."""
        return self.d_in + self.d_out if self.transcodes else self.d_in

    def target(self, row: Tensor) -> Tensor:
        """What is to be given back: row: [..., d_in] itself, or y of a transcoder's [x; y]."""
        return row[..., self.d_in :] if self.transcodes else row

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.W_dec.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.W_dec.device

    @property
    def cfg(self) -> Config:
        """What other tools read and set: model_name, hook_name, hook_layer, d_in, d_sae, `to_dict()` and more."""
        return Config(self)

    def extra_repr(self) -> str:
        known = self.metadata
        into = f" to {known.hook_name_out}" if self.transcodes else ""
        hook = f", {known.hook_name}{into} of {known.model_name}" if known.hook_name else ""
        return f"{self.metadata.family or self.gate.architecture}, d_in={self.d_in}, d_sae={self.d_sae}{hook}"

    def normalise(self, x: Tensor) -> tuple[Tensor, TokenState | None]:
        """n(x) and what undoes it. x: [..., d_in] float32, or a transcoder's [x; y]."""
        if self.transcodes:
            return x[..., : self.d_in], None
        if self.normalisation == "layer_norm":
            shift = x.mean(-1, keepdim=True)
            centred = x - shift
            scale = centred.std(-1, keepdim=True)
            return centred / (scale + LAYER_NORM_EPSILON), TokenState(shift, scale)  # as its authors undo it: no ε
        shift = x.mean(-1, keepdim=True) if self.centred else x.new_zeros(*x.shape[:-1], 1)
        if self.normalisation == "constant_norm_rescale":
            x = self.seen(x)
            scale = x.norm(dim=-1, keepdim=True) / self.d_in**0.5
            return x / scale, TokenState(shift, scale)
        return (x - shift, TokenState(shift, torch.ones_like(shift))) if self.centred else (x, None)

    def seen(self, x: Tensor) -> Tensor:
        """What of x the SAE is to explain: x: [..., d_in] itself, or minus its mean over d_in if the SAE is centred."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    @property
    def has_state(self) -> bool:
        """Whether `normalise` takes something off each token, which `decode` needs."""
        return self.centred or self.normalisation != "none"

    def preactivations(self, x: Tensor) -> Tensor:
        """h: [..., d_sae] float32 of x: [..., d_in], of the last look."""
        return self._last_look(self.normalise(x.float())[0])

    def first_look(self, x: Tensor) -> Tensor:
        """h₀: [..., d_sae] float32 of x: [..., d_in]; the same as `preactivations` where there is one look."""
        return self._affine(self.normalise(x.float())[0])

    def encode(self, x: Tensor) -> Tensor:
        """z: [..., d_sae] of x: [..., d_in], in the weights' dtype; exactly 0 where a latent is inactive.

        x: any leading shape and floating dtype, residual vectors as the model gives them.

        >>> (sae.encode(x) != 0).sum(-1).float().mean()  # L0  # doctest: +SKIP
        """
        return self._codes(self.preactivations(x))[0]

    def decode(self, z: Tensor, state: TokenState | None = None) -> Tensor:
        """x̂: [..., d_in] of z: [..., d_sae], in the weights' dtype.

        state: what the input normalisation took off each token, from `normalise`; None for an SAE without one
        (`has_state` is False). Raises ValueError if the SAE needs it and there is none: SAELens keeps that of the
        latest `encode`, which need not be the one of this z.

        >>> x_hat = sae.decode(z.index_fill(-1, torch.tensor(42), 0.0))  # latent 42 off  # doctest: +SKIP
        >>> x_hat = sae.decode(z, sae.normalise(x)[1])  # with an input normalisation  # doctest: +SKIP
        """
        if state is None and self.has_state:
            raise ValueError(
                f"this SAE normalises its input ({self.normalisation if self.normalisation != 'none' else 'centred'}), "
                "and z alone lacks that state; write sae.decode(z, sae.normalise(x)[1]), x being what z is of"
            )
        return self.denormalise(z.to(self.dtype) @ self.W_dec + self.b_dec, state)

    @staticmethod
    def denormalise(out: Tensor, state: TokenState | None) -> Tensor:
        """n⁻¹ of a reconstruction: [..., d_in]. state: from `normalise`."""
        return out if state is None else (out * state.scale + state.shift).to(out.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x̂: [..., d_in] of x: [..., d_in], in the weights' dtype; differentiable in x and all parameters.

        >>> fvu = (x - sae(x)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()  # doctest: +SKIP
        """
        return self.outputs(x)[0]

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x̂: [..., d_in], z: [..., d_sae] and the batch's L0 (a scalar that carries the thresholds' gradient)."""
        normalised, state = self.normalise(x.float())
        z, l0 = self._codes(self._last_look(normalised))
        return self.with_skip(self.decode(z, state), normalised), z, l0

    def with_skip(self, out: Tensor, x: Tensor) -> Tensor:
        """A transcoder's output with what goes straight there. out: [..., d_out], x: [..., d_in]."""
        return out if self.W_skip is None else out + linear(x.to(self.dtype), self.W_skip)

    def _affine(self, normalised: Tensor) -> Tensor:
        if self.apply_b_dec_to_input:
            normalised = normalised - self.b_dec.float()
        return linear(normalised.to(self.dtype), self.W_enc.T, self.b_enc).float()

    def _last_look(self, normalised: Tensor) -> Tensor:
        """h of the last look: [..., d_sae] float32, of n(x): [..., d_in]."""
        h = self._affine(normalised)
        if self.looks is None:
            return h
        rest = normalised - self.b_dec.float()
        return self.looks(h, rest, self.W_enc.float(), self.W_dec.float())

    def project_(self, points: int = 256) -> None:
        """Keep the gate and all looks where they are safe. points: on which a gate may look at its support."""
        self.gate.project_(points)
        if self.looks is not None:
            self.looks.project_()
            with torch.no_grad():  # what is no candidate keeps its first pre-activation, which must not be a code
                self.gate.threshold.copy_(torch.maximum(self.gate.threshold, self.looks.level))

    def parameter_groups(self) -> dict[str, list[Tensor]]:
        """Of the gate and all looks; see `Gate.parameter_groups`."""
        own = self.gate.parameter_groups()
        if self.looks is None:
            return own
        further = self.looks.parameters_by_kind()
        return {kind: [*own.get(kind, []), *further.get(kind, [])] for kind in {**own, **further}}

    def _codes(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """z: [..., d_sae] in the weights' dtype, and l0, of h: [..., d_sae] float32."""
        z, l0 = self.gate(h.reshape(-1, self.d_sae))
        return z.view_as(h).to(self.dtype), l0

    def with_gate(self, gate: Gate, looks: Looks | None = None) -> SAE:
        """A copy of the weights under another gate, whose family the metadata then names, and other looks."""
        return SAE(
            self.W_enc,
            self.b_enc,
            self.W_dec,
            self.b_dec,
            gate,
            apply_b_dec_to_input=self.apply_b_dec_to_input,
            normalisation=self.normalisation,
            centred=self.centred,
            metadata=replace(copy.deepcopy(self.metadata), family=gate.family),
            looks=looks,
            transcodes=self.transcodes,
            W_skip=self.W_skip,
        )

    @torch.no_grad()
    def rescale_input_(self, factor: float, out: float | None = None) -> None:
        """Follow a change of units x → x·factor (only without input normalisation, which has its own unit), and of a
        transcoder's y → y·out."""
        out = factor if out is None else out
        self.W_enc /= factor
        self.W_dec *= out
        self.b_dec *= out
        if self.W_skip is not None:
            self.W_skip *= out / factor

    @torch.no_grad()
    def rescale_latents_(self, factor: Tensor) -> None:
        """Follow a change of units z_j → z_j·factor_j; the reconstruction stays. factor: [d_sae], positive."""
        self.W_enc *= factor
        self.b_enc *= factor
        self.W_dec /= factor[:, None]
        self.gate.rescale_(factor)
        if self.looks is not None:
            self.looks.unit *= factor

    @torch.no_grad()
    def fold_offset_(self) -> None:
        """Write what the gate subtracts from all pre-activations into b_enc, where every tool looks for it."""
        offset = self.gate.subtracted()
        if offset is not None:
            self.b_enc -= offset
            self.gate.shift_(-float(offset))
