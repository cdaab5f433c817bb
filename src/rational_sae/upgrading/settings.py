"""One class of settings: the command line parses it, `settings.yaml` stores it, the report shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from rational_sae.data.reading import FEWEST_EVAL_TOKENS, MOST_EVAL_TOKENS, MOST_TOKENS, Named, Reading, refuse_trust
from rational_sae.errors import SettingsError
from rational_sae.evaluation.probing import FEWEST_PROBE_TEXTS, MOST_PROBE_TEXTS
from rational_sae.gates.registry import TRAINED
from rational_sae.rational.minimax import LARGEST_DEGREE
from rational_sae.sae.model import SAE
from rational_sae.support.files import read_yaml
from rational_sae.support.safe_text import redacted

Control = Literal["native", "jumprelu", "identity"]
Recipe = Literal["default", "paper"]
Form = Literal["partial_fractions", "safe_pade"]


DEFAULT_TYPE = (5, 4)
"""The type of the default recipe: as good as (9,8) and cheaper; on one ReLU at high rates better (docs/results.md)."""

PAPER_RELU_TYPE, PAPER_JUMP_TYPE = (3, 2), (9, 8)
"""The paper's types for a ReLU, and for a JumpReLU or TopK."""

PAPER: dict[str, Any] = {
    "gate": "smooth",
    "calibrate": "teacher",
    "penalty": "l1",
    "hold_l0": False,
    "controls": ("native",),
    "steps": 22_000,
    "lr": 2e-4,
}
"""The paper's recipe (arXiv 2606.14990) where it differs from the defaults; type, form and learning rates follow from
others (`_recipe`). λ is fixed, as there. No `identity` control: r(t) = t without a cut is a linear autoencoder."""


MOST_STEPS, LARGEST_BATCH = 10**9, 1 << 24
"""Beyond what any run does; larger numbers are slips of the hand, and would overflow somewhere below."""

FEWEST_TOKENS = 2
"""One token has no spread, so that no error can be told as a share of it."""

LARGEST_SEED = (1 << 32) - 1
"""What NumPy's and scikit-learn's generators take, too."""

HIGHEST_RATE = 10.0
"""Adam moves a weight by about its rate at each step; weights are of the order of 1 and less."""


