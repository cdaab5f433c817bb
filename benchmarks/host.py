"""The language model's share: harvested tokens a second beside a bare truncated forward, and what bfloat16 changes.

    python benchmarks/host.py --tokens 8192       # some minutes on two cores

Prints JSON. `harvest_over_bare`: tokens a second of `Reader.vectors` (tokenising, sinks and copies included) over those
of the model's own blocks up to the hook on the same sequences; medians of interleaved repeats. `precision`: metrics of
a demo teacher with the model in float32 and in bfloat16, on the same tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import rational_sae
from rational_sae.data.activations import Reader
from rational_sae.data.reading import Reading
from rational_sae.evaluation import measure, results

TEACHER = Path(__file__).parents[1] / "demo" / "teachers" / "topk"
REPEATS = 5
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
            ratio = harvest_over_bare(reader, tokens)
        mean = reader.sample("calibration", tokens // 2).mean(0)
        row = results(measure(reader, {"teacher": sae}, tokens, mean), []).rows["teacher"]
        found[precision] = {key: row[key] for key in KEYS}
    print(json.dumps({"tokens": tokens, "harvest_over_bare": ratio, "precision": found}, indent=1))


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
        began = time.perf_counter()
        job()
        return time.perf_counter() - began

    bare()
    return statistics.median(seconds(bare) / seconds(ours) for _ in range(REPEATS))


if __name__ == "__main__":
    main()
