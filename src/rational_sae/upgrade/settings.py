"""One class of settings: the command line parses it, `settings.yaml` stores it, the report shows it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rational_sae.gate import Mode
from rational_sae.tokens import Sink

Control = Literal["native", "jumprelu", "identity"]


class Settings(BaseModel):
    """Everything that decides the result of an upgrade."""

    model_config = ConfigDict(extra="forbid")

    teacher: str
    """An SAE's folder."""
    text: str = "news"
    """.txt, .jsonl[.gz], a folder of them, hf:NAME[:SPLIT], or an embedded name."""
    model: str | None = None
    """Hub id, folder, .gguf file or embedded name; default: what the SAE's config says."""
    hook: str | None = None
    """Where the SAE reads; default: what its config says."""
    gate: Mode | None = None
    """hard, smooth or topk; default hard."""
    type: tuple[int, int] = (9, 8)
    """Degrees (p, q) of the rational function; (q + 1, q) with q even."""
    controls: tuple[Control, ...] = ("native", "identity")
    """What the upgrade is compared with, beside the teacher."""
    steps: int = Field(default=600, ge=1)
    """Fine-tuning steps."""
    batch_tokens: int = Field(default=1024, ge=1)
    """Tokens of one step."""
    train_tokens: int | None = Field(default=None, ge=1)
    """Distinct training tokens; default steps × batch_tokens. Fewer are reused in new orders."""
    eval_tokens: int = Field(default=16384, ge=1)
    """Test tokens; calibration and validation use half as many each."""
    context: int | None = Field(default=None, ge=2)
    """Sequence length; default: what the SAE's config says, at most 128."""
    bos: Literal["auto", "yes", "no"] = "auto"
    """Whether sequences start with BOS."""
    sink: Sink = "exclude"
    """Whether the first position of a sequence, an attention sink, is excluded from training and metrics."""
    target_l0: float | None = Field(default=None, gt=0)
    """L0 to hold; default: the teacher's on validation."""
    lr: float = Field(default=2e-4, gt=0)
    """Adam's learning rate of the weights."""
    lr_threshold: float = Field(default=1e-3, gt=0)
    """Of thresholds and log-scales."""
    lr_shape: float = Field(default=1e-4, ge=0)
    """Of the shape coefficients; 0 freezes them."""
    seed: int = 0
    device: str = "auto"

    @field_validator("type")
    @classmethod
    def _trainable(cls, value: tuple[int, int]) -> tuple[int, int]:
        p, q = value
        if q < 2 or q % 2 or p != q + 1:
            raise ValueError(f"type {p},{q} cannot be trained; use (q+1, q) with q even, such as 3,2 or 9,8")
        return value
