"""Real upgrades at parts of a block: a teacher trained for each, its upgrade and its controls on the same tokens.

    python demo/train_teachers.py configs/teachers-places.yaml --out runs/teachers-places
    python benchmarks/places.py runs/teachers-places      # both together about half an hour on two free cores

Writes docs/data/places.json and prints its table: of each place the teacher, the row `init`, the native control and the
rational SAE, FVU and ΔCE at the teacher's L0 on held-out documents, and the differences with their intervals.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import rational_sae

OUT = Path(__file__).parents[1] / "docs" / "data" / "places.json"
ROWS = ("teacher", "init", "control_native", "identity", "rsae")
KEYS = ("l0", "fvu", "fvu_at_l0", "delta_ce", "delta_ce_at_l0", "kl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path, help="folder with one folder a place")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--eval-tokens", type=int, default=8192)
    args = parser.parse_args()
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    for teacher in sorted(path for path in args.teachers.iterdir() if (path / "cfg.json").exists()):
        done = rational_sae.upgrade(teacher, steps=args.steps, eval_tokens=args.eval_tokens)
        compared = {base: done.compare(base) for base in ROWS if base not in ("rsae", "init")}
        found[teacher.name] = {
            "hook": done.settings.hook,
            "steps": args.steps,
            "eval_tokens": args.eval_tokens,
            "rows": {row: {key: done.rows[row].get(key) for key in KEYS} for row in ROWS},
            "differences": {
                base: {key: [one[key].value, one[key].low, one[key].high] for key in KEYS if key in one}
                for base, one in compared.items()
            },
        }
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(table(found))


def table(found: dict) -> str:
    """FVU and ΔCE of each row at the teacher's L0; a row that stands at its own L0 has those."""
    lines = ["| place | L0 | " + " | ".join(ROWS) + " |", "|---" * (len(ROWS) + 2) + "|"]
    for place, one in found.items():
        cells = []
        for row in ROWS:
            fvu, delta = (one["rows"][row].get(f"{key}_at_l0") or one["rows"][row][key] for key in ("fvu", "delta_ce"))
            cells.append(f"{fvu:.4f}, {delta:.4f}")
        lines.append(f"| `{place}` | {one['rows']['teacher']['l0']:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
