"""Measuring SAEs on held-out text: reconstruction, next-token behaviour, probes, single latents, paired intervals."""

from rational_sae.evaluation.comparison import Comparison, comparison
from rational_sae.evaluation.features import features
from rational_sae.evaluation.measure import Measurements, mean_l0, measure, measure_vectors
from rational_sae.evaluation.metrics import Results, Way, results
from rational_sae.evaluation.probing import Protocol, probe
from rational_sae.evaluation.pursuit import PursuedSAE, as_many_as, pursue, same_for_all
from rational_sae.evaluation.run import Probes, evaluate, evaluate_loaded, open_probes, require_same_place, with_probes
from rational_sae.evaluation.suite.tasks import Size

__all__ = [
    "Comparison",
    "Measurements",
    "Probes",
    "Protocol",
    "PursuedSAE",
    "Results",
    "Size",
    "Way",
    "as_many_as",
    "comparison",
    "evaluate",
    "evaluate_loaded",
    "features",
    "mean_l0",
    "measure",
    "measure_vectors",
    "open_probes",
    "probe",
    "pursue",
    "require_same_place",
    "results",
    "same_for_all",
    "with_probes",
]
