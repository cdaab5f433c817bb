"""Figures of sparse probing, which `evaluation.probing` and `evaluation.suite` measure on labelled texts."""

from __future__ import annotations

from rational_sae.metrics.metric import Metric

ALL = 0
"""As a k: every latent."""

LATENTS_OF = {"probe_k1": 1, "probe_k2": 2, "probe_k5": 5, "probe_k20": 20, "probe_dense": ALL}
"""Name → k: SAEBench's and a larger one; every latent."""

AUC_OF = {"auc_k1": 1, "auc_k2": 2, "auc_k5": 5, "auc_k16": 16}
"""Name → k, of the tasks of sae-probes: SAEBench's, and the largest of the package's own example."""

AUC_ALL = "auc_all"


def _metric(name: str, k: int) -> Metric:
    label, latents = (f"Probe k={k}", f"{k} latent(s), SAEBench protocol") if k else ("Probe dense", "all latents")
    words = f"Test accuracy of a linear probe on {latents}."
    return Metric(name, label, words, better="higher", table="probing", weighed=True)


def _auc(name: str, k: int) -> Metric:
    words = (
        f"Area under the ROC curve of a probe on {k} latent(s) at the last token, mean over the tasks of sae-probes."
    )
    return Metric(name, f"AUC k={k}", words, better="higher", table="suite", weighed=True)


PROBES = (
    *(_metric(name, k) for name, k in LATENTS_OF.items()),
    *(_auc(name, k) for name, k in AUC_OF.items()),
    Metric(
        AUC_ALL,
        "AUC all",
        "The same of a probe on the whole residual vector, the suite's own reference.",
        better="higher",
        table="suite",
    ),
)
