"""One SAE under fine-tuning: a step, its validation, and what a checkpoint keeps of it.

The RSAE, `identity` and the controls are all candidates and are treated alike; they differ in their gate alone.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from rational_sae.gates.hard import SUPPORT_POINTS
from rational_sae.sae.candidates import follow_
from rational_sae.sae.match_l0 import CHUNK, can_match, can_shift, shifted, solve_shift
from rational_sae.sae.model import SAE
from rational_sae.sae.refit_decoder import refit_decoder_
from rational_sae.sae.sparse import reconstruct, sparse_pays
from rational_sae.support import distributed
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.adapted import folded_
from rational_sae.upgrading.train.controller import SparsityController
from rational_sae.upgrading.train.curve import Curve
from rational_sae.upgrading.train.objective import Objective
from rational_sae.upgrading.train.optimiser import Optimiser, under
from rational_sae.upgrading.train.predictions import Pull
from rational_sae.upgrading.train.silence import Silence, firing

COUNT_EVERY, COUNT_TOKENS = 10, 256
"""Steps after which, and tokens on which, candidates of further looks are counted: 3 % of the encoder's products."""

JUMPRELU = "control_jumprelu"
"""The row that has settings of its own."""


class Candidate:
    """An SAE that is fine-tuned at a target L0."""

    def __init__(self, name: str, sae: SAE, settings: Settings, x: Tensor, target_l0: float, rate: float = 1.0) -> None:
        """sae: in canonical units; x: [n, d_in] calibration activations, also canonical; rate: factor on all learning
        rates."""
        self.name, self.sae, self.target_l0, self.settings = name, sae, target_l0, settings
        self.calibration_x = x
        self.sparse = sparse_pays(sae, x[:CHUNK])
        self.optimiser = Optimiser(sae, settings, rate)
        wanted = sae.target(x)
        variance = float((wanted - wanted.mean(0)).pow(2).sum(-1).mean())
        penalty = settings.jumprelu_penalty if name == JUMPRELU else None
        self.objective = Objective(sae, target_l0, variance, penalty or settings.penalty, self.sparse)
        self.controller = SparsityController(target_l0, self.objective.first_weight(x[:CHUNK]))
        known = sae.gate.family == "rational" or (name == JUMPRELU and settings.jumprelu_revive)
        self.silence = Silence(sae, settings, target_l0, revives=settings.revive and sae.gate.has_threshold and known)
        self.curve = Curve()
        self.validation: dict[str, list[float]] = {"step": [], "fvu": [], "l0": []}
        """And `kl`, where the objective has it."""
        self.best_score = float("inf")
        """FVU of the kept step on validation; √(FVU·KL) where the objective has KL."""
        self.kept_step = 0
        self.best: dict[str, Tensor] = {}
        self.kept_revived = self.silence.revived
        """[m]: revived latents that the kept step has."""

    @property
    def shifts(self) -> bool:
        """Whether thresholds are moved to hold the L0 while it is trained; not where codes stay as they are."""
        return can_shift(self.sae) and self.settings.hold_l0 and not self.fixed_codes

    @property
    def fixed_codes(self) -> bool:
        """Whether training leaves all codes as they are, and the decoder is the teacher's but for a map."""
        return not self.sae.W_enc.requires_grad

    @property
    def skipped(self) -> int:
        """Steps that were not taken because something was NaN or infinite."""
        return len(self.curve.skipped)

    def step(self, x: Tensor, fraction: float, number: int, pull: Pull | None = None) -> None:
        """One fine-tuning step. x: [n, d_in], the same in every process; fraction: of the learning rate, from the
        common schedule; pull: of predictions, in steps over sequences.

        If activations, loss or gradients are NaN or infinite nothing changes, and the step is noted as skipped.
        """
        if not all(bool(extreme.isfinite()) for extreme in x.aminmax()):  # NaN is both, and one pass finds it
            return self.curve.skip(number, "activations")
        weight = self.controller.weight if self.settings.hold_l0 else self.controller.start
        own, share = distributed.part(x) if pull is None else (x[pull.rows], len(x[pull.rows]) / len(x))
        found = reconstruct(self.sae, own, sparse=self.sparse)
        own_error = share * (self.sae.target(own) - found.x_hat).pow(2).sum(-1).mean()
        penalty, kl = weight * share * self.objective.penalty(found, len(own)), None
        if pull is None:
            loss = own_error / self.objective.variance + penalty
        else:
            error, kl = distributed.totals(own_error, torch.tensor(pull.kl))
            loss = self.objective.with_predictions(own_error, error, kl, found.x_hat, pull) + penalty
        error, l0, whole_loss = distributed.totals(own_error, share * found.l0, loss)
        if not math.isfinite(whole_loss):
            return self.curve.skip(number, "loss")
        fired = firing(found) if self.silence.watches(number) else None
        del found  # dense codes are [n, d_sae]: only the graph holds them, until the decoder's gradient is there
        if not self._descend(loss, fraction):
            return self.curve.skip(number, "gradients")
        self.sae.project_()
        if self.sae.looks is not None:
            follow_(self.sae, x[:COUNT_TOKENS] if number % COUNT_EVERY == 0 else None, self.target_l0)
        if self.controller.update(l0) and self.shifts:
            self._meet_l0(x)
        if fired is not None:
            self.silence.heard(fired)
            if self.silence.due(number):
                self._revive()
        self.curve.add(number, error, l0, weight, kl)

    def _descend(self, loss: Tensor, fraction: float) -> bool:
        """One step down a loss that all processes share; False, and nothing done, if a gradient is not finite."""
        self.optimiser.zero()
        loss.backward()
        self.optimiser.take_encoder_gradient()
        distributed.add_gradients_(self.optimiser.parameters)
        return self.optimiser.step(fraction)

    def _meet_l0(self, x: Tensor) -> None:
        self.sae.gate.shift_(solve_shift(self.sae, x, self.target_l0))
        self.controller.reset()

    def _revive(self) -> None:
        """Give silent latents a new direction, and no memory of their own in the optimiser."""
        new = self.silence.revive(self.calibration_x)
        self.optimiser.forget(new)
        if len(new) and self.shifts:
            self._meet_l0(self.calibration_x)

    @torch.no_grad()
    def reconstruction(self, x: Tensor) -> Tensor:
        """x̂ as it is now: [n, d_in] of x: [n, d_in]."""
        return reconstruct(self.sae, x, sparse=self.sparse).x_hat

    @contextlib.contextmanager
    def _at_target(self, x: Tensor) -> Iterator[None]:
        """While open, thresholds are where they give the target L0 on x: [n, d_in], if they may move."""
        moves = can_match(self.sae) and not self.fixed_codes
        shift = solve_shift(self.sae, x, self.target_l0) if moves else 0.0
        with shifted(self.sae, shift), torch.no_grad():
            self.sae.project_()  # thresholds may have been moved to where the shape is not positive
            yield

    def validated(self, x: Tensor, wanted: Tensor) -> Tensor:
        """x̂ of wanted: [m, d_in] at the L0 that `validate` measures at on x: [n, d_in]."""
        with self._at_target(x):
            return self.reconstruction(wanted)

    def validate(self, x: Tensor, number: int, kl: float | None = None) -> None:
        """Keep this step if it is the best so far: FVU on x, with thresholds moved to the target L0, or √(FVU·KL)."""
        with self._at_target(x):
            squared, active = 0.0, 0
            for part in x.split(CHUNK):
                found = reconstruct(self.sae, part, sparse=self.sparse)
                squared += float((self.sae.target(part) - found.x_hat).pow(2).sum(dtype=torch.float64))
                active += int((found.code != 0).sum())
            wanted = self.sae.target(x)
            fvu = squared / float((wanted - wanted.mean(0)).pow(2).sum(dtype=torch.float64))
            found = {"step": number, "fvu": fvu, "l0": active / len(x)} | ({} if kl is None else {"kl": kl})
            for key, value in found.items():
                self.validation.setdefault(key, []).append(value)
            score = fvu if kl is None else (fvu * kl) ** 0.5
            if score < self.best_score:
                self.best_score, self.kept_step, self.kept_revived = score, number, self.silence.revived
                self.best = copy.deepcopy(self.sae.state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training changes, for a checkpoint: tensors, and what fits in JSON."""
        tensors = {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimiser.state().items()}
        tensors["silent"] = self.silence.silent
        tensors["revived"] = self.silence.revived
        tensors["kept_revived"] = self.kept_revived.clone()  # often the same tensor, and a file holds each once
        tensors |= self.sae.gate.state_beside()
        numbers = {
            "controller": asdict(self.controller),
            "curve": asdict(self.curve),
            "validation": self.validation,
            "best_score": self.best_score,
            "kept_step": self.kept_step,
        }
        return tensors, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go back to a `state()`, to the bit. The candidate must have been built from the same inputs."""
        here = self.sae.state_dict()
        self.sae.load_state_dict({name: tensors[f"sae.{name}"] for name in here})
        self.optimiser.restore(under(tensors, "optimizer."))
        self.silence.silent = torch.empty_like(self.silence.silent).copy_(tensors["silent"])
        self.silence.revived, self.kept_revived = tensors["revived"], tensors["kept_revived"]
        self.sae.gate.restore_beside_(tensors)
        self.best = {name: torch.empty_like(here[name]).copy_(value) for name, value in under(tensors, "best.").items()}
        for name, value in numbers["controller"].items():
            setattr(self.controller, name, value)
        self.curve = Curve(**numbers["curve"])
        self.validation = numbers["validation"]
        score = "best_score" if "best_score" in numbers else "best_fvu"  # of versions that knew no other
        self.best_score, self.kept_step = numbers[score], numbers["kept_step"]

    def finish(self) -> SAE:
        """The SAE of the best step, thresholds as they were there."""
        self.sae.load_state_dict(self.best)
        self.sae.gate.settle_()
        self.optimiser.forget_all()
        return folded_(self.sae)

    def finish_at_l0(self, validation: Tensor) -> SAE:
        """The same with thresholds solved for the L0 that is held, on validation: [n, d_in], and safe to save."""
        sae = self.finish()
        if can_shift(sae) and not self.fixed_codes:
            sae.gate.shift_(solve_shift(sae, validation, self.target_l0))
        sae.project_(SUPPORT_POINTS)
        return sae

    def refit_decoder(self, x: Tensor, validation: Tensor) -> None:
        """Fit the kept step's decoder again. x, validation: [n, d_in], in canonical units."""
        if self.fixed_codes:
            return
        refit_decoder_(self.finish(), x, validation)
        self.best = copy.deepcopy(self.sae.state_dict())
