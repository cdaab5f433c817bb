"""Every figure of docs/fits.md, and the shipped coefficient table.

python benchmarks/fits.py            # about two minutes on one core: prints the figures as Markdown
python benchmarks/fits.py --table    # writes src/rational_sae/rational/table.json as well
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from known_errors import JUMPRELU, RELU

from rational_sae.rational import Fit, fit, table, target

HARD = (
    (target("jumprelu", -0.0394, 0.006), (4, 2)),
    (target("sign", 0.0022, 0.039), (3, 4)),
    (target("sign", 0.2713, 0.0056), (10, 8)),
    (target("relu"), (7, 5)),
    (target("relu"), (8, 8)),
)
"""Problems that a random search found hard."""
RANDOM_FITS = 100


def main() -> None:
    if "--table" in sys.argv:
        path = Path(table.__file__).with_name("table.json")
        path.write_text(table.dump(fit(wanted, degrees) for wanted, degrees in table.ENTRIES), encoding="utf-8")
    _certified()
    _methods()
    _weights()
    _any_type()


def _certified() -> None:
    print("| target | type | error | known | ratio | alternations | peak ratio | min Q | condition | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for degrees, known in RELU.items():
        _row("relu", fit("relu", degrees), known)
    for (theta, gap), known in JUMPRELU.items():
        _row(f"jumprelu θ={theta:g} δ={gap:g}", fit(target("jumprelu", theta, gap), (9, 8)), known)
    for name in ("jumprelu", "step", "sign", "leaky_relu"):
        for degrees in ((3, 2), (9, 8)):
            _row(name, fit(name, degrees, throw=False), None)
    print()


def _row(name: str, found: Fit, known: float | None) -> None:
    beside = "– | –" if known is None else f"{known:.5e} | {found.error / known:.4f}"
    p, q = found.type
    print(
        f"| {name} | ({p},{q}) | {found.error:.5e} | {beside} | {found.alternations} of {p + q + 2} "
        f"| {found.peak_ratio:.7f} | {found.min_denominator:.1e} | {found.conditioning:.0e} | {found.seconds:.2f} |"
    )


def _methods() -> None:
    print("| target | type | auto | relaxed_remez | adam | aaa |")
    print("|---|---|---|---|---|---|")
    for name, degrees in (("relu", (3, 2)), ("relu", (9, 8)), ("jumprelu", (3, 2)), ("jumprelu", (9, 8))):
        best = fit(name, degrees).error
        cells = [f"{best:.3e}"]
        for method in ("relaxed_remez", "adam", "aaa"):
            found = fit(name, degrees, method=method)
            error = "pole" if found.status == "pole" else f"{found.error:.3e} ({found.error / best:.1f}×)"
            cells.append(f"{error}, {found.seconds:.1f} s")
        print(f"| {name} | {degrees} | " + " | ".join(cells) + " |")
    print()


def _weights() -> None:
    print("| κ | start | error left of θ | error right of θ | predicted E√κ | predicted E/√κ |")
    print("|---|---|---|---|---|---|")
    plain = fit("jumprelu", (9, 8)).error
    for kappa in (1.0, 4.0, 16.0, 64.0):
        found = fit(target("jumprelu", kappa=kappa), (9, 8))
        left, right = (_largest_error(found, interval) for interval in found.domain)
        predicted = f"{plain * kappa**0.5:.3e} | {plain / kappa**0.5:.3e}"
        print(f"| {kappa:g} | {found.start} | {left:.3e} | {right:.3e} | {predicted} |")
    print()


def _largest_error(found: Fit, interval: tuple[float, float]) -> float:
    """Unweighted, on one interval of the set, on a grid that is dense at the jump."""
    low, high = interval
    away = (high - low) * np.geomspace(1e-7, 1, 100_001)
    t = np.concatenate([[low, high], low + away, high - away])
    t = t[(t >= low) & (t <= high)]
    return float(np.max(np.abs(found(t) - found.target(t))))


def _any_type() -> None:
    """Random jumps and degrees: how the ladder ends, by kind of type."""
    rng = np.random.default_rng(0)
    endings = {"(q + 1, q), q even": Counter[str](), "other": Counter[str]()}
    starts = Counter[str]()
    for _ in range(RANDOM_FITS):
        q = int(rng.integers(2, 9))
        p = max(0, q + int(rng.integers(-2, 3)))
        name = str(rng.choice(["jumprelu", "step", "sign"]))
        wanted = target(name, float(rng.uniform(-0.5, 0.5)), float(10 ** rng.uniform(-2.3, -0.7)))
        found = fit(wanted, (p, q), throw=False)
        endings["(q + 1, q), q even" if p == q + 1 and q % 2 == 0 else "other"][found.status] += 1
        starts[found.start] += 1
    print("| type | optimal | degenerate | stalled |")
    print("|---|---|---|---|")
    for kind, ended in endings.items():
        print(f"| {kind} | {ended['optimal']} | {ended['degenerate']} | {ended['stalled']} |")
    print("\n| hard problem | type | status | error | alternations | peak ratio | seconds |")
    print("|---|---|---|---|---|---|---|")
    for wanted, (p, q) in HARD:
        found = fit(wanted, (p, q), throw=False)
        print(
            f"| {wanted.name} θ={wanted.threshold:g} δ={wanted.gap:g} | ({p},{q}) | {found.status} | {found.error:.4e} "
            f"| {found.alternations} of {p + q + 2} | {found.peak_ratio:.4f} | {found.seconds:.1f} |"
        )
    listed = ", ".join(f"{name} {count}" for name, count in starts.most_common())
    print(f"\nStarts that the random fits came from: {listed}.")


if __name__ == "__main__":
    main()
