"""Whole upgrades by two versions of the package, in turn: seconds a stage, and how many times quicker the second is.

    git worktree add ../before 8ba1571     # before the first sparse step
    python benchmarks/upgrade.py ../before/src src --steps 600       # about half an hour on two cores

Runs `rsae upgrade` of the TopK demo teacher with its default controls from each source folder; prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TEACHER = Path(__file__).parents[1] / "demo" / "teachers" / "topk"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--train-tokens", type=int, help="distinct tokens; default: steps × 1 024")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for _ in range(args.repeats):
        for name, runs in found.items():
            runs.append(_stages(getattr(args, name).resolve(), args.steps, args.train_tokens))
            print(name, {stage: round(seconds, 1) for stage, seconds in runs[-1].items()}, file=sys.stderr, flush=True)
    before, after = (statistics.median(sum(run.values()) for run in found[name]) for name in ("before", "after"))
    job = {"steps": args.steps, "train_tokens": args.train_tokens}
    print(json.dumps({**job, "stages": found, "times_quicker": before / after}, indent=1))


def _stages(source: Path, steps: int, train_tokens: int | None) -> dict[str, float]:
    """Seconds of each stage of one upgrade."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, "-m", "rational_sae", "upgrade", str(TEACHER), "--text", "news", "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(source)}
        command += ["--steps", str(steps), *(["--train-tokens", str(train_tokens)] if train_tokens else [])]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return json.loads((out / "report.json").read_text())["timing"]


if __name__ == "__main__":
    main()
