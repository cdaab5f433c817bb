"""What each choice in further looks is worth: one at a time, on one teacher, by FVU at the teacher's L0.

    python benchmarks/looks.py demo/teachers/topk --out docs/data/looks-topk.json

The default has two looks. All variants share a harvest and see the same batches; each is measured on the same test
tokens with its thresholds moved to the teacher's L0 there. A variant within 1 % of the default is run with two more
seeds of the data order. Beside them: `one look`, `identity` and the native control, trained as long. About a quarter
of an hour on one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from ablation import CLOSE, MORE_SEEDS, figures
from torch import Tensor, nn

from rational_sae.evaluation import mean_l0
from rational_sae.evaluation.pursuit import PursuedSAE, same_for_all
from rational_sae.formats import load
from rational_sae.kernels import LINEAR, linear_basis
from rational_sae.kernels.selection import where_above
from rational_sae.rational import PartialFractions
from rational_sae.sae import candidates as sae_candidates
from rational_sae.sae.candidates import EDGE
from rational_sae.sae.entries import Decode, Dots, Entries
from rational_sae.sae.looks import Look, Looks
from rational_sae.sae.model import SAE
from rational_sae.upgrading.harvest import Harvest, harvest
from rational_sae.upgrading.prepare import Prepared, prepare
from rational_sae.upgrading.rows import as_candidates
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start import looks as starts
from rational_sae.upgrading.start.rows import starting_saes

USUAL = sae_candidates.CANDIDATES
STEPS, TRAIN_TOKENS, EVAL_TOKENS = 300, 300_000, 8192
CHUNK = 512


@dataclass(frozen=True)
class Variant:
    """How one differs from the default."""

    settings: dict[str, Any] = field(default_factory=dict)
    candidates: float = USUAL
    looks: Callable[[Prepared, Settings], Looks] = lambda prepared, _settings: prepared.looks.rational  # type: ignore[union-attr]


def degrees(p: int, q: int) -> Callable[[Prepared, Settings], Looks]:
    return lambda prepared, settings: (
        starts.designed_looks(_under_gate(prepared), prepared.x, settings.looks, prepared.target_l0, (p, q)).looks
    )


def hard_rational(prepared: Prepared, settings: Settings) -> Looks:
    """The gate's own shape behind a hard cut."""
    shape = prepared.hard.init.coefficients
    assert isinstance(shape, PartialFractions)

    def designs() -> Any:
        yield from (Look(shape, 0.0, cut=cut * EDGE) for cut in starts.CUTS)

    x = prepared.x[: starts.TRIED_ON]
    return starts.best_of(_under_gate(prepared), x, settings.looks, prepared.target_l0, designs).looks


def line(prepared: Prepared, settings: Settings) -> Looks:
    """r(t) = t behind a hard cut, under the rational gate."""
    return starts.hard_looks(_under_gate(prepared), prepared.x, settings.looks, prepared.target_l0).looks


def fixed_alpha(prepared: Prepared, _settings: Settings) -> Looks:
    looks = copy.deepcopy(prepared.looks.rational)  # type: ignore[union-attr]
    for look in looks:
        look.alpha.data.fill_(0.5)
        look.alpha.requires_grad_(False)
    return looks


def frozen_shape(prepared: Prepared, _settings: Settings) -> Looks:
    looks = copy.deepcopy(prepared.looks.rational)  # type: ignore[union-attr]
    for look in looks:
        look.shape.requires_grad_(False)
    return looks


class LatentLooks(Looks):
    """With an α for each latent."""

    def listed(self, value: Tensor, entries: Entries, rest: Tensor, W_enc: Tensor, W_dec: Tensor) -> Tensor:
        own = self.unit[entries.latent]
        for look in self:
            left = rest - Decode.apply(look.estimate(value, own), entries, W_dec)
            value = value + look.alpha[entries.latent] * Dots.apply(left, W_enc, entries)
        return value


def alpha_of_each_latent(prepared: Prepared, _settings: Settings) -> Looks:
    looks = copy.deepcopy(prepared.looks.rational)  # type: ignore[union-attr]
    for look in looks:
        look.alpha = nn.Parameter(look.alpha.detach().expand(prepared.sae.d_sae).clone())
    return LatentLooks(list(looks), float(looks.floor), looks.unit, looks.least)


def closed_form(wanted: str) -> Callable[[Prepared, Settings], Looks]:
    """The shape by least squares with the designed poles: of x by ẑ W_dec, or of pursuit's codes, which is E[z | h₀]
    among these functions."""

    @torch.no_grad()
    def looks_of(prepared: Prepared, settings: Settings) -> Looks:
        looks = copy.deepcopy(prepared.looks.rational)  # type: ignore[union-attr]
        sae, x = _under_gate(prepared), prepared.x[: starts.TRIED_ON]
        (look,) = looks
        count = LINEAR + (look.shape.numel() - LINEAR) // 2
        gram, right = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        codes = PursuedSAE(sae, same_for_all(round(prepared.target_l0)))
        for part in x.split(CHUNK):
            h = sae.preactivations(part)
            entries = Entries(where_above(h, looks.level), h.shape)
            own = looks.unit[entries.latent]
            basis = linear_basis(h.flatten()[entries.places] / own, look.shape) * own
            if wanted == "codes":
                goal = codes.encode(part).flatten()[entries.places]
            else:
                basis = torch.stack([entries.product(one, sae.W_dec) for one in basis]).flatten(1)
                goal = (sae.normalise(part)[0] - sae.b_dec).flatten()
            gram += (basis @ basis.T).double()
            right += (basis @ goal).double()
        gram += 1e-9 * gram.diagonal().mean() * torch.eye(count, dtype=torch.float64)
        look.shape[:count] = torch.linalg.solve(gram, right).float()
        looks.project_()
        tried = []
        for alpha in starts.STEPS:
            look.alpha.fill_(alpha)
            again = sae.with_gate(copy.deepcopy(sae.gate), copy.deepcopy(looks))
            tried.append((starts.untrained_fvu(again, x, prepared.target_l0), alpha))
        look.alpha.fill_(min(tried)[1])
        return looks

    return looks_of


