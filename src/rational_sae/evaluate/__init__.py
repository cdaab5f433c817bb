"""Measuring SAEs on held-out text: reconstruction, next-token behaviour, paired intervals."""

from rational_sae.evaluate.measure import Measurements, mean_l0, measure
from rational_sae.evaluate.metrics import Results, results
from rational_sae.evaluate.run import evaluate, evaluate_loaded

__all__ = ["Measurements", "Results", "evaluate", "evaluate_loaded", "mean_l0", "measure", "results"]
