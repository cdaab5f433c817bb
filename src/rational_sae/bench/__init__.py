"""What a step costs here: ours, the bare products, and the other tools' own, in one run."""

from rational_sae.bench.run import SHAPES, Shape, bench

__all__ = ["SHAPES", "Shape", "bench"]
