"""How much wider intervals at the teacher's L0 become when the thresholds are solved again in each bootstrap sample.

    python benchmarks/conditional.py demo/teachers/topk --out docs/data/conditional-topk.json

A report solves the move of a row's thresholds once, on all test tokens, and its intervals take that move as given.
Here the rational SAE after a short training is measured at several moves, and in each bootstrap sample of documents it
is read, by interpolation between them, where its L0 in that sample is the teacher's L0 in that sample. Some minutes on
one core.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rational_sae.evaluation import mean_l0, measure
from rational_sae.evaluation.measure import Measurements, RowSums
from rational_sae.evaluation.metrics import RESAMPLES
from rational_sae.formats import load
from rational_sae.sae.match_l0 import solve_shift
from rational_sae.support.progress import Silent
from rational_sae.upgrading.clock import Clock
from rational_sae.upgrading.harvest import harvest
from rational_sae.upgrading.prepare import prepare
from rational_sae.upgrading.rows import as_candidates
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.rows import starting_saes
from rational_sae.upgrading.training import train

MOVES = (0.92, 0.96, 1.0, 1.04, 1.08)
"""L0 of the moved row over the teacher's: linear interpolation between neighbours, and no sample may lie outside."""

Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=6144, help="test tokens")
    args = parser.parse_args()
    torch.manual_seed(0)
    teacher = load(args.teacher)
    settings = Settings(teacher=args.teacher, steps=args.steps, eval_tokens=args.tokens, controls=()).resolved(teacher)
    shared = harvest(settings, teacher)
    prepared = prepare(settings, teacher, shared)
    candidates = as_candidates(starting_saes(prepared.sae, prepared.hard, settings, prepared.looks), prepared, settings)
    train(candidates, prepared, shared, settings, Clock(Silent()))
    test = shared.reader.sample("test", args.tokens)
    saes, target = {"teacher": teacher}, mean_l0(teacher, test)
    finished = prepared.units.undo_(candidates["rsae"].finish())
    for move in MOVES:
        saes[f"rsae {move}"] = copy.deepcopy(finished)
        saes[f"rsae {move}"].gate.shift_(solve_shift(finished, test, move * target))
    sums = measure(shared.language, saes, args.tokens, test.mean(0), reference="none")
    facts = {"teacher": args.teacher, "steps": args.steps, "documents": len(sums.tokens), "l0": target}
    found = facts | {"tokens": int(sums.tokens.sum())} | compared(sums)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def compared(sums: Measurements) -> dict[str, Any]:
    """Intervals of the rational SAE at the teacher's L0, and of its difference to the teacher: under the one move, and
    under a move for each sample."""
    documents = len(sums.tokens)
    weights = np.random.default_rng(0).multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    weights = np.vstack([np.ones(documents), weights.astype(np.float64)])
    teacher, rows = sums.rows["teacher"], [sums.rows[f"rsae {move}"] for move in MOVES]
    tokens = weights @ sums.tokens.numpy()
    l0 = np.stack([weights @ row.columns["l0"].numpy() / tokens for row in rows])
    target = weights @ teacher.columns["l0"].numpy() / tokens
    assert (l0[0] < target).all()
    assert (target < l0[-1]).all()
    middle = MOVES.index(1.0)
    found: dict[str, Any] = {"relative_deviation_of_l0_under_the_one_move": float((l0[middle] / target)[1:].std())}
    for metric in (fvu, delta_ce):
        at_moves = np.stack([metric(sums, row, weights) for row in rows])
        again = np.array([np.interp(t, x, y) for t, x, y in zip(target, l0.T, at_moves.T, strict=True)])
        base = metric(sums, teacher, weights)
        for what, off in (("row", np.zeros_like(base)), ("difference", base)):
            once, solved = interval(at_moves[middle] - off), interval(again - off)
            found[f"{metric.__name__}, {what}"] = {
                "value": float(at_moves[middle][0] - off[0]),
                "one_move": once,
                "a_move_for_each_sample": solved,
                "width_ratio": (solved[1] - solved[0]) / (once[1] - once[0]),
            }
    return found


def fvu(sums: Measurements, row: RowSums, weights: Array) -> Array:
    """[1 + RESAMPLES], as in a report."""
    centre = weights @ sums.x.numpy()
    variance = weights @ sums.x_squared.numpy() - (centre**2).sum(-1) / (weights @ sums.tokens.numpy())
    return weights @ row.columns["squared_error"].numpy() / variance


def delta_ce(sums: Measurements, row: RowSums, weights: Array) -> Array:
    """[1 + RESAMPLES], as in a report."""
    return weights @ (row.columns["ce"] - sums.ce["clean"]).numpy() / (weights @ sums.predictions.numpy())


def interval(values: Array) -> list[float]:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return [float(low), float(high)]


if __name__ == "__main__":
    main()
