"""Rebuild docs/demo.md and its figures from three demo runs.

    make docs        # runs the demos that are missing (about five minutes each on two cores), then this

Reads runs/demo-FAMILY/report.json; writes docs/demo.md and docs/figures/FAMILY-*.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rational_sae.demo import FAMILIES
from rational_sae.report import format_interval, format_value, read_report, relative_difference, save_figures
from rational_sae.report.rows import UNTRAINED, row_label, untrained

DOCS = Path(__file__).parent
RUNS = DOCS.parent / "runs"
KEYS = ("l0", "fvu", "fvu_at_l0", "delta_ce", "delta_ce_at_l0", "loss_recovered", "kl", "alive_fraction")

HEAD = """# Results of the demo

Measured by `rsae demo` on the three shipped teachers (SmolLM2-135M-Instruct, output of block 11, width 2 304), and
rebuilt by `make docs`. All rows of a table see the same test tokens; brackets hold 95 % bootstrap intervals over
documents. `fvu_at_l0` and `delta_ce_at_l0` are measured with thresholds moved to the teacher's own L0 on these tokens.
These are development cells: design choices were made on them.
"""


def main() -> None:
    parts = [HEAD]
    for family in FAMILIES:
        report = read_report(RUNS / f"demo-{family}")
        figures = _figures(report, family)
        parts += [f"## {family}\n", f"**{report['verdict']}**\n", _table(report), _differences(report), _facts(report)]
        parts += [f"![{name} of the {family} upgrade](figures/{family}-{name}.png)\n" for name in figures]
    (DOCS / "demo.md").write_text("\n".join(parts))


def _table(report: dict[str, Any]) -> str:
    lines = ["| row | " + " | ".join(KEYS) + " |", "|---" * (len(KEYS) + 1) + "|"]
    for name, row in report["rows"].items():
        said = f" ({UNTRAINED})" if name in untrained(report) else ""
        lines.append(f"| `{name}`{said} | " + " | ".join(format_value(key, row[key]) for key in KEYS) + " |")
    return "\n".join(lines) + "\n"


def _differences(report: dict[str, Any]) -> str:
    lines = ["| difference | fvu_at_l0 | relative | delta_ce_at_l0 |", "|---|---|---|---|"]
    for name, found in report["differences"].items():
        fvu, ce = found["fvu_at_l0"], found["delta_ce_at_l0"]
        relative = relative_difference(report, name, "fvu_at_l0")[0]
        cells = [
            f"{one['value']:+.4f} {format_interval(key, one['interval'], signed=True)}"
            for key, one in (("fvu", fvu), ("delta_ce", ce))
        ]
        label = row_label(name, untrained(report))
        lines.append(f"| {label} | {cells[0]} | {relative:+.1%} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _facts(report: dict[str, Any]) -> str:
    data, settings = report["data"], report["settings"]
    seconds = sum(report["timing"].values())
    return (
        f"{settings['steps']} steps of {settings['batch_tokens']} tokens, {data['train_tokens_distinct']:,} distinct "
        f"({data['train_passes']:.1f} passes); {data['test_tokens']:,} test tokens of {data['test_documents']} "
        f"documents; seed {settings['seed']}; {seconds:.0f} s in all.\n"
    )


def _figures(report: dict[str, Any], family: str) -> list[str]:
    target = DOCS / "figures"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        written = save_figures(report, Path(scratch))
        for path in written:
            (target / f"{family}-{path.name}").write_bytes(path.read_bytes())
    return [path.stem for path in written]


if __name__ == "__main__":
    main()
