"""Each stage of an upgrade alone, on residual vectors that you have: no file and no language model.

>>> start = calibrate(teacher, x)  # a rational gate that behaves like the teacher's  # doctest: +SKIP
>>> done = finetune(start.sae, x, steps=600)  # at the same L0  # doctest: +SKIP
>>> measure(done.sae, x_test, l0=measure(teacher, x_test).l0)  # doctest: +SKIP
Figures(fvu=0.17, l0=41.0)

`rational_sae.fit` is the stage before. x is [n, d_in], residual vectors as the model gives them, of any floating dtype
and on any device; SAEs are left as they are, and results are new ones in the teacher's own units. For a transcoder x is
[n, d_in + d_out], what is read and what is predicted side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from rational_sae.check.verify import reconstruction
from rational_sae.errors import SettingsError
from rational_sae.gates.transition import rectangle
from rational_sae.rational import Fit
from rational_sae.sae.match_l0 import can_match, shifted, solve_shift
from rational_sae.sae.model import SAE
from rational_sae.upgrading.settings import DEFAULT_TYPE, Settings
from rational_sae.upgrading.start.initialise import RELATIVE_GAP, canonical
from rational_sae.upgrading.start.rows import design
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.train.finetune import finetune as train

FEWEST_VECTORS = 64
"""Fewer do not fix a handful of coefficients, and leave none for validation (heuristic)."""

VALIDATION_SHARE, MOST_VALIDATION = 8, 8192
"""One vector in so many is for validation, where none is given: the last ones, because neighbours are alike."""

MOST_CALIBRATION = 8192
"""Training vectors, evenly spaced, that first weights and revived latents are computed on."""


@dataclass(frozen=True)
class Calibrated:
    """An SAE with a rational gate that behaves like the teacher's."""

    sae: SAE
    fit: Fit
    """The certified fit that the gate starts from, in t = h_j/s_j."""
    before: float
    """Root-mean-square error of the fitted gate against the teacher's over its pre-activations, in units of t."""
    after: float
    """The same once the shape was calibrated on x."""


@dataclass(frozen=True)
class Finetuned:
    """An SAE after training: the step that was best on validation."""

    sae: SAE
    kept_step: int
    """0: no step was better than the start."""
    steps: list[int]
    """At which it was validated."""
    fvu: list[float]
    """Of the validation vectors at each of them, at the L0 that was held."""


class Figures(NamedTuple):
    """How an SAE reconstructs."""

    fvu: float
    """Σ‖x − x̂‖² / Σ‖x − mean x‖² of what the SAE sees of x."""
    l0: float
    """Mean number of codes that are not 0."""


def calibrate(
    teacher: SAE, x: Tensor, *, degrees: tuple[int, int] = DEFAULT_TYPE, gate: str = "hard", seed: int = 0
) -> Calibrated:
    """Give a ReLU, JumpReLU or TopK SAE a rational gate fitted to its own, and refit the shape on its pre-activations.

    x: [n, d_in]. degrees: (q + 1, q) with q even. gate: `hard` cuts at a threshold for each latent, `smooth` nowhere,
    `topk` keeps a TopK's rule; under `hard` a TopK gets the one threshold of its mean L0, so its codes change.
    Raises SourceError if the SAE is rational already, SettingsError if x or an option cannot be used.

    >>> calibrate(teacher, x).sae.encode(x)  # [n, d_sae], nearly the teacher's  # doctest: +SKIP
    """
    x = _vectors(x, teacher)
    settings = _settings(type=degrees, gate=gate, seed=seed)
    sae, units = canonical(teacher, teacher.seen(x))
    _, start, found = design(sae, units.of(teacher.seen(x)), settings)
    return Calibrated(units.undo_(sae.with_gate(start.init)), start.fit, found.before, found.after)


