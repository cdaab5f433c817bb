"""Measuring SAEs on held-out text: reconstruction, next-token behaviour, probes, single latents, paired intervals."""

from rational_sae.evaluate.features import features
from rational_sae.evaluate.measure import Measurements, mean_l0, measure
from rational_sae.evaluate.metrics import Results, results
from rational_sae.evaluate.probing import Protocol, probe
from rational_sae.evaluate.run import add_probes, evaluate, evaluate_loaded, open_probes

__all__ = [
    "Measurements",
    "Protocol",
    "Results",
    "add_probes",
    "evaluate",
    "evaluate_loaded",
    "features",
    "mean_l0",
    "measure",
    "open_probes",
    "probe",
    "results",
]
