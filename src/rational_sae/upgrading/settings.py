"""One class of settings: the command line parses it, `settings.yaml` stores it, the report shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from rational_sae.data.reading import (
    FEWEST_EVAL_TOKENS,
    MOST_EVAL_TOKENS,
    MOST_TOKENS,
    Named,
    Reading,
    refuse_trust,
    usable_device,
)
from rational_sae.errors import SettingsError
from rational_sae.evaluation.probing import FEWEST_PROBE_TEXTS, MOST_PROBE_TEXTS
from rational_sae.evaluation.suite.tasks import FEWEST_TEXTS, MOST_TASKS, MOST_TEXTS, Size
from rational_sae.gates.registry import TRAINED
from rational_sae.rational.minimax import LARGEST_DEGREE
from rational_sae.report.decision import LEAST_EFFECT
from rational_sae.sae.model import SAE
from rational_sae.support.files import read_yaml
from rational_sae.support.safe_text import redacted

Control = Literal["native", "jumprelu", "identity", "one_look", "adapted"]
Kind = Literal["mse", "mse+kl"]
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

MOST_LOOKS = 3

HIGHEST_RATE = 10.0
"""Adam moves a weight by about its rate at each step; weights are of the order of 1 and less."""

REMOVED: dict[str, Any] = {"token_scale": 0.0, "band": "both", "solve_every": None, "scales": "latent"}
"""Options of earlier versions, with the value that is what is done now. What they gave is in dev/log/."""


def without_removed(given: Any, where: str = "settings") -> Any:
    """Settings without options that earlier versions had. Raises SettingsError if one is not at its default."""
    if not isinstance(given, dict):
        return given
    for name in REMOVED.keys() & given.keys():
        if given[name] != REMOVED[name]:
            raise SettingsError(
                f"{where}: {name} is {given[name]!r}, an option that was removed because it was worth nothing "
                "(docs/results.md, ablation)",
                "remove that line",
            )
    return {name: value for name, value in given.items() if name not in REMOVED}


NO_TEXT = "none"
"""What stands for the text where vectors are given."""

OF_A_MODEL = ("context", "bos", "sink", "positions", "precision", "trust_remote_code", "cache", "probes", "objective")
"""Options that mean nothing without a language model."""


class Settings(Reading):
    """Everything that decides the result of an upgrade.

    The first paragraph under a field is its help on the command line, too, where the option is offered there.
    """

    teacher: Named
    """File, folder, hub:OWNER/REPO[/PATH], saelens:RELEASE/ID or demo:topk."""
    vectors: Named | None = None
    """Vectors in place of a model and text: .npy of [n, d_in], or .safetensors with x, a transcoder's y, groups.

    See docs/tensors.md. Model and hook are then names alone, and the text is NO_TEXT."""
    recipe: Recipe = "default"
    """Whose defaults options have that are not given. paper: smooth safe-Padé gate, 3,2 for a ReLU, ‖z‖₁ of fixed
    weight, one learning rate, 22000 steps.

    See docs/paper.md, and PAPER."""
    gate: str = "hard"
    """Support of the gate.

    One of `rational_sae.gates.registry`."""
    type: tuple[int, int] | None = None
    """Degrees P,Q of the rational: Q even, P = Q + 1.

    Default: DEFAULT_TYPE, and the paper's in its recipe."""
    form: Form = "partial_fractions"
    """How r is written while it is trained; the paper's safe-Padé is for the smooth gate alone."""
    looks: int = Field(default=1, ge=1, le=MOST_LOOKS)
    """How often the encoder looks: 1, or more with an estimate of the codes in between.

    See docs/looks.md. A control `one_look` is then added, unless controls are given."""
    calibrate: Literal["teacher", "reconstruction", "none"] = "teacher"
    """Fit the first shape to the gate (teacher), to x (reconstruction), or to nothing beyond the design (none).

    To x: in closed form; `init` then no longer reproduces the teacher."""
    penalty: Literal["l0", "l1"] = "l0"
    """What is penalised where the gate lets thresholds move: the surrogate of L0, or ‖z‖₁ weighted by decoder norms."""
    objective: Kind = "mse"
    """What every row minimises: mse, or mse+kl, which in the last steps adds the KL of next-token predictions.

    See docs/objective.md. A control `adapted` is then added, unless controls are given."""
    kl_share: float = Field(default=0.25, gt=0, lt=1)
    """Last share of the steps that has KL under objective mse+kl."""
    jumprelu_revive: bool = True
    """Whether control jumprelu gets new directions for silent latents, as the rows with a hard rational gate do."""
    jumprelu_input: bool = False
    """Whether its straight-through gradient reaches pre-activations, and so the encoder, not thresholds alone.

    False as in Rajamanoharan et al. (arXiv 2407.14435), True as Anthropic trains (January 2025 update)."""
    jumprelu_penalty: Literal["l0", "l1", "tanh"] | None = None
    """What is penalised in it: the surrogate of L0, ‖z‖₁, or Σ tanh(4·z_j·‖W_dec,j‖); default: as in all rows."""
    pilot: bool = True
    """Train a control again at lower learning rates if it kept its start: shortly, and in full at one that helps."""
    adapter_rank: int | None = Field(default=None, ge=1)
    """Rank of control adapted's map on the teacher's output. [default: full]"""
    hold_l0: bool = True
    """Whether a controller holds L0 during training; if not, the penalty keeps its first weight."""
    revive: bool = True
    """Give latents that do not fire early in training a new direction.

    In rows with a hard rational gate."""
    refit_decoder: bool = False
    """Fit every row's decoder again by least squares at the end; for gates with exact zeros."""
    controls: tuple[Control, ...] = ("native", "identity")
    """Compare with these beside the teacher: native, jumprelu, identity, one_look, adapted, all or none; commas
    join."""
    steps: int = Field(default=600, ge=1, le=MOST_STEPS)
    """Fine-tuning steps."""
    batch_tokens: int = Field(default=1024, ge=FEWEST_TOKENS, le=LARGEST_BATCH)
    """Tokens of one step."""
    train_tokens: int | None = Field(default=None, ge=FEWEST_TOKENS, le=MOST_TOKENS)
    """Distinct tokens; fewer are used again, in new orders, and are worth less. [default: steps × batch]"""
    eval_tokens: int = Field(default=16384, ge=FEWEST_EVAL_TOKENS, le=MOST_EVAL_TOKENS)
    """Test tokens.

    Calibration and validation use half as many each."""
    target_l0: float | None = Field(default=None, gt=0)
    """L0 to hold: teacher, or a number.

    The teacher's is that on validation, less one standard error (job.py: TOKEN_SPREAD)."""
    probes: tuple[Named, ...] = ()
    """Task to probe on, any number: a .jsonl[.gz] with text and label, hf:NAME[/CONFIG][:SPLIT], question-type,
    movie-sentiment, sms-spam, language, sae-probes[:TASK] (113 tasks), or first-letter (absorption)."""
    probe_train: int = Field(default=4000, ge=FEWEST_PROBE_TEXTS, le=MOST_PROBE_TEXTS)
    """Most training texts of a probe; fewer are quicker.

    The test part is a quarter of it."""
    probe_tasks: int | None = Field(default=None, ge=1, le=MOST_TASKS)
    """Tasks of sae-probes, by a fixed draw. [default: all 113]"""
    probe_texts: int = Field(default=Size().texts, ge=FEWEST_TEXTS, le=MOST_TEXTS)
    """Most texts of a class in a task of sae-probes; fewer are quicker."""
    random: bool = False
    """Probe an SAE of random weights too, as a baseline."""
    least_effect: float = Field(default=LEAST_EFFECT, ge=0, lt=1)
    """Least difference that matters in the answer, as a share of what is compared with."""
    lr: float = Field(default=6e-4, gt=0, le=HIGHEST_RATE)
    """Adam's learning rate of the weights."""
    lr_threshold: float = Field(default=3e-3, gt=0, le=HIGHEST_RATE)
    """Of thresholds and log-scales."""
    lr_shape: float = Field(default=3e-4, ge=0, le=HIGHEST_RATE)
    """Of the shape coefficients; 0 freezes them."""
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Factors on all learning rates of single rows (`rsae`, `identity`, `one_look`, `control_native`,
    `control_jumprelu`, `teacher_adapted`), where a pilot chose one; default 1."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Of the data order, calibration and bootstrap."""

    @model_validator(mode="before")
    @classmethod
    def _removed(cls, given: Any) -> Any:
        return without_removed(given)

    def to_store(self) -> dict[str, Any]:
        """What settings.yaml and report.json say, in JSON's own types; access tokens are hidden."""
        return redacted(self.model_dump(mode="json"))

    @property
    def distinct_tokens(self) -> int:
        """Distinct training tokens that are asked of the text."""
        return self.train_tokens or self.steps * self.batch_tokens

    @property
    def kl_steps(self) -> int:
        """The last steps, which read sequences."""
        if self.objective == "mse":
            return 0
        return min(self.steps - 1, max(1, round(self.kl_share * self.steps)))

    @property
    def mse_steps(self) -> int:
        """The steps before those, which read single vectors."""
        return self.steps - self.kl_steps

    @property
    def tokens_to_harvest(self) -> int:
        """Those of the distinct tokens that are read as single vectors: the steps' share of them."""
        share = self.distinct_tokens * self.mse_steps // self.steps
        return max(self.batch_tokens, share) if self.kl_steps else self.distinct_tokens

    @property
    def sequences_each(self) -> int:
        """Sequences of a step that reads them: about as many tokens as of the others. Of resolved settings."""
        return max(1, round(self.batch_tokens / (self.context or 1)))

    def resolved(self, sae: SAE) -> Self:
        """These options with every default filled, from the SAE's config and its gate."""
        options = super().resolved(sae) if self.vectors is None else self._named_after(sae)
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
        if sae.transcodes and options.looks > 1:
            raise SettingsError(
                f"looks is {options.looks}, but a transcoder has no second look: what it leaves of y is of another"
                " place than what it reads",
                "give --looks 1",
            )
        if sae.transcodes and options.objective != "mse":
            raise SettingsError(
                f"objective is {options.objective}, which is not there for transcoders yet", "give --objective mse"
            )
        if options.type is None:
            paper = PAPER_RELU_TYPE if sae.gate.family == "relu" else PAPER_JUMP_TYPE
            chosen["type"] = paper if options.recipe == "paper" else DEFAULT_TYPE
        return options.model_copy(update=chosen)

    def _named_after(self, sae: SAE) -> Self:
        """With what the SAE's config calls its model and hook, which nothing opens."""
        meta = sae.metadata
        names = {"model": self.model or meta.model_name, "hook": self.hook or meta.hook_name}
        return self.model_copy(update={**names, "device": usable_device(self.device)})

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

    @model_validator(mode="before")
    @classmethod
    def _named_controls(cls, given: Any) -> Any:
        """`all` and `none` by name; what tells the looks' part from the gate's is among the default ones and all, and
        what a map on the teacher's output gains by the same objective is among its defaults."""
        if not isinstance(given, dict):
            return given
        looks = given.get("looks", 1) != 1
        if given.get("controls") == "all":
            return given | {"controls": tuple(name for name in get_args(Control) if name != "one_look" or looks)}
        if given.get("controls") == "none":
            return given | {"controls": ()}
        further = ("one_look",) * looks + ("adapted",) * (given.get("objective") == "mse+kl")
        if further and "controls" not in given:
            return given | {"controls": (*cls.model_fields["controls"].default, *further)}
        return given

    @model_validator(mode="before")
    @classmethod
    def _no_text(cls, given: Any) -> Any:
        return {"text": NO_TEXT} | given if isinstance(given, dict) and given.get("vectors") else given

    @model_validator(mode="after")
    def _without_a_model(self) -> Self:
        if self.vectors is None:
            return self
        if self.text != NO_TEXT:
            raise ValueError(f"text is {self.text}, and vectors are given in its place: give one of the two")
        for name in OF_A_MODEL:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of a language model, and vectors are given without one: leave it out")
        return self

    @model_validator(mode="after")
    def _of_this_gate(self) -> Self:
        if self.form == "safe_pade" and self.gate != "smooth":
            raise ValueError(f"form safe_pade is for gate smooth, not {self.gate}")
        if self.refit_decoder and not TRAINED[self.gate].exact_zeros:
            raise ValueError(f"refit_decoder is for gates with exact zeros, not {self.gate}")
        if self.looks > 1 and not TRAINED[self.gate].has_threshold:
            raise ValueError(f"looks is {self.looks}: more than one is for a gate with thresholds, not {self.gate}")
        if self.looks > 1 and self.refit_decoder:
            raise ValueError("refit_decoder is for one look: more looks read the decoder, so codes would change")
        if self.objective == "mse+kl" and self.steps < 2:
            raise ValueError("objective mse+kl begins with a step without KL: give 2 steps or more")
        if self.adapter_rank is not None and "adapted" not in self.controls:
            raise ValueError(f"adapter_rank is {self.adapter_rank}, but control adapted is not asked for")
        if self.looks == 1 and "one_look" in self.controls:
            raise ValueError("control one_look is for looks above 1: here it would be the RSAE again")
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