def finetune(
    sae: SAE,
    x: Tensor,
    *,
    validation: Tensor | None = None,
    steps: int = 600,
    batch_tokens: int = 1024,
    l0: float | None = None,
    lr: float = 6e-4,
    lr_threshold: float = 3e-3,
    lr_shape: float = 3e-4,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _step: None,
) -> Finetuned:
    """Train a copy of an SAE of any family on x: [n, d_in], in random order, as often as the steps take.

    validation: [m, d_in], on which the best step is chosen and thresholds are set; default: the last eighth of x.
    l0: to hold; default: the SAE's own on validation. progress: told of each step. Train the teacher itself as long,
    with its own gate, to see what the rational one adds. Raises TrainingError if it keeps meeting NaN or infinity,
    SettingsError if x or an option cannot be used.

    >>> done = finetune(calibrate(teacher, x).sae, x, steps=600)  # doctest: +SKIP
    >>> control = finetune(teacher, x, steps=600)  # doctest: +SKIP
    """
    settings = _settings(
        steps=steps, batch_tokens=batch_tokens, target_l0=l0,
        lr=lr, lr_threshold=lr_threshold, lr_shape=lr_shape, seed=seed,
    )  # fmt: skip
    x = _vectors(x, sae)
    if validation is None:
        count = min(MOST_VALIDATION, len(x) // VALIDATION_SHARE)
        x, validation = x[:-count], x[-count:]
    validation = _vectors(validation, sae, fewest=1)
    sample = sae.seen(x[:: -(-len(x) // MOST_CALIBRATION)])
    held = l0 or reconstruction(sae, validation)[1]
    own, units = canonical(sae, sample)
    _give_threshold_a_gradient(own)
    candidate = Candidate("sae", own, settings, units.of(sample), held)
    seen = units.of(sae.seen(validation))
    batches = (units.of(sae.seen(part)) for part in _batches(x, batch_tokens, seed))
    train([candidate], batches, seen, steps, progress=progress)
    trained = candidate.finish_at_l0(seen)
    curve: Any = candidate.validation
    return Finetuned(units.undo_(trained), candidate.kept_step, list(curve["step"]), list(curve["fvu"]))


def measure(sae: SAE, x: Tensor, *, l0: float | None = None) -> Figures:
    """FVU and L0 over x: [n, d_in].

    l0: measure at this L0 instead of the SAE's own, with all thresholds moved by one amount; a TopK stands at its k.

    >>> base = measure(teacher, x)  # doctest: +SKIP
    >>> measure(done.sae, x, l0=base.l0).fvu < base.fvu  # like for like  # doctest: +SKIP
    """
    x = _vectors(x, sae, fewest=2)
    if l0 is None or not can_match(sae):
        return Figures(*reconstruction(sae, x))
    with shifted(sae, solve_shift(sae, x, l0)):
        return Figures(*reconstruction(sae, x))


def _settings(**given: Any) -> Settings:
    try:
        return Settings(teacher="in memory", **given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"{'.'.join(map(str, first['loc'])) or 'options'}: {first['msg']}") from error


def _vectors(x: Tensor, sae: SAE, *, fewest: int = FEWEST_VECTORS) -> Tensor:
    """[n, d_in] float32 on the SAE's device. Raises SettingsError if they cannot be its residual vectors."""
    if x.dim() != 2 or x.shape[1] != sae.row_width or len(x) < fewest:
        shape = "x and y side by side: [n, d_in + d_out]" if sae.transcodes else "x: [n, d_in]"
        raise SettingsError(
            f"x is {list(x.shape)}, but this SAE reads at least {fewest} vectors of {sae.row_width}", f"give {shape}"
        )
    x = x.detach().to(sae.device, torch.float32)
    if not bool(x.isfinite().all()):
        raise SettingsError("x holds NaN or infinity", "leave such vectors out")
    return x


def _give_threshold_a_gradient(sae: SAE) -> None:
    """A JumpReLU's thresholds get the straight-through estimator's band, of the width that controls have."""
    gate: Any = sae.gate
    if sae.gate.family == "jumprelu":
        threshold = gate.threshold.detach()
        gate.transition = rectangle(RELATIVE_GAP * threshold.clamp_min(1e-3 * float(threshold.mean()) + 1e-6))


def _batches(x: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Batches [size, d_in] of x, each pass in a new order, without end."""
    rng, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(len(x), generator=rng)])
        taken, order = order[:size], order[size:]
        yield x[taken.to(x.device)]
