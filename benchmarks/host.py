"""The language model's share: harvested tokens a second beside a bare forward, and what bfloat16 changes.

    python benchmarks/host.py --tokens 8192       # some minutes on two cores
    python benchmarks/host.py --tokens 5120 --only harvest

Prints JSON. `harvest`, at each place of one block: how many times the tokens of a bare forward `Reader.vectors` gives
in one CPU second (tokenising, hashes, sinks and copies included). Batch by batch both do the same sequences, in turn
and in alternating order, so that what other processes do to caches and clock is in both: the median of these ratios,
the least and the largest. Bare is the model cut off behind that block, without any hook, where the place ends a block;
within a block it is a forward that one hook ends there. `opening`: CPU seconds of a pass over the text before its first
batch, which are not in the ratios. `precision`: metrics of a demo teacher with the model in float32 and in bfloat16, on
the same tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import rational_sae
from rational_sae.data.activations import Reader
from rational_sae.data.reading import Reading
from rational_sae.evaluation import measure, results
from rational_sae.sae.model import SAE

TEACHER = Path(__file__).parents[1] / "demo" / "teachers" / "topk"
PLACES = ("resid_pre", "attn_in", "hook_z", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")
NAMES = {"hook_z": "attn.hook_z", "attn_in": "attn.hook_in", "mlp_in": "mlp.hook_in"}
KEYS = ("fvu", "l0", "ce_clean", "delta_ce", "loss_recovered", "kl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--only", choices=("harvest", "precision"))
    args = parser.parse_args()
    sae = rational_sae.load(str(TEACHER))
    found: dict[str, Any] = {"tokens": args.tokens}
    if args.only != "precision":
        reader = Reading().open(sae)
        found["harvest"] = {place: harvest_over_bare(at_place(reader, place), args.tokens) for place in PLACES}
    if args.only != "harvest":
        found["precision"] = {kind: figures(sae, kind, args.tokens) for kind in ("float32", "bfloat16")}
    print(json.dumps(found, indent=1))


def figures(sae: SAE, precision: Any, tokens: int) -> dict[str, float]:
    """Metrics of a teacher with the model in a precision."""
    reader = Reading(precision=precision).open(sae)
    mean = reader.sample("calibration", tokens // 2).mean(0)
    row = results(measure(reader, {"teacher": sae}, tokens, mean), []).rows["teacher"]
    return {key: row[key] for key in KEYS}


def at_place(reader: Reader, place: str) -> Reader:
    """The same reader at another place of the teacher's block."""
    block = reader.hook.boundary - 1
    return replace(reader, hook=reader.host.hook(f"blocks.{block}.{NAMES.get(place, f'hook_{place}')}"))


def harvest_over_bare(reader: Reader, tokens: int) -> dict[str, float]:
    """Tokens a CPU second, ours over the bare forward's: of each batch but the first."""
    batches = list(reader.tokeniser.batches(reader.text, "train", tokens, seed=0))
    vectors, ratios = reader.vectors("train", tokens, seed=0), []
    whole = seconds(lambda: next(vectors))
    bare = bare_of(reader)
    opening = whole - seconds(lambda: bare(batches[0].input_ids))
    for number, batch in enumerate(batches[1:]):
        jobs = {"bare": lambda ids=batch.input_ids: bare(ids), "ours": lambda: next(vectors)}
        took = {name: seconds(jobs[name]) for name in (list(jobs) if number % 2 else reversed(jobs))}
        ratios.append(took["bare"] / took["ours"])
    found = {"median": statistics.median(ratios), "least": min(ratios), "largest": max(ratios), "opening": opening}
    return {name: round(value, 4) for name, value in found.items()}


def bare_of(reader: Reader) -> Callable[[torch.Tensor], object]:
    """The least that gives what is at the place, of [batch, context] tokens."""
    host, hook = reader.host, reader.hook
    if hook.spot is not None:
        return lambda ids: host.residual(ids, hook)

    @torch.no_grad()
    def forward(ids: torch.Tensor) -> object:
        with cut(host.model.model, hook.boundary):
            return host.model.model(input_ids=ids, use_cache=False)

    return forward


@contextlib.contextmanager
def cut(model: Any, blocks: int) -> Iterator[None]:
    """A decoder of fewer blocks, for a while."""
    layers = model.layers
    model.layers = layers[:blocks]
    try:
        yield
    finally:
        model.layers = layers


def seconds(job: Callable[[], object]) -> float:
    """CPU seconds of all threads: the time that other processes get does not count."""
    began = time.process_time()
    job()
    return time.process_time() - began


if __name__ == "__main__":
    main()
