"""What fewer distinct training tokens cost: the same steps, on tokens that are used again in new orders.

    python benchmarks/tokens.py demo/teachers/topk --out docs/data/tokens-topk.json --cache runs/cache

Every number of tokens is the beginning of the same harvest. Rows: the rational SAE and the control with the teacher's
own gate, each measured on the same test tokens with its thresholds moved to the teacher's L0 there. Twelve minutes a
teacher on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from ablation import measured

from rational_sae.evaluation import mean_l0
from rational_sae.formats import load
from rational_sae.support.progress import Silent
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import harvest
from rational_sae.upgrading.prepare import prepare
from rational_sae.upgrading.rows import as_candidates
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.rows import starting_saes
from rational_sae.upgrading.training import train

PER_LATENT = (16, 32, 64, 128)
"""Distinct tokens for each latent; beside these, as many as the steps take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder where activations are kept between runs")
    args = parser.parse_args()
    teacher = load(args.teacher)
    asked = args.steps * Settings.model_fields["batch_tokens"].default
    base = Settings(
        teacher=args.teacher, steps=args.steps, train_tokens=asked, cache=args.cache, controls=("native",)
    ).resolved(teacher)
    shared = harvest(base, teacher)
    shared.batches.buffer_bytes = 4 * asked * teacher.d_in
    x = shared.batches.harvested()
    assert x is not None
    test = shared.reader.sample("test", base.eval_tokens)
    prepared = prepare(base, teacher, shared)
    target_l0 = mean_l0(teacher, test)
    counts = [count * teacher.d_sae for count in PER_LATENT if count * teacher.d_sae < len(x)] + [len(x)]
    found = []
    for seed in range(args.seeds):
        shared.batches.seed = seed
        for count in counts:
            shared.batches.give(x[:count], x[:count].mean(0), count)
            torch.manual_seed(seed)
            settings = base.model_copy(update={"seed": seed})
            candidates = as_candidates(
                starting_saes(prepared.sae, prepared.hard, settings, prepared.looks), prepared, settings
            )
            train(candidates, prepared, shared, settings, Clock(Silent()))
            for name, candidate in candidates.items():
                row = measured(candidate, test * prepared.units.input, target_l0)
                found.append({"seed": seed, "tokens": count, "per_latent": count / teacher.d_sae, "row": name, **row})
                print(json.dumps(found[-1]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"teacher": args.teacher, "steps": args.steps, "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