class Settings(Reading):
    """Everything that decides the result of an upgrade."""

    teacher: Named
    """An SAE's folder."""
    recipe: Recipe = "default"
    """Whose defaults the options have that were not given: ours, or the paper's (docs/paper.md)."""
    gate: str = "hard"
    """Which gate is trained: hard, smooth or topk, or another of `rational_sae.gates.registry`."""
    type: tuple[int, int] | None = None
    """Degrees (p, q) of the rational function, (q + 1, q) with q even; default: DEFAULT_TYPE, and the paper's
    in its recipe."""
    form: Form = "partial_fractions"
    """How r is written while it is trained; the paper's safe-Padé is for the smooth gate alone."""
    calibrate: Literal["teacher", "reconstruction", "none"] = "teacher"
    """What the first shape is fitted to: the teacher's gate, x itself (in closed form; `init` then no longer
    reproduces the teacher), or nothing beyond the design."""
    scales: Literal["latent", "one"] = "latent"
    """Whether each latent has its own s_j, or all share one."""
    token_scale: float = Field(default=0.0, ge=0, le=1)
    """ρ of the hard gate's scale for each token, 0 for none. Worth .4 % of FVU on a TopK that is trained at a third of
    these learning rates, and nothing at theirs (docs/method.md)."""
    penalty: Literal["l0", "l1"] = "l0"
    """What is penalised where the gate lets thresholds move: the surrogate of L0, or ‖z‖₁ weighted by decoder norms."""
    band: Literal["both", "above"] = "both"
    """Sides of a threshold on which entries pass gradient to it."""
    hold_l0: bool = True
    """Whether a controller holds L0 during training; if not, the penalty keeps its first weight."""
    revive: bool = True
    """Whether latents that do not fire early in training get a new direction (rows with a hard rational gate)."""
    refit_decoder: bool = False
    """Whether every row's decoder is fitted again by least squares after training; for gates with exact zeros."""
    solve_every: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Steps between closed-form solutions of the shape (variable projection); default: Adam alone moves it."""
    controls: tuple[Control, ...] = ("native", "identity")
    """What the upgrade is compared with, beside the teacher."""
    steps: int = Field(default=600, ge=1, le=MOST_STEPS)
    """Fine-tuning steps."""
    batch_tokens: int = Field(default=1024, ge=FEWEST_TOKENS, le=LARGEST_BATCH)
    """Tokens of one step."""
    train_tokens: int | None = Field(default=None, ge=FEWEST_TOKENS, le=MOST_TOKENS)
    """Distinct training tokens; default steps × batch_tokens. Fewer are reused in new orders."""
    eval_tokens: int = Field(default=16384, ge=FEWEST_EVAL_TOKENS, le=MOST_EVAL_TOKENS)
    """Test tokens; calibration and validation use half as many each."""
    target_l0: float | None = Field(default=None, gt=0)
    """L0 to hold; default: the teacher's on validation, less one standard error (job.py: TOKEN_SPREAD)."""
    probes: tuple[Named, ...] = ()
    """Tasks to probe on: files, embedded names, hf:NAME[/CONFIG][:SPLIT], or first-letter."""
    probe_train: int = Field(default=4000, ge=FEWEST_PROBE_TEXTS, le=MOST_PROBE_TEXTS)
    """Most training texts of one probe; the test part is a quarter of it."""
    lr: float = Field(default=6e-4, gt=0, le=HIGHEST_RATE)
    """Adam's learning rate of the weights."""
    lr_threshold: float = Field(default=3e-3, gt=0, le=HIGHEST_RATE)
    """Of thresholds and log-scales."""
    lr_shape: float = Field(default=3e-4, ge=0, le=HIGHEST_RATE)
    """Of the shape coefficients; 0 freezes them."""
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Factors on all learning rates of single rows (`rsae`, `identity`, `control_native`, `control_jumprelu`), where a
    pilot chose one; default 1."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
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
        chosen: dict[str, Any] = {}
        if options.target_l0 is not None and options.target_l0 > sae.d_sae:
            raise SettingsError(
                f"target_l0 is {options.target_l0:g}, but the SAE has {sae.d_sae} latents", "give a lower --target-l0"
            )
        if options.target_l0 is not None and options.target_l0 * (options.eval_tokens // 2) < 1:
            raise SettingsError(
                f"target_l0 is {options.target_l0:g}: not one code in {options.eval_tokens // 2} validation tokens",
                "give a higher --target-l0",
            )
        if options.type is None:
            paper = PAPER_RELU_TYPE if sae.gate.family == "relu" else PAPER_JUMP_TYPE
            chosen["type"] = paper if options.recipe == "paper" else DEFAULT_TYPE
        return options.model_copy(update=chosen)

    @model_validator(mode="before")
    @classmethod
    def _recipe(cls, given: Any) -> Any:
        """The recipe's defaults under what was given."""
        if not isinstance(given, dict) or given.get("recipe") != "paper":
            return given
        options = PAPER | given
        lr = options["lr"]  # one Adam, one rate
        form = "safe_pade" if options["gate"] == "smooth" else "partial_fractions"
        return {"form": form, "lr_threshold": lr, "lr_shape": lr} | options

    @model_validator(mode="after")
    def _of_this_gate(self) -> Self:
        if self.form == "safe_pade" and self.gate != "smooth":
            raise ValueError(f"form safe_pade is for gate smooth, not {self.gate}")
        if self.refit_decoder and not TRAINED[self.gate].exact_zeros:
            raise ValueError(f"refit_decoder is for gates with exact zeros, not {self.gate}")
        return self

    @field_validator("gate")
    @classmethod
    def _registered(cls, value: str) -> str:
        if value not in TRAINED:
            *most, last = map(repr, TRAINED)
            raise ValueError(f"Input should be {', '.join(most)} or {last}")
        return value

    @field_validator("type")
    @classmethod
    def _trainable(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is None:
            return None
        p, q = value
        if q < 2 or q % 2 or p != q + 1 or p > LARGEST_DEGREE:
            raise ValueError(f"type {p},{q} cannot be trained; use (q+1, q) with q even, such as 3,2 or 9,8")
        return value


RECIPE_OPTIONS = (*PAPER, "type", "form", "lr_threshold", "lr_shape")
"""Options that a recipe sets."""


def completed(stored: dict[str, Any]) -> dict[str, Any]:
    """Stored settings with options that are newer than they are: each at its default, which is what was done then."""
    newer = {name: Settings.model_fields[name].default for name in ("recipe", "form", "refit_decoder", "positions")}
    return newer | stored if stored else stored


def read_settings(path: Path) -> dict[str, Any]:
    """What a settings.yaml holds, checked. Raises SettingsError with the place that is wrong."""
    remedy = "give the settings.yaml of a finished job"
    found = read_yaml(path, SettingsError, remedy)
    try:
        refuse_trust(found, str(path))
        return Settings.model_validate(found).model_dump(mode="json")
    except RecursionError as error:
        raise SettingsError(f"{path} holds itself", remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"{path}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}", remedy) from error
