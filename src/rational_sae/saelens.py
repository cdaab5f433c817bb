"""Importing this makes SAELens know the architecture "rational".

>>> import rational_sae.saelens  # before or after sae_lens  # doctest: +SKIP
>>> import sae_lens  # doctest: +SKIP
>>> sae = sae_lens.SAE.load_from_disk("path/to/rsae")  # doctest: +SKIP

It needs SAELens: MissingExtraError without it, OutputError if another package has taken the name. SAELens has no entry
point that would let it find an architecture by itself.

On disk: SAELens' four tensors, `threshold` and `scale` ([d_sae] each; `look_unit` where there are
further looks), and what bfloat16 rounds off these
(`residue.py`), because SAELens casts every tensor to the dtype that is asked for before we see it. The shape's
coefficients, gain, right slope, mode and k are numbers in cfg.json. So the gate is exact after a load in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from rational_sae.errors import MissingExtraError, OutputError
from rational_sae.formats.checked import Config
from rational_sae.formats.residue import join_, split
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.registry import from_config
from rational_sae.rational import PartialFractions
from rational_sae.sae.looks import UNIT, Looks

try:
    from sae_lens.registry import SAE_CLASS_REGISTRY, register_sae_class
    from sae_lens.saes.sae import SAE, SAEConfig
except ImportError as error:
    raise MissingExtraError("sae-lens", extra="saelens") from error

ARCHITECTURE = "rational"
TRANSCODER, SKIP_TRANSCODER = "rational_transcoder", "rational_skip_transcoder"

GATE_TENSORS = ("threshold", "scale")
GATE_NUMBERS = ("coefficients", "gain", "right_slope", "mode", "k", "token_scale")

IDENTITY = PartialFractions(0.0, 1.0, alpha=[], beta=[], x=[], eta=[])  # pyright: ignore[reportArgumentType]


@dataclass
class RationalSAEConfig(SAEConfig):
    """What SAELens' own config says, and the gate's numbers."""

    coefficients: dict[str, Any] = field(default_factory=IDENTITY.to_dict)
    """r: `PartialFractions.to_dict()` or `SafePade.to_dict()`, with its form and version."""
    gain: float = 1.0
    right_slope: float = 1.0
    """Slope of the continuation of r right of t = 1."""
    mode: str = "hard"
    k: int | None = None
    """For mode topk."""
    token_scale: dict[str, Any] | None = None
    """k, power and level of the scale for each token (`rational_sae.gates.token_scaled`); None: 1."""

    looks: dict[str, Any] | None = None
    """Looks before the last (`rational_sae.sae.looks`); None: one look."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE


