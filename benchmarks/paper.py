"""The paper's recipe beside the default one, on the three demo teachers: same steps, same tokens, one table.

    python benchmarks/paper.py --out runs/paper        # six upgrades; about forty minutes on two cores
    python benchmarks/paper.py --out runs/paper --steps 2000

A sweep, so that all six share one harvest, and the same command goes on where it stopped. The table is written into
docs/paper.md, between the two markers there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from rational_sae.demo import DEMO_EVAL_TOKENS, DEMO_STEPS, DEMO_TRAIN_TOKENS, FAMILIES, demo_settings
from rational_sae.report import format_difference, format_interval, format_value, read_report
from rational_sae.support.bars import shown
from rational_sae.sweep import sweep
from rational_sae.sweep.plan import Plan

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"
BEGIN, END = "<!-- table: written by benchmarks/paper.py -->", "<!-- end of table -->"
RECIPES = ("default", "paper")
KEYS = ("l0", "l0_eps", "fvu", "fvu_at_l0", "delta_ce", "delta_ce_at_l0", "loss_recovered")
CHANGES = ("fvu", "fvu_at_l0", "delta_ce", "delta_ce_at_l0")


def plan(steps: int) -> Plan:
    """Every family under every recipe. Development cells: design choices were made on them."""
    cells = {
        f"{family}-{recipe}": {
            "teacher": demo_settings(family).teacher,
            "development": True,
            "settings": {"recipe": recipe},
        }
        for family in FAMILIES
        for recipe in RECIPES
    }
    defaults = {"text": "news", "steps": steps, "train_tokens": DEMO_TRAIN_TOKENS, "eval_tokens": DEMO_EVAL_TOKENS}
    return Plan.model_validate({"defaults": defaults, "cells": cells})


def page_part(reports: dict[str, dict[str, Any]]) -> str:
    """What stands between the markers. reports: report.json of each cell."""
    settings, data = (next(iter(reports.values()))[key] for key in ("settings", "data"))
    parts = [
        f"{settings['steps']} steps of {settings['batch_tokens']} tokens, {data['train_tokens_distinct']:,} distinct; "
        f"{data['test_tokens']:,} test tokens of {data['test_documents']} documents; seed {settings['seed']}.\n"
    ]
    for family in FAMILIES:
        ours, paper = (reports[f"{family}-{recipe}"] for recipe in RECIPES)
        parts += [f"### {family}\n", _rows(ours, paper), _changes(ours, paper)]
    return "\n".join(parts)


def _rows(ours: dict[str, Any], paper: dict[str, Any]) -> str:
    rows = {
        "teacher": ours["rows"]["teacher"],
        "default: start": ours["rows"].get("init_hard", ours["rows"]["init"]),
        "default: rational": ours["rows"]["rsae"],
        "paper: start": paper["rows"].get("init_hard", paper["rows"]["init"]),
        "paper: rational": paper["rows"]["rsae"],
    }
    lines = ["| row | " + " | ".join(f"`{key}`" for key in KEYS) + " |", "|---" * (len(KEYS) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(format_value(key, row.get(key)) for key in KEYS) + " |")
    return "\n".join(lines) + "\n"


def _changes(ours: dict[str, Any], paper: dict[str, Any]) -> str:
    """The rational SAE against its teacher under each recipe, with intervals."""
    lines = ["| rational − teacher | " + " | ".join(f"`{key}`" for key in CHANGES) + " |", "|---|---|---|---|---|"]
    for recipe, report in zip(RECIPES, (ours, paper), strict=True):
        found, base = report["differences"]["rsae - teacher"], report["rows"]["teacher"]
        cells = [f"{_change(key, found[key])} ({found[key]['value'] / base[key]:+.1%})" for key in CHANGES]
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _change(key: str, found: dict[str, Any]) -> str:
    return f"{format_difference(key, found['value'])} {format_interval(key, found['interval'], signed=True)}"


def write_page(part: str) -> None:
    """Replace what stands between the markers of docs/paper.md."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{part}{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=DEMO_STEPS)
    args = parser.parse_args()
    wanted, console = plan(args.steps), Console(stderr=True)
    with shown(console) as bars:
        found = sweep(wanted, args.out, bars, resume=True, tell=console.print)
    if found["failed"]:
        raise SystemExit(f"failed: {found['failed']}")
    part = page_part({name: read_report(args.out / "cells" / name) for name in wanted.cells})
    write_page(part)
    print(part)


if __name__ == "__main__":
    main()
