"""Rebuild the tables and pictures of docs/results.md from the results in docs/data.

    python docs/results.py
    python docs/results.py --grid runs/grid/sweep.json      # take the results of a new sweep first

The sweep and the ablations take hours (docs/results.md says how to run them), so what they found is kept in docs/data.
Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`; the rest of the page is written by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

from rational_sae.report import save_pareto, sweep_sheets

DOCS = Path(__file__).parent
DATA, FIGURES = DOCS / "data", DOCS / "figures"
ABLATIONS = {family: DATA / f"ablation-{family}.json" for family in ("relu", "jumprelu", "topk")}
SHORT = 5e-5
"""Two arms whose ratios differ by less read the same."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, help="a sweep.json to take over into docs/data")
    args = parser.parse_args()
    if args.grid:
        DATA.mkdir(exist_ok=True)
        shutil.copyfile(args.grid, DATA / "grid.json")
    found = json.loads((DATA / "grid.json").read_text(encoding="utf-8"))
    page = DOCS / "results.md"
    text = page.read_text(encoding="utf-8")
    parts = {"ratios": ratios, "cells": cells, "training": training, "pictures": pictures, "rates": rates}
    for name, part in parts.items():
        text = between(text, name, part(found))
    if all(path.exists() for path in ABLATIONS.values()):
        text = between(text, "ablation", ablation())
    page.write_text(text, encoding="utf-8")


def between(text: str, name: str, content: str) -> str:
    """The page with other content between two marks."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, rest = text.split(start)
    return before + start + content + "\n" + end + rest.split(end)[1]


def table(headings: list[str], lines: list[list[str]]) -> str:
    """Markdown."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def ratios(found: dict[str, Any]) -> str:
    return _sheets([sheet for sheet in sweep_sheets(found) if sheet.title.startswith("The rational SAE over all")])


def cells(found: dict[str, Any]) -> str:
    return _sheets([sheet for sheet in sweep_sheets(found) if not sheet.title.startswith("The rational SAE over all")])


def _sheets(sheets: list[Any]) -> str:
    parts = []
    for sheet in sheets:
        lines = [[f"{field.text} {field.interval}".strip() for field in line] for line in sheet.lines]
        parts.append(f"**{sheet.title}**\n\n{table(sheet.headings, lines)}")
    return "\n".join(parts)


def training(found: dict[str, Any]) -> str:
    """Whether the teachers were trained to the end: what the native control still gains."""
    lines = []
    for name, cell in found["cells"].items():
        rows = cell["rows"]
        teacher, native = rows["teacher"], rows["control_native"]
        gain = native["fvu_at_l0"] / teacher["fvu_at_l0"] - 1
        dead = 1 - teacher["alive_fraction"]
        lines.append([name, f"{teacher['l0']:.1f}", f"{teacher['fvu']:.4f}", f"{dead:.1%}", f"{gain:+.1%}"])
    return table(["cell", "L0", "teacher's FVU", "latents that never fire", "native control's FVU"], lines)


def pictures(found: dict[str, Any]) -> str:
    """Pareto pictures of every model, hook and family."""
    written = save_pareto(found, FIGURES)
    return "\n".join(f"![FVU and ΔCE against L0: {path.stem}](figures/{path.name})\n" for path in written)


def rates(found: dict[str, Any]) -> str:
    """Factors on the learning rates, by pilot cell."""
    rows = sorted({row for chosen in found["rates"].values() for row in chosen})
    lines = [[name, *(f"×{chosen[row]:g}" for row in rows)] for name, chosen in found["rates"].items()]
    return table(["pilot cell", *(f"`{row}`" for row in rows)], lines)


def ablation() -> str:
    """FVU over the default's, of each arm on the development cell of each family."""
    runs = {family: json.loads(path.read_text(encoding="utf-8")) for family, path in ABLATIONS.items()}
    arms = dict.fromkeys(arm for run in runs.values() for arm in run["seeds"]["0"])
    lines = [[arm, *(_over_default(run, arm) for run in runs.values())] for arm in arms]
    return table(["arm", *ABLATIONS], lines)


def _over_default(run: dict[str, Any], arm: str) -> str:
    first = run["seeds"]["0"].get(arm)
    if first is None:
        return "–"
    if "fvu" not in first:
        return "stopped: NaN or infinite"
    found = [one[arm]["fvu"] / one["default"]["fvu"] for one in run["seeds"].values() if "fvu" in one.get(arm, {})]
    if arm == "default":
        return f"FVU {first['fvu']:.4f}"
    spread = f" ({min(found):.4f} to {max(found):.4f})" if len(found) > 1 and max(found) - min(found) > SHORT else ""
    return f"{statistics.mean(found):.4f}{spread}"


if __name__ == "__main__":
    main()
