"""One class of settings: the command line parses it, `settings.yaml` stores it, the report shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator

from rational_sae.errors import SettingsError
from rational_sae.gate import Mode, TopKGate
from rational_sae.reading import Reading, refuse_trust
from rational_sae.sae import SAE
from rational_sae.safe_text import redacted

Control = Literal["native", "jumprelu", "identity"]


TOPK_TOKEN_SCALE = 0.4
"""Measured on two TopK development cells against 0 (docs/method.md); a ReLU's many tiny codes make its k-th largest
pre-activation noise, and training stands still."""


class Settings(Reading):
    """Everything that decides the result of an upgrade."""

    teacher: str
    """An SAE's folder."""
    gate: Mode = "hard"
    """hard, smooth or topk."""
    type: tuple[int, int] = (9, 8)
    """Degrees (p, q) of the rational function; (q + 1, q) with q even."""
    calibrate: Literal["teacher", "reconstruction", "none"] = "teacher"
    """What the first shape is fitted to: the teacher's gate, x itself (in closed form; `init` then no longer
    reproduces the teacher), or nothing beyond the design."""
    scales: Literal["latent", "one"] = "latent"
    """Whether each latent has its own s_j, or all share one."""
    token_scale: float | None = Field(default=None, ge=0, le=1)
    """ρ of the hard gate's scale for each token, 0 for none; default: TOPK_TOKEN_SCALE for a TopK, 0 for others."""
    penalty: Literal["l0", "l1"] = "l0"
    """What is penalised where the gate lets thresholds move: the surrogate of L0, or ‖z‖₁ weighted by decoder norms."""
    band: Literal["both", "above"] = "both"
    """Sides of a threshold on which entries pass gradient to it."""
    hold_l0: bool = True
    """Whether a controller holds L0 during training; if not, the penalty keeps its first weight."""
    revive: bool = True
    """Whether latents that do not fire while training warms up get a new direction (rows with a hard rational gate)."""
    solve_every: int | None = Field(default=None, ge=1)
    """Steps between closed-form solutions of the shape (variable projection); default: Adam alone moves it."""
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
    target_l0: float | None = Field(default=None, gt=0)
    """L0 to hold; default: the teacher's on validation."""
    probes: tuple[str, ...] = ()
    """Tasks to probe on: files, embedded names, hf:NAME[:SPLIT], or first-letter."""
    probe_train: int = Field(default=4000, ge=40)
    """Most training texts of one probe; the test part is a quarter of it."""
    lr: float = Field(default=2e-4, gt=0)
    """Adam's learning rate of the weights."""
    lr_threshold: float = Field(default=1e-3, gt=0)
    """Of thresholds and log-scales."""
    lr_shape: float = Field(default=1e-4, ge=0)
    """Of the shape coefficients; 0 freezes them."""
    rates: dict[str, float] = Field(default_factory=dict)
    """Factors on all learning rates of single rows (`rsae`, `identity`, `control_native`, `control_jumprelu`), where a
    pilot chose one; default 1."""
    seed: int = 0
    """Of the data order, calibration and bootstrap."""

    def to_store(self) -> dict[str, Any]:
        """What settings.yaml and report.json say, in JSON's own types; access tokens are hidden."""
        return redacted(self.model_dump(mode="json"))

    @property
    def tokens_to_harvest(self) -> int:
        """Distinct training tokens that are asked of the text."""
        return self.train_tokens or self.steps * self.batch_tokens

    def resolved(self, sae: SAE) -> Self:
        """These options with every default filled, from the SAE's config and its gate."""
        options = super().resolved(sae)
        if options.token_scale is not None:
            return options
        chosen = TOPK_TOKEN_SCALE if isinstance(sae.gate, TopKGate) and options.gate == "hard" else 0.0
        return options.model_copy(update={"token_scale": chosen})

    @field_validator("type")
    @classmethod
    def _trainable(cls, value: tuple[int, int]) -> tuple[int, int]:
        p, q = value
        if q < 2 or q % 2 or p != q + 1:
            raise ValueError(f"type {p},{q} cannot be trained; use (q+1, q) with q even, such as 3,2 or 9,8")
        return value


def read_settings(path: Path) -> dict[str, Any]:
    """What a settings.yaml holds, checked. Raises SettingsError with the place that is wrong."""
    remedy = "give the settings.yaml of a finished job"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        refuse_trust(found, str(path))
        return Settings.model_validate(found).model_dump(mode="json")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror})", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML ({' '.join(str(error).split())})", remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"{path}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}", remedy) from error
