"""How a step's time grows with d_sae, batch, degree and L0; docs/performance.md shows the picture.

    python benchmarks/scaling.py --out docs/figures        # about five minutes on two idle cores

Writes scaling.json and scaling.png. Each factor varies alone around (d_in 576, d_sae 4 608, batch 1 024, type (5,4),
L0 32); every point is the median of interleaved repeats, as in `rsae bench`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt

from rational_sae.bench import Shape
from rational_sae.bench.run import bench_shape, environment
from rational_sae.support.progress import Silent

BASE = Shape(576, 4608, 1024)
VARIED: dict[str, tuple[int, ...]] = {
    "d_sae": (1152, 2304, 4608, 9216, 18432),
    "batch": (256, 512, 1024, 2048, 4096),
    "poles": (1, 2, 3, 4),
    "l0": (8, 16, 32, 64, 128),
}
JOBS = ("encoder_product", "sparse", "dense", "relu", "gate", "saelens_standard")
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of every point; the median counts")
    args = parser.parse_args()
    out: Path = args.out
    rows: list[dict[str, Any]] = []
    for factor, values in VARIED.items():
        for value in values:
            found = bench_shape(replace(BASE, **{factor: value}), repeats=args.repeats, device="cpu", progress=Silent())
            medians = found["medians"]
            rows += [
                {"factor": factor, "value": value, "job": job, "ms": 1e3 * medians[job]}
                for job in JOBS
                if job in medians
            ]
            print(factor, value, {job: round(1e3 * medians[job], 1) for job in JOBS if job in medians}, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "scaling.json").write_text(json.dumps({"rows": rows, "environment": environment("cpu")}, indent=1) + "\n")
    picture(rows).save(out / "scaling.png", scale_factor=2)


def picture(rows: list[dict[str, Any]]) -> alt.HConcatChart:
    """One panel a factor, both axes logarithmic."""
    panels = []
    for factor in VARIED:
        data = alt.Data(values=[row for row in rows if row["factor"] == factor])  # type: ignore[call-arg]
        panels.append(
            alt.Chart(data, title=factor)
            .mark_line(point=True)
            .encode(
                x=alt.X("value:Q", scale=alt.Scale(type="log"), title=factor),
                y=alt.Y("ms:Q", scale=alt.Scale(type="log"), title="ms" if factor == "d_sae" else ""),
                color=alt.Color("job:N", sort=list(JOBS), title=""),
            )
            .properties(width=170, height=220)
        )
    return alt.hconcat(*panels)


if __name__ == "__main__":
    main()
