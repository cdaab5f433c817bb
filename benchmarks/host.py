"""The language model's share: harvested tokens a second beside a bare forward, and what bfloat16 changes.

    python benchmarks/host.py --tokens 8192       # some minutes on two cores

Prints JSON. `harvest_over_bare`, at each place of one block: tokens a CPU second of `Reader.vectors` (tokenising, sinks
and copies included) over those of the model's own blocks up to that place, without any hook where it ends a block, on
the same sequences; medians of interleaved repeats. `precision`: metrics of a demo teacher with the model in float32
and in bfloat16, on the same tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import rational_sae
from rational_sae.data.activations import Reader
from rational_sae.data.reading import Reading
from rational_sae.evaluation import measure, results

TEACHER = Path(__file__).parents[1] / "demo" / "teachers" / "topk"
REPEATS = 5
PLACES = ("resid_pre", "attn_in", "hook_z", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")
NAMES = {"hook_z": "attn.hook_z", "attn_in": "attn.hook_in", "mlp_in": "mlp.hook_in"}
KEYS = ("fvu", "l0", "ce_clean", "delta_ce", "loss_recovered", "kl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    tokens: int = parser.parse_args().tokens
    sae = rational_sae.load(str(TEACHER))
    found = {}
    for precision in ("float32", "bfloat16"):
        reader = Reading(precision=precision).open(sae)
        if precision == "float32":
            ratio = {place: harvest_over_bare(at_place(reader, place), tokens) for place in PLACES}
        mean = reader.sample("calibration", tokens // 2).mean(0)
        row = results(measure(reader, {"teacher": sae}, tokens, mean), []).rows["teacher"]
        found[precision] = {key: row[key] for key in KEYS}
    print(json.dumps({"tokens": tokens, "harvest_over_bare": ratio, "precision": found}, indent=1))


def at_place(reader: Reader, place: str) -> Reader:
    """The same reader at another place of the teacher's block."""
    block = reader.hook.boundary - 1
    return replace(reader, hook=reader.host.hook(f"blocks.{block}.{NAMES.get(place, f'hook_{place}')}"))


def harvest_over_bare(reader: Reader, tokens: int) -> float:
    """Tokens a second, ours over the bare forward's."""
    batches = list(reader.tokeniser.batches(reader.text, "train", tokens, seed=0))

    def ours() -> None:
        for _ in reader.vectors("train", tokens, seed=0):
            pass

    def bare() -> None:
        for batch in batches:
            reader.host.residual(batch.input_ids, reader.hook)

    def seconds(job: Callable[[], None]) -> float:
        began = time.process_time()  # of all threads: what other processes take meanwhile does not count
        job()
        return time.process_time() - began

    bare()
    return statistics.median(seconds(bare) / seconds(ours) for _ in range(REPEATS))


if __name__ == "__main__":
    main()
