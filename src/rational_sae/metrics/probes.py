"""Accuracies of sparse probing, which `evaluation.probing` measures on labelled texts."""

from __future__ import annotations

from rational_sae.metrics.metric import Metric

ALL = 0
"""As a k: every latent."""

LATENTS_OF = {"probe_k1": 1, "probe_k2": 2, "probe_k5": 5, "probe_k20": 20, "probe_dense": ALL}
"""Name → k: SAEBench's and a larger one; every latent."""


def _metric(name: str, k: int) -> Metric:
    label, latents = (f"Probe k={k}", f"{k} latent(s), SAEBench protocol") if k else ("Probe dense", "all latents")
    words = f"Test accuracy of a linear probe on {latents}."
    return Metric(name, label, words, better="higher", table="probing", weighed=True)


PROBES = tuple(_metric(name, k) for name, k in LATENTS_OF.items())
