"""One SAE under fine-tuning: its penalty, parameter groups, controller and best step.

The RSAE, `identity` and the controls are all candidates and are treated alike; they differ in their gate, and in the
penalty that can move it: the gate's own L0 where a threshold has a gradient, ‖z‖₁ weighted by decoder norms
where there is none (ReLU and smooth gates), nothing for a TopK.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from rational_sae.gates.gate import RationalGate, ThresholdGate
from rational_sae.sae.match_l0 import CHUNK, can_match, can_shift, shifted, solve_shift
from rational_sae.sae.model import SAE
from rational_sae.sae.refit_decoder import refit_decoder_
from rational_sae.sae.sparse import Reconstruction, reconstruct, sparse_pays
from rational_sae.support import distributed
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.train.controller import SparsityController
from rational_sae.upgrading.train.revive import LATEST, revive_, revive_every

CLIP_WEIGHTS, CLIP_SHAPE = 1.0, 0.1
"""Largest gradient norm of a group. Apart, or the coefficients' gradient vanishes under the weights'."""

MIN_WEIGHT = 2e-2
"""Smallest first λ: a gate that starts at its own optimum has an estimate of 0."""


@dataclass
class Curve:
    """What is logged of one candidate."""

    step: list[int] = field(default_factory=list)
    mse: list[float] = field(default_factory=list)
    l0: list[float] = field(default_factory=list)
    sparsity_weight: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    """Steps that were not taken."""
    reason: list[str] = field(default_factory=list)
    """What of each was NaN or infinite: activations, loss or gradients."""


class Candidate:
    """An SAE that is fine-tuned at a target L0."""

    def __init__(self, name: str, sae: SAE, settings: Settings, x: Tensor, target_l0: float, rate: float = 1.0) -> None:
        """sae: in canonical units; x: [n, d_in] calibration activations, also canonical; rate: factor on all learning
        rates."""
        self.name, self.sae, self.target_l0, self.settings = name, sae, target_l0, settings
        self.calibration_x = x
        self.variance = float((x - x.mean(0)).pow(2).sum(-1).mean())
        self.sparse = sparse_pays(sae, x[:CHUNK])
        self.W_enc = sae.W_enc.detach().T.requires_grad_()
        """[d_sae, d_in], the encoder's own memory as it lies there: of a transposed parameter Adam makes a copy."""
        self.groups = _groups(sae, self.W_enc, settings)
        self.optimizer = torch.optim.Adam(
            [{"params": p, "lr": lr} for p, lr, _ in self.groups], betas=(0.9, 0.99), fused=True
        )
        self.rates = [rate * lr for _, lr, _ in self.groups]
        has_thresholds = isinstance(sae.gate, ThresholdGate) or _is_hard(sae)
        self.uses_l1 = sae.gate.elementwise and (settings.penalty == "l1" or not has_thresholds)
        self.controller = SparsityController(target_l0, self._first_weight(x[:CHUNK]))
        self.curve = Curve()
        self.validation: dict[str, list[float]] = {"step": [], "fvu": [], "l0": []}
        self.best_fvu = float("inf")
        self.kept_step = 0
        self.best: dict[str, Tensor] = {}
        self.silent = torch.ones(sae.d_sae, dtype=torch.bool, device=x.device)
        """[d_sae]: has not fired since the latest revival."""
        self.revived = torch.empty(0, dtype=torch.int64)
        """[m]: latents that were given a new direction so far."""
        self.kept_revived = self.revived
        """[m]: those of them that the kept step has."""
        revives = settings.revive and _is_hard(sae)
        every = revive_every(settings.steps, settings.batch_tokens, sae.d_sae, target_l0)
        self.revive_every = every if revives else None

    @property
    def skipped(self) -> int:
        """Steps that were not taken because something was NaN or infinite."""
        return len(self.curve.skipped)

    def step(self, x: Tensor, fraction: float, number: int) -> None:
        """One fine-tuning step. x: [n, d_in], the same in every process; fraction: of the learning rate, from the
        common schedule.

        If activations, loss or gradients are NaN or infinite nothing changes, and the step is noted as skipped.
        """
        if not all(bool(extreme.isfinite()) for extreme in x.aminmax()):  # NaN is both, and one pass finds it
            return self._skip(number, "activations")
        own, share = distributed.part(x)
        found = reconstruct(self.sae, own, sparse=self.sparse)
        own_error = share * (own - found.x_hat).pow(2).sum(-1).mean()
        weight = self.controller.weight if self.settings.hold_l0 else self.controller.start
        loss = own_error / self.variance + weight * share * self._penalty(found, len(own))
        error, l0, whole_loss = distributed.totals(own_error, share * found.l0, loss)
        if not math.isfinite(whole_loss):
            return self._skip(number, "loss")
        watched = self.revive_every is not None and number <= LATEST * self.settings.steps
        fired = _fired(found) if watched else None
        del found  # dense codes are [n, d_sae]: only the graph holds them, until the decoder's gradient is there
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.sae.W_enc.grad is not None:
            self.W_enc.grad, self.sae.W_enc.grad = self.sae.W_enc.grad.T, None
        distributed.add_gradients_(self._parameters())
        gate = self.sae.gate
        if not self._clip():
            return self._skip(number, "gradients")
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * fraction
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # not held while the other candidates step
        if isinstance(gate, RationalGate):
            gate.project_()
        if self.controller.update(l0) and can_shift(self.sae) and self.settings.hold_l0:
            self._meet_l0(x)
        if self.revive_every and fired is not None:
            self.silent[fired] = False
            if number % self.revive_every == 0:
                self._revive()
        self._log(number, error, l0, weight)

    def _meet_l0(self, x: Tensor) -> None:
        self.sae.gate.shift_(solve_shift(self.sae, x, self.target_l0))
        self.controller.reset()

    def _revive(self) -> None:
        """Give latents that were silent since the last time a new direction, and no memory of their own in the
        optimiser."""
        self.silent = distributed.all_agree(self.silent)
        dead = self.silent.nonzero()[:, 0]
        self.silent.fill_(True)
        new = revive_(self.sae, dead, self.calibration_x, self.target_l0, self.settings.seed + len(self.revived))
        self.revived = torch.cat([self.revived, new.cpu()]).unique()
        for parameter in self._parameters():
            for moment in self.optimizer.state.get(parameter, {}).values():
                if moment.shape == parameter.shape and self.sae.d_sae in moment.shape:
                    moment.index_fill_(moment.shape.index(self.sae.d_sae), new, 0.0)
        if len(new) and self.settings.hold_l0:
            self._meet_l0(self.calibration_x)

    def validate(self, x: Tensor, number: int) -> None:
        """Keep this step if it is the best so far: FVU on x, with thresholds moved to the target L0."""
        shift = solve_shift(self.sae, x, self.target_l0) if can_match(self.sae) else 0.0
        with shifted(self.sae, shift), torch.no_grad():
            if isinstance(self.sae.gate, RationalGate):
                self.sae.gate.project_()  # thresholds may have been moved to where the shape is not positive
            squared, active = 0.0, 0
            for part in x.split(CHUNK):
                found = reconstruct(self.sae, part, sparse=self.sparse)
                squared += float((part - found.x_hat).pow(2).sum(dtype=torch.float64))
                active += int((found.code != 0).sum())
            fvu = squared / float((x - x.mean(0)).pow(2).sum(dtype=torch.float64))
            for key, value in {"step": number, "fvu": fvu, "l0": active / len(x)}.items():
                self.validation[key].append(value)
            if fvu < self.best_fvu:
                self.best_fvu, self.kept_step, self.kept_revived = fvu, number, self.revived
                self.best = copy.deepcopy(self.sae.state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training changes, for a checkpoint: tensors, and what fits in JSON."""
        tensors = {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for number, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{number}.{name}"] = value
        tensors["silent"] = self.silent
        tensors["revived"] = self.revived
        tensors["kept_revived"] = self.kept_revived.clone()  # often the same tensor, and a file holds each once
        if isinstance(self.sae.gate, ThresholdGate | RationalGate):
            tensors["half_width"] = self.sae.gate.transition.half_width.clone()  # gates may share theirs
        numbers = {
            "controller": asdict(self.controller),
            "curve": asdict(self.curve),
            "validation": self.validation,
            "best_fvu": self.best_fvu,
            "kept_step": self.kept_step,
        }
        return tensors, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go back to a `state()`, to the bit. The candidate must have been built from the same inputs."""
        here = self.sae.state_dict()
        self.sae.load_state_dict({name: tensors[f"sae.{name}"] for name in here})
        for number, parameter in enumerate(self._parameters()):
            start = f"optimizer.{number}."
            kept = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
            if kept:
                self.optimizer.state[parameter] = {
                    name: torch.empty_like(like, device=parameter.device).copy_(value)
                    for name, value in kept.items()
                    for like in [parameter if value.shape == parameter.shape else value]
                }
        self.silent = torch.empty_like(self.silent).copy_(tensors["silent"])
        self.revived, self.kept_revived = tensors["revived"], tensors["kept_revived"]
        gate = self.sae.gate
        if isinstance(gate, ThresholdGate | RationalGate):
            width = torch.empty_like(gate.transition.half_width).copy_(tensors["half_width"])
            gate.transition = replace(gate.transition, half_width=width)
        best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        self.best = {name: torch.empty_like(here[name]).copy_(value) for name, value in best.items()}
        for name, value in numbers["controller"].items():
            setattr(self.controller, name, value)
        self.curve = Curve(**numbers["curve"])
        self.validation = numbers["validation"]
        self.best_fvu, self.kept_step = numbers["best_fvu"], numbers["kept_step"]

    def _parameters(self) -> list[Tensor]:
        return [parameter for parameters, _, _ in self.groups for parameter in parameters]

    def finish(self) -> SAE:
        """The SAE of the best step, thresholds solved on validation."""
        self.sae.load_state_dict(self.best)
        gate = self.sae.gate
        if isinstance(gate, RationalGate) and gate.mode == "smooth":
            gate.cut.zero_()  # it was for validation at the target L0
        self.optimizer.state.clear()
        return self.sae

    def refit_decoder(self, x: Tensor, validation: Tensor) -> None:
        """Fit the kept step's decoder again. x, validation: [n, d_in], in canonical units."""
        self.best_fvu = refit_decoder_(self.finish(), x, validation)
        self.best = copy.deepcopy(self.sae.state_dict())

    def _penalty(self, found: Reconstruction, tokens: int) -> Tensor:
        if self.uses_l1:
            return self._l1(found, tokens)
        return found.l0 / self.target_l0 if found.l0.requires_grad else torch.zeros((), device=found.l0.device)

    def _l1(self, found: Reconstruction, tokens: int) -> Tensor:
        """‖z‖₁ weighted by decoder norms, mean over tokens, relative to √variance."""
        norm = self.sae.W_dec.norm(dim=-1)
        size = found.code.abs()
        total = size.sum(0) @ norm if size.dim() > 1 else size @ norm[found.latent]
        return total / (tokens * self.variance**0.5)

    def _first_weight(self, x: Tensor) -> float:
        """λ at which the teacher is stationary along the direction that sparsity moves: the Lagrange multiplier of L0.

        For ‖z‖₁ the direction is the scale of z; for thresholds it is the common shift.
        """
        found = reconstruct(self.sae, x, sparse=self.sparse)
        rest = x - found.x_hat
        estimate = 0.0
        if self.uses_l1:
            state = self.sae.normalise(x)[1]
            scaled = found.x_hat - self.sae.decode(x.new_zeros(1, self.sae.d_sae), state)
            gain = -2 * float((rest * scaled).sum(-1).mean().detach()) / self.variance
            estimate = -gain / float(self._l1(found, len(x)).detach())
        elif found.l0.requires_grad:
            (rest.pow(2).sum(-1).mean() / self.variance).backward(retain_graph=True)
            gain = _threshold_slope(self.sae)
            self.sae.zero_grad(set_to_none=True)
            (found.l0 / self.target_l0).backward()
            estimate = -gain / min(-1e-12, _threshold_slope(self.sae))
            self.sae.zero_grad(set_to_none=True)
        return max(MIN_WEIGHT, estimate)

    def _clip(self) -> bool:
        """Clip each group's gradient; False, and nothing done, if one is not finite."""
        gradients = [[p.grad for p in parameters if p.grad is not None] for parameters, _, _ in self.groups]
        norms = [nn.utils.get_total_norm(group) for group in gradients]
        if not all(bool(torch.isfinite(norm)) for norm in norms):
            return False
        for (parameters, _, clip), norm in zip(self.groups, norms, strict=True):
            if float(norm) > clip:  # a pass over all gradients, and mostly for nothing
                nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        return True

    def _skip(self, number: int, reason: str) -> None:
        self.curve.skipped.append(number)
        self.curve.reason.append(reason)

    def _log(self, number: int, error: float, l0: float, weight: float) -> None:
        self.curve.step.append(number)
        self.curve.mse.append(error)
        self.curve.l0.append(l0)
        self.curve.sparsity_weight.append(weight)


def _fired(found: Reconstruction) -> Tensor:
    """An index of the latents that fire in a batch."""
    fires = found.code != 0
    return fires.any(0) if fires.dim() > 1 else found.latent[fires]


def _is_hard(sae: SAE) -> bool:
    return isinstance(sae.gate, RationalGate) and sae.gate.mode == "hard"


def _groups(sae: SAE, W_enc: Tensor, settings: Settings) -> list[tuple[list[Tensor], float, float]]:
    """(parameters, learning rate, clip): the weights, the thresholds and scales, the shape."""
    groups: list[tuple[list[Tensor], float, float]] = [
        ([W_enc, sae.b_enc, sae.W_dec, sae.b_dec], settings.lr, CLIP_WEIGHTS)
    ]
    gate = sae.gate
    if isinstance(gate, ThresholdGate):
        groups.append(([gate.threshold], settings.lr_threshold, CLIP_WEIGHTS))
    if isinstance(gate, RationalGate):
        thresholds = [gate.threshold] if gate.mode == "hard" else []
        groups.append(([*thresholds, gate.log_scale], settings.lr_threshold, CLIP_WEIGHTS))
        groups.append(([gate.shape, gate.log_gain], settings.lr_shape, CLIP_SHAPE))
    return groups


def _threshold_slope(sae: SAE) -> float:
    """Derivative along the common threshold shift, from the gradient that is now in place."""
    gate = sae.gate
    assert isinstance(gate, ThresholdGate | RationalGate)
    unit = gate.scale.detach() if isinstance(gate, RationalGate) else gate.threshold.detach()
    gradient = gate.threshold.grad
    return 0.0 if gradient is None else float((gradient * unit).sum())