def _under_gate(prepared: Prepared) -> SAE:
    return prepared.sae.with_gate(copy.deepcopy(prepared.hard.init))


VARIANTS = {
    "default": Variant(),
    "three looks": Variant({"looks": 3}),
    "first look (3,2)": Variant(looks=degrees(3, 2)),
    "first look (5,4)": Variant(looks=degrees(5, 4)),
    "first look (9,8)": Variant(looks=degrees(9, 8)),
    "first look hard rational": Variant(looks=hard_rational),
    "first look hard line": Variant(looks=line),
    "candidates 1.5": Variant(candidates=1.5),
    "candidates 2": Variant(candidates=2.0),
    "candidates 4": Variant(candidates=4.0),
    "candidates 8": Variant(candidates=8.0),
    "alpha .5, fixed": Variant(looks=fixed_alpha),
    "alpha of each latent": Variant(looks=alpha_of_each_latent),
    "first look frozen": Variant(looks=frozen_shape),
    "first look least squares of x": Variant(looks=closed_form("x")),
    "first look least squares of codes": Variant(looks=closed_form("codes")),
    "free first look, lr 3e-3": Variant({"lr_shape": 3e-3}),
    "no calibration": Variant({"calibrate": "none"}),
}
CONTROLS = ("identity", "one_look", "native")


def run(
    chosen: dict[str, Variant], base: Settings, teacher: SAE, shared: Harvest, test: Tensor
) -> dict[str, dict[str, float]]:
    """variant → FVU at the teacher's L0 and more, on test tokens."""
    found: dict[str, dict[str, float]] = {}
    target_l0, usually = mean_l0(teacher, test), None
    for name, variant in chosen.items():
        torch.manual_seed(base.seed)
        settings = base.model_copy(update=variant.settings)
        sae_candidates.CANDIDATES = variant.candidates
        if variant.settings or variant.candidates != USUAL or usually is None:
            prepared = prepare(settings, teacher, shared)
        else:
            prepared = copy.deepcopy(usually)
        usually = usually or copy.deepcopy(prepared)  # of the default, which comes first
        assert prepared.looks is not None
        prepared = replace(prepared, looks=replace(prepared.looks, rational=variant.looks(prepared, settings)))
        saes = starting_saes(prepared.sae, prepared.hard, settings, prepared.looks)
        if name != "default":
            saes = {"rsae": saes["rsae"]}
        begun = {
            row: starts.untrained_fvu(copy.deepcopy(sae), prepared.validation[:2048], prepared.target_l0)
            for row, sae in saes.items()
            if sae.looks is not None
        }
        candidates = as_candidates(saes, prepared, settings)
        found |= figures(name, candidates, prepared, shared, settings, test, target_l0)
        for row, candidate in candidates.items():
            one = found.get(name if row == "rsae" else row)
            if one is None or "failed" in one or candidate.sae.looks is None:
                continue
            one["start"] = begun[row]
            one["alpha"] = statistics.mean(float(look.alpha.detach().mean()) for look in candidate.sae.looks)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates")
    parser.add_argument("--only", nargs="*", help="of the variants, beside the default")
    parser.add_argument("--one-seed", action="store_true", help="no further seeds of close variants")
    parser.add_argument("--cache", type=Path, help="folder of activations that a job with the same --cache has read")
    args = parser.parse_args()
    teacher = load(args.teacher)
    base = Settings(
        teacher=args.teacher,
        looks=2,
        steps=args.steps,
        train_tokens=TRAIN_TOKENS,
        eval_tokens=EVAL_TOKENS,
        rates=dict.fromkeys(("rsae", "identity", "one_look", "control_native"), args.rate),
        cache=args.cache,
        controls=CONTROLS,
    ).resolved(teacher)
    shared = harvest(base, teacher)
    shared.batches.harvested()
    test = shared.reader.sample("test", EVAL_TOKENS)
    chosen = {name: one for name, one in VARIANTS.items() if name == "default" or not args.only or name in args.only}
    result = {"teacher": args.teacher, "steps": args.steps, "rate": args.rate, "test_tokens": len(test)}
    found = json.loads(args.out.read_text())["seeds"] if args.out.exists() else {}
    for seed in (base.seed, *MORE_SEEDS):
        if str(seed) in found or (args.one_seed and seed != base.seed):
            continue
        if seed != base.seed:
            best = found[str(base.seed)]
            close = {n for n in chosen if abs(best[n].get("fvu", 9) / best["default"]["fvu"] - 1) <= CLOSE}
            chosen = {name: one for name, one in chosen.items() if name in close}
        shared.batches.seed = seed
        found[str(seed)] = run(chosen, base.model_copy(update={"seed": seed}), teacher, shared, test)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({**result, "seeds": found}, indent=1) + "\n")
    for name in dict.fromkeys(name for one in found.values() for name in one):
        ratios = [one[name]["fvu"] / one["default"]["fvu"] for one in found.values() if "fvu" in one.get(name, {})]
        if ratios:
            spread = f" (of {len(ratios)}: {min(ratios):.4f} to {max(ratios):.4f})" if len(ratios) > 1 else ""
            print(f"{name:34} over default {statistics.mean(ratios):.4f}{spread}")


if __name__ == "__main__":
    main()
