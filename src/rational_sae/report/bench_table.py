"""`rsae bench` on the terminal: one table a shape."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from rational_sae.support.safe_text import printable


def print_bench(found: dict[str, Any], console: Console) -> None:
    """Medians, peak memory beyond weights and Adam's state, and the ratios. found: what `bench` returns."""
    for shape in found["shapes"]:
        table = Table(title=f"d_in {shape['d_in']}, d_sae {shape['d_sae']}, batch {shape['batch']}, L0 {shape['l0']}")
        for column in ("job", "ms", "peak MB"):
            table.add_column(column, justify="left" if column == "job" else "right")
        for name, seconds in shape["medians"].items():
            peak = shape["memory"][name]
            table.add_row(name, f"{1e3 * seconds:.1f}", "–" if peak is None else f"{peak / 1e6:.0f}")
        console.print(table)
        for name, reason in shape["failed"].items():
            console.print(printable(f"{name} failed: {reason}"), highlight=False, markup=False)
        for name, ratio in shape["ratios"].items():
            console.print(f"{name:38} {ratio:.2f}", highlight=False)
    console.print(", ".join(f"{key} {value}" for key, value in found["environment"].items()), highlight=False)
