"""Measuring SAEs on held-out text: reconstruction, next-token behaviour, probes, single latents, paired intervals."""

from rational_sae.evaluation.features import features
from rational_sae.evaluation.measure import Measurements, mean_l0, measure
from rational_sae.evaluation.metrics import Results, results
from rational_sae.evaluation.probing import Protocol, probe
from rational_sae.evaluation.run import add_probes, evaluate, evaluate_loaded, open_probes

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