NEVER_STORED = tuple(name for name, field in Settings.model_fields.items() if field.exclude)
"""Options that only who runs a job says; they change no result."""

RECIPE_OPTIONS = (*PAPER, "type", "form", "lr_threshold", "lr_shape")
"""Options that a recipe sets."""


def completed(stored: dict[str, Any]) -> dict[str, Any]:
    """Stored settings with options that are newer than they are, each at its default, which is what was done then; and
    without options that are gone, where they were at theirs."""
    names = (
        "vectors",
        "recipe",
        "form",
        "refit_decoder",
        "positions",
        "looks",
        "objective",
        "kl_share",
        "adapter_rank",
        "least_effect",
        "probe_tasks",
        "probe_texts",
        "random",
        "chat",
        "chat_tokens",
        "also",
    )
    newer = {name: Settings.model_fields[name].default for name in names}
    newer |= {"jumprelu_revive": False, "jumprelu_input": False, "jumprelu_penalty": None, "pilot": False}
    kept = {name: value for name, value in stored.items() if name not in REMOVED or value != REMOVED[name]}
    return newer | kept if stored else stored


def read_settings(path: Path) -> dict[str, Any]:
    """What a settings.yaml holds, checked. Raises SettingsError with the place that is wrong."""
    remedy = "give the settings.yaml of a finished job"
    found = read_yaml(path, SettingsError, remedy)
    try:
        refuse_trust(found, str(path))
        return Settings.model_validate(without_removed(found, str(path))).model_dump(mode="json")
    except RecursionError as error:
        raise SettingsError(f"{path} holds itself", remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"{path}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}", remedy) from error