class RationalSAE(SAE[RationalSAEConfig]):
    """An SAE whose gate is a rational function on a support. The gate is float32, whatever the dtype."""

    b_enc: nn.Parameter
    threshold: nn.Parameter
    scale: nn.Parameter

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        size, device = self.cfg.d_sae, self.device
        self.b_enc = nn.Parameter(torch.zeros(size, dtype=self.dtype, device=device))
        self.threshold = nn.Parameter(torch.zeros(size, device=device))
        self.scale = nn.Parameter(torch.ones(size, device=device))
        if self.cfg.looks is not None:
            self.register_parameter(UNIT, nn.Parameter(torch.ones(size, device=device)))

    @property
    def exact(self) -> tuple[str, ...]:
        """Names of the tensors that stay float32."""
        return GATE_TENSORS if self.cfg.looks is None else (*GATE_TENSORS, UNIT)

    def gate(self) -> RationalGate:
        """The gate as it is now; gradients reach its input, not its numbers."""
        numbers = {name: getattr(self.cfg, name) for name in GATE_NUMBERS}
        tensors = {name: getattr(self, name).detach() for name in GATE_TENSORS}
        return from_config(Config(Path("cfg.json"), numbers), tensors).requires_grad_(False)

    @override
    def encode(self, x: Tensor) -> Tensor:
        """z: [..., d_sae] of x: [..., d_in]. `hook_sae_acts_pre` sees what the gate reads: the last look's h."""
        sae_in, gate = self.process_sae_in(x), self.gate()
        h = sae_in @ self.W_enc + self.b_enc
        if self.cfg.looks is not None:
            rest = sae_in if self.cfg.apply_b_dec_to_input else sae_in - self.b_dec
            looks = Looks.from_config(self.cfg.looks, getattr(self, UNIT)).requires_grad_(False)
            h = looks(h.float(), rest.float(), self.W_enc.float(), self.W_dec.float()).to(h.dtype)
        h = self.hook_sae_acts_pre(h)
        z = gate(h.float().reshape(-1, h.shape[-1]))[0]
        return self.hook_sae_acts_post(z.view(h.shape).to(self.dtype))

    @override
    def decode(self, feature_acts: Tensor) -> Tensor:
        """x̂: [..., d_in] of z: [..., d_sae]."""
        out = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(out), self.d_head)

    @override
    @torch.no_grad()
    def fold_W_dec_norm(self) -> None:
        """Unit decoder rows, the same reconstructions: scales, units and thresholds follow the codes'."""
        if not self.gate().elementwise:
            raise NotImplementedError("folding decoder norms would change which latents of a token are selected")
        norm = self.W_dec.norm(dim=-1).clamp(min=1e-8).float()  # as SAELens takes it
        super().fold_W_dec_norm()
        for name in self.exact:
            getattr(self, name).mul_(norm)

    @override
    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        join_(state_dict, self.exact)

    @override
    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        state_dict |= split(state_dict, self.exact)

    def _apply(self, fn: Any, recurse: bool = True) -> RationalSAE:
        """Move devices, but keep the gate's numbers float32."""
        kept = {name: getattr(self, name).data for name in self.exact}
        super()._apply(fn, recurse)
        for name, data in kept.items():
            moved = getattr(self, name)
            if moved.dtype != torch.float32:
                moved.data = data.to(moved.device)
        return self


@dataclass
class RationalTranscoderConfig(RationalSAEConfig):
    """The same, and the width of what is predicted."""

    d_out: int = 768

    @override
    @classmethod
    def architecture(cls) -> str:
        return TRANSCODER


class RationalTranscoder(RationalSAE):
    """A transcoder with a rational gate: its output is of `metadata.hook_name_out`."""

    cfg: RationalTranscoderConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        wide = {"dtype": self.dtype, "device": self.device}
        self.W_dec = nn.Parameter(torch.zeros(self.cfg.d_sae, self.cfg.d_out, **wide))
        self.b_dec = nn.Parameter(torch.zeros(self.cfg.d_out, **wide))

    @override
    def process_sae_in(self, sae_in: Tensor) -> Tensor:
        return self.hook_sae_input(sae_in.to(self.dtype))


@dataclass
class RationalSkipTranscoderConfig(RationalTranscoderConfig):
    """The same."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return SKIP_TRANSCODER


class RationalSkipTranscoder(RationalTranscoder):
    """The same with W_skip: [d_out, d_in], which SAELens' own skip transcoders add in `forward` alone, too."""

    cfg: RationalSkipTranscoderConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    W_skip: nn.Parameter

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        shape = (self.cfg.d_out, self.cfg.d_in)
        self.W_skip = nn.Parameter(torch.zeros(shape, dtype=self.dtype, device=self.device))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """ŷ: [..., d_out] of x: [..., d_in]."""
        return self.decode(self.encode(x)) + x.to(self.dtype) @ self.W_skip.T


CLASSES = (
    (ARCHITECTURE, RationalSAE, RationalSAEConfig),
    (TRANSCODER, RationalTranscoder, RationalTranscoderConfig),
    (SKIP_TRANSCODER, RationalSkipTranscoder, RationalSkipTranscoderConfig),
)


def _register() -> None:
    for name, kind, config in CLASSES:
        known = SAE_CLASS_REGISTRY.get(name)
        if known is None:
            register_sae_class(name, kind, config)
        elif known[0] is not kind:
            raise OutputError(
                f"SAELens already has an architecture {name!r} ({known[0].__module__})",
                "unload that package",
            )


_register()
