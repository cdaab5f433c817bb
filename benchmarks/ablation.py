"""What each part of the upgrade is worth: one factor at a time, on one teacher, by FVU at the teacher's L0.

    python benchmarks/ablation.py runs/grid-teachers/smollm2-19-topk-32 --out docs/data/ablation-topk.json

All arms share a harvest and see the same batches; each is measured on the same test tokens with its thresholds moved
to the teacher's L0 there, so figures differ by the arm alone. An arm within 1 % of the default is run with two more
seeds of the data order. About a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rational_sae.errors import TrainingError
from rational_sae.evaluation import mean_l0
from rational_sae.formats import load
from rational_sae.sae.match_l0 import can_match, shifted, solve_shift
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Silent
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import Harvest, harvest
from rational_sae.upgrading.prepare import Prepared, prepare
from rational_sae.upgrading.rows import as_candidates
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.rows import starting_saes
from rational_sae.upgrading.train.candidate import Candidate
from rational_sae.upgrading.training import train

STEPS, TRAIN_TOKENS, EVAL_TOKENS, CLOSE, MORE_SEEDS = 300, 196_608, 6144, 0.01, (1, 2)

ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "frozen shape": {"lr_shape": 0.0},
    "free shape, lr 1e-3": {"lr_shape": 1e-3},
    "type (3,2)": {"type": (3, 2)},
    "type (7,6)": {"type": (7, 6)},
    "type (9,8)": {"type": (9, 8)},
    "L1 penalty": {"penalty": "l1"},
    "smooth gate": {"gate": "smooth"},
    "topk gate": {"gate": "topk"},
    "no calibration": {"calibrate": "none"},
    "calibrated to reconstruction": {"calibrate": "reconstruction"},
    "no L0 controller": {"hold_l0": False},
    "dead latents stay dead": {"revive": False},
}
REVIVED_CONTROL = "control_jumprelu with revived latents"
CONTROLS = ("identity", "control_native", "control_jumprelu", REVIVED_CONTROL)


def arms_of(family: str, base: Settings) -> dict[str, dict[str, Any]]:
    """The arms that mean something for a family and are not its default."""
    own = base.model_dump()
    return {
        name: changes
        for name, changes in ARMS.items()
        if name == "default"
        or ((name != "topk gate" or family == "topk") and any(own[k] != v for k, v in changes.items()))
    }


def close_arms(arms: dict[str, dict[str, Any]], found: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """The arms that are within CLOSE of the default, and itself."""
    best = found["default"]["fvu"]
    return {
        arm: changes
        for arm, changes in arms.items()
        if "fvu" in found[arm] and abs(found[arm]["fvu"] / best - 1) <= CLOSE
    }


def run(
    arms: dict[str, dict[str, Any]], base: Settings, teacher: SAE, shared: Harvest, test: Tensor, *, controls: bool
) -> dict[str, dict[str, float]]:
    """arm → fvu_at_l0 and l0 in training, on test tokens."""
    found: dict[str, dict[str, float]] = {}
    target_l0 = mean_l0(teacher, test)
    for arm, changes in arms.items():
        torch.manual_seed(base.seed)
        settings = base.model_copy(update=changes)
        prepared = prepare(settings, teacher, shared)
        starts = starting_saes(prepared.sae, prepared.hard, settings, prepared.looks)
        if not (controls and arm == "default"):
            starts = {"rsae": starts["rsae"]}
        else:
            starts[REVIVED_CONTROL] = copy.deepcopy(starts["control_jumprelu"])
        candidates = as_candidates(starts, prepared, settings)
        if REVIVED_CONTROL in candidates:  # by default controls do not revive
            candidates[REVIVED_CONTROL].silence.every = candidates["rsae"].silence.every
        found |= figures(arm, candidates, prepared, shared, settings, test, target_l0)
    return found


def figures(
    arm: str,
    candidates: dict[str, Candidate],
    prepared: Prepared,
    shared: Harvest,
    settings: Settings,
    test: Tensor,
    target_l0: float,
) -> dict[str, dict[str, float]]:
    """Train candidates and measure each: the RSAE's figures under the arm's name, controls' under their own."""
    try:
        train(candidates, prepared, shared, settings, Clock(Silent()))
    except TrainingError as error:
        print(f"{arm}: {error}", flush=True)
        return {arm: {"failed": 1.0}}
    found = {}
    for name, candidate in candidates.items():
        key = arm if name == "rsae" else name
        found[key] = measured(candidate, test * prepared.units.input, target_l0)
        print(f"{key:40} {found[key]}", flush=True)
    return found


