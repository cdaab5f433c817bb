"""How a step's time grows with d_sae, batch, degree and L0; docs/performance.md shows the picture.

    python benchmarks/scaling.py --out docs/figures        # about five minutes on two idle cores
    python benchmarks/scaling.py --redraw                  # the picture alone, from scaling.json

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
FACTORS = {"d_sae": "latents", "batch": "tokens of a step", "poles": "pairs of poles", "l0": "L0"}
JOBS = {
    "encoder_product": "encoder product",
    "sparse": "sparse step",
    "dense": "dense step",
    "relu": "step of a ReLU",
    "gate": "gate alone",
    "saelens_standard": "step in SAELens",
}
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of every point; the median counts")
    parser.add_argument("--redraw", action="store_true", help="the picture alone, from the figures that are there")
    args = parser.parse_args()
    out: Path = args.out
    if args.redraw:
        picture(json.loads((out / "scaling.json").read_text())["rows"]).save(out / "scaling.png", scale_factor=2)
        return
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


def picture(rows: list[dict[str, Any]]) -> alt.ConcatChart:
    """One panel a factor, both axes logarithmic, with what was measured as ticks; one scale of times for all."""
    times = [row["ms"] for row in rows]
    scale = alt.Scale(type="log", domain=[0.8 * min(times), 1.2 * max(times)], nice=False)
    named = [row | {"job": JOBS[row["job"]]} for row in rows]
    return (
        alt.concat(*(_panel(named, factor, scale) for factor in VARIED), columns=2, spacing=30, background="white")
        .configure_view(stroke=None)
        .configure_axis(gridColor="#e4e4e4", titleFontWeight="normal")
        .configure_legend(orient="top", labelLimit=0)
    )


def _panel(rows: list[dict[str, Any]], factor: str, scale: alt.Scale) -> alt.Chart:
    data = alt.Data(values=[row for row in rows if row["factor"] == factor])  # type: ignore[call-arg]
    ticks = alt.Axis(values=list(VARIED[factor]), format=",d")
    seconds = alt.Axis(values=[10, 30, 100, 300, 1000], format="d")
    return (
        alt.Chart(data)
        .mark_line(point=True)
        .encode(
            x=alt.X("value:Q", scale=alt.Scale(type="log", nice=False, padding=12), title=FACTORS[factor], axis=ticks),
            y=alt.Y("ms:Q", scale=scale, title="milliseconds", axis=seconds),
            color=alt.Color("job:N", sort=list(JOBS.values()), title=None),
        )
        .properties(width=330, height=220)
    )


if __name__ == "__main__":
    main()
