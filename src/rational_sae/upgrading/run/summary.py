"""A finished upgrade → the dictionary of report.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rational_sae.gates.rational import RationalGate
from rational_sae.report.rows import UNTRAINED
from rational_sae.report.schema import COUNTED
from rational_sae.sae.match_l0 import CHUNK
from rational_sae.support.digests import digest
from rational_sae.support.safe_text import redact, redacted
from rational_sae.upgrading.run.title import title_of

if TYPE_CHECKING:
    from rational_sae.upgrading.result import Upgrade
    from rational_sae.upgrading.settings import Settings

GATE_POINTS = 401
HISTOGRAM_BINS = 100


def report_of(done: Upgrade) -> dict[str, Any]:
    """report.json, schema 1 (`report/schema.py`)."""
    from rational_sae.report import SCHEMA, environment

    settings = done.settings
    teacher = done.saes["teacher"]
    return {
        "schema": SCHEMA,
        "title": title_of(teacher.metadata.family, settings.model, settings.hook),
        "verdict": verdict(done),
        "warnings": redacted(done.warnings),
        **done.results.report(),
        "gate": _gate(done),
        "curves": _curves(done),
        **({"pilots": {name: asdict(one) for name, one in done.pilots.items()}} if done.pilots else {}),
        "fit": {
            "target": done.prepared.hard.fit.target.name,
            "type": list(done.prepared.hard.fit.type),
            "error": done.prepared.hard.fit.error,
            "alternations": done.prepared.hard.fit.alternations,
            "min_denominator": done.prepared.hard.fit.min_denominator,
            "calibration_rms_before": done.prepared.calibration.before,
            "calibration_rms_after": done.prepared.calibration.after,
            "out_of_range": done.prepared.hard.out_of_range,
        },
        "teacher": {
            "source": redact(teacher.metadata.source),
            "family": teacher.metadata.family,
            "d_in": teacher.d_in,
            "d_sae": teacher.d_sae,
            "hook": settings.hook,
            "model": redacted(settings.model),
            "fvu_calibration": done.prepared.verification.fvu,
            "l0_calibration": done.prepared.verification.l0,
        },
        "data": _data(done),
        "settings": settings.to_store(),
        "environment": environment(),
        "timing": done.timing,
    }


def _data(done: Upgrade) -> dict[str, Any]:
    """What was read, and how much of it."""
    settings = done.settings
    kl_tokens, further = (done.sequences.used_tokens, done.sequences.distinct_tokens) if done.sequences else (0, 0)
    distinct = done.distinct_tokens + further
    used = settings.mse_steps * settings.batch_tokens + kl_tokens
    return {
        **({"text": redact(settings.text)} if settings.vectors is None else {"vectors": redact(settings.vectors)}),
        **({} if settings.vectors is None else {COUNTED: ["vectors", "groups"]}),
        "train_tokens_distinct": distinct,
        "train_tokens_used": used,
        "train_passes": used / max(1, distinct),
        **({"kl_tokens": kl_tokens} if kl_tokens else {}),
        "test_tokens": int(done.sums.tokens.sum()),
        "test_documents": len(done.sums.tokens),
        "target_l0": done.prepared.target_l0,
        **({} if settings.vectors is not None else _positions(settings)),
        "skipped_steps": {name: candidate.skipped for name, candidate in done.candidates.items()},
        "sha256": _hashes(done),
    }


def _positions(settings: Settings) -> dict[str, Any]:
    """Which of a sequence counted."""
    firsts = " and the first of each sequence" if settings.sink == "exclude" else ""
    return {"excluded_positions": f"special tokens{firsts}", "bos": settings.bos}


def _hashes(done: Upgrade) -> dict[str, str]:
    """What went in: the teacher's tensors, and the token sequences of each split in the order read."""
    seeds = {"train": done.settings.seed}
    found = {"teacher": digest(done.saes["teacher"].state_dict())}
    for (split, seed), value in done.digests.items():
        if seed == seeds.get(split):
            found[f"{split} {'tokens' if done.settings.vectors is None else 'vectors'}"] = value
    if done.sequences is not None:
        found["train sequences of KL steps"] = done.sequences.digest
    return found


def verdict(done: Upgrade) -> str:
    """The answer at the head of the report, as one text."""
    from rational_sae.report.decision import verdict_of

    return verdict_of(
        {
            "rows": done.results.rows,
            "differences": done.results.differences,
            "data": _data(done),
            UNTRAINED: sorted(done.untrained),
            "settings": {"least_effect": done.settings.least_effect},
        }
    )


@torch.no_grad()
def _gate(done: Upgrade) -> dict[str, Any]:
    """Both gates on one grid of t, over the histogram of the upgraded SAE's pre-activations."""
    sae, initial = done.saes["rsae"], done.prepared.hard.init
    gate = sae.gate
    assert isinstance(gate, RationalGate)
    t = torch.linspace(-1.0, 1.25, GATE_POINTS).to(sae.device)  # the same points on every device
    cut = torch.median(gate.threshold / gate.scale)
    start_cut = torch.median(initial.threshold / initial.scale)
    counts = np.zeros(HISTOGRAM_BINS)
    edges = np.linspace(-1.0, 1.25, HISTOGRAM_BINS + 1)
    total = 0
    for x in done.calibration_x.split(CHUNK):
        sample = (sae.preactivations(x) / gate.scale).flatten()[::7].cpu().numpy()
        counts += np.histogram(sample, edges)[0]
        total += len(sample)

    def curve(gate: RationalGate, threshold: torch.Tensor) -> list[float]:
        return gate.on_line(t, threshold).tolist()

    return {
        "description": f"{gate.mode} gate; t = h / s_j, thresholds at their median",
        "threshold": float(cut),
        "t": t.tolist(),
        "teacher": torch.where(t > start_cut, t, 0.0).tolist(),
        "initial": curve(initial, start_cut),
        "final": curve(gate, cut),
        "histogram": {"edges": edges.tolist(), "density": (counts / total / np.diff(edges)).tolist()},
    }


def _curves(done: Upgrade) -> dict[str, Any]:
    return {
        "target_l0": done.prepared.target_l0,
        "train": {
            name: {
                "step": c.curve.step,
                "mse": c.curve.mse,
                "l0": c.curve.l0,
                "sparsity_weight": c.curve.sparsity_weight,
                **({"kl": c.curve.kl} if any(c.curve.kl) else {}),
            }
            for name, c in done.candidates.items()
        },
        "validation": {name: {**c.validation, "kept_step": c.kept_step} for name, c in done.candidates.items()},
    }