@torch.no_grad()
def measured(candidate: Candidate, test: Tensor, target_l0: float) -> dict[str, float]:
    steps = candidate.curve.l0
    sae = candidate.finish()
    with shifted(sae, solve_shift(sae, test, target_l0) if can_match(sae) else 0.0):
        squared = sum(float((x - sae(x)).pow(2).sum(dtype=torch.float64)) for x in test.split(2048))
        l0 = float(sae.outputs(test)[2]) if sae.gate.exact_zeros is False else mean_l0(sae, test)
        fires = torch.stack([(sae.encode(x) != 0).any(0) for x in test.split(2048)]).any(0)
    variance = float((test - test.mean(0)).pow(2).sum(dtype=torch.float64))
    worst = max(abs(l0 / candidate.target_l0 - 1) for l0 in steps)
    return {
        "fvu": squared / variance,
        "l0": l0,
        "alive": float(fires.float().mean()),
        "kept_step": candidate.kept_step,
        "skipped": candidate.skipped,
        "revived": len(candidate.kept_revived),
        "worst_l0_excursion": worst,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates, as a pilot chose it")
    parser.add_argument("--cache", type=Path, help="folder of activations that a sweep with the same --cache has read")
    args = parser.parse_args()
    teacher = load(args.teacher)
    base = Settings(
        teacher=args.teacher,
        steps=args.steps,
        train_tokens=TRAIN_TOKENS,
        eval_tokens=EVAL_TOKENS,
        rates=dict.fromkeys(("rsae", *CONTROLS), args.rate),
        cache=args.cache,
        controls=("native", "jumprelu", "identity"),
    ).resolved(teacher)
    shared = harvest(base, teacher)
    shared.batches.harvested()  # with the first seed; the others are other orders of these tokens
    test = shared.reader.sample("test", 2 * EVAL_TOKENS)
    arms = arms_of(teacher.metadata.family, base)
    result = {"teacher": args.teacher, "steps": args.steps, "rate": args.rate, "test_tokens": len(test)}
    found = json.loads(args.out.read_text())["seeds"] if args.out.exists() else {}
    for seed in (base.seed, *MORE_SEEDS):
        if str(seed) in found:  # of an earlier run, which was stopped
            continue
        chosen = arms if seed == base.seed else close_arms(arms, found[str(base.seed)])
        shared.batches.seed = seed
        again = base.model_copy(update={"seed": seed})
        found[str(seed)] = run(chosen, again, teacher, shared, test, controls=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({**result, "seeds": found}, indent=1) + "\n")
    for arm in dict.fromkeys(arm for one in found.values() for arm in one):
        values = [one[arm]["fvu"] for one in found.values() if "fvu" in one.get(arm, {})]
        if values:
            ratios = [one[arm]["fvu"] / one["default"]["fvu"] for one in found.values() if "fvu" in one.get(arm, {})]
            spread = f" (of {len(ratios)}: {min(ratios):.4f} to {max(ratios):.4f})" if len(ratios) > 1 else ""
            print(f"{arm:40} FVU {values[0]:.4f}, over default {statistics.mean(ratios):.4f}{spread}")


if __name__ == "__main__":
    main()
