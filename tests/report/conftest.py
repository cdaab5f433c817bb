"""Reports to draw: one with every section and realistic numbers, one with the least that is a report."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest

METRICS = {
    "teacher": (592.1, 0.13241, 32.0, 0.9132, 0.4122, 0.9562, 0.3911),
    "teacher_rescaled": (590.8, 0.13212, 32.0, 0.9132, 0.4119, 0.9563, 0.3907),
    "init": (571.4, 0.12779, 33.41, 0.9201, 0.3987, 0.9577, 0.3782),
    "rsae": (542.0, 0.12123, 32.2, 0.9417, 0.3512, 0.9627, 0.3344),
    "identity": (549.2, 0.12284, 32.23, 0.9411, 0.3561, 0.9622, 0.3390),
    "control_native": (579.6, 0.12962, 32.0, 0.9278, 0.3890, 0.9587, 0.3701),
    "control_jumprelu": (547.3, 0.12241, 32.61, 0.9388, 0.3549, 0.9623, 0.3375),
}


def _row(
    mse: float, fvu: float, l0: float, alive: float, delta: float, recovered: float, kl: float
) -> dict[str, float]:
    return {
        "mse": mse,
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "l0": l0,
        "alive_fraction": alive,
        "ce_clean": 3.2174,
        "ce_sae": 3.2174 + delta,
        "ce_zero": 12.6311,
        "ce_mean": 9.8712,
        "delta_ce": delta,
        "loss_recovered": recovered,
        "loss_recovered_mean": recovered - 0.018,
        "ce_loss_score": recovered - 0.002,
        "kl": kl,
        "top1_agreement": 1 - kl / 2,
        "fvu_at_l0": fvu + (l0 - 32.0) * 0.0011,
        "delta_ce_at_l0": delta + (l0 - 32.0) * 0.003,
    }


def _differences(rows: dict[str, dict[str, float]], other: str) -> dict[str, Any]:
    found = {}
    for key, value in rows["rsae"].items():
        difference = value - rows[other][key]
        width = 0.15 * abs(difference) if other == "teacher" else 0.4 * abs(difference) + 0.0003
        found[key] = {"value": difference, "interval": [difference - width, difference + width]}
    return found


def _gate() -> dict[str, Any]:
    t = [-1 + i / 200 for i in range(401)]
    threshold = 0.118
    edges = [-1.2 + i * 0.02 for i in range(121)]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    return {
        "description": "JumpReLU gate of the teacher, read with a separating threshold, and the rational of type "
        "(9, 8) before and after fine-tuning, cut to exact zeros at the threshold.",
        "threshold": threshold,
        "t": t,
        "teacher": [x if x > threshold else 0.0 for x in t],
        "initial": [x + 0.004 * math.sin(9 * x) if x > threshold else 0.0 for x in t],
        "final": [1.03 * x - 0.012 + 0.01 * math.exp(-9 * x) if x > threshold else 0.0 for x in t],
        "histogram": {
            "edges": edges,
            "density": [
                4.4 * math.exp(-(((x + 0.12) / 0.085) ** 2)) + (2e-3 * math.exp(-4 * x) if 0 < x < 0.9 else 0.0)
                for x in middles
            ],
        },
    }


def _curves() -> dict[str, Any]:
    noise = random.Random(0)
    steps = list(range(1, 601))
    finals = {"rsae": (541.0, 32.0), "identity": (549.0, 32.0), "control_native": (580.0, 32.0)}
    train: dict[str, Any] = {}
    validation: dict[str, Any] = {}
    for row, (final, target) in finals.items():
        train[row] = {
            "step": steps,
            "mse": [final + 45 * math.exp(-s / 90) + noise.gauss(0, 12) for s in steps],
            "l0": [target + 2.5 * math.exp(-s / 40) * math.cos(s / 25) + noise.gauss(0, 0.25) for s in steps],
        }
        if row != "control_native":  # a top-k teacher holds its L0 without a penalty
            train[row]["sparsity_weight"] = [0.02 * (1 - math.exp(-s / 60)) + 0.001 for s in steps]
        seen = list(range(0, 601, 50))
        validation[row] = {
            "step": seen,
            "fvu": [final / 4480 + 0.008 * math.exp(-s / 110) for s in seen],
            "l0": [target + 1.5 * math.exp(-s / 80) for s in seen],
            "kept_step": 600 if row != "identity" else 550,
        }
    return {"train": train, "validation": validation, "target_l0": 32.0}


def _firing() -> dict[str, Any]:
    edges = [-6 + i * 0.25 for i in range(25)]
    middles = [e + 0.125 for e in edges[:-1]]
    rows = {"teacher": -2.4, "rsae": -2.3, "identity": -2.32, "control_native": -2.38}
    return {
        "edges_log10": edges,
        "counts": {row: [round(240 * math.exp(-(((m - c) / 0.7) ** 2))) for m in middles] for row, c in rows.items()},
        "dead": {"teacher": 200, "rsae": 134, "identity": 136, "control_native": 166},
    }


TEXT = (
    "The court said on Tuesday that prices rose by 3.1 % in March , after the bank had raised its rate again . "
    "Scientists in Kyoto found a protein that folds twice as fast when it is warm , but nobody knows why . "
    "She scored in the 89 th minute and the crowd , silent until then , sang as the rain came down ."
)
WORDS = TEXT.split()
PROBE_VALUES = {
    "teacher": (0.712, 0.744, 0.801, 0.858, 0.902),
    "rsae": (0.721, 0.751, 0.809, 0.861, 0.903),
    "identity": (0.717, 0.747, 0.806, 0.860, 0.902),
    "activations": (0.643, 0.668, 0.731, 0.822, 0.914),
}
SUITE_KEYS = ("auc_k1", "auc_k2", "auc_k5", "auc_k16")
PROBE_KEYS = ("probe_k1", "probe_k2", "probe_k5", "probe_k20", "probe_dense")


def _example(noise: random.Random, scale: float) -> dict[str, Any]:
    start, peak = noise.randrange(len(WORDS)), noise.randrange(8, 16)
    tokens = [(" " if i else "") + WORDS[(start + i) % len(WORDS)] for i in range(20)]
    values = [0.0] * 20
    for i in range(max(0, peak - 2), min(20, peak + 2)):
        values[i] = scale * noise.uniform(0.2, 0.7)
    values[peak] = scale
    return {"tokens": tokens, "values": values, "peak": peak}


def _latent(noise: random.Random, number: int, place: int) -> dict[str, Any]:
    """Its status, and with it which side is silent, goes round: mostly kept."""
    status = {3: "newly_alive", 5: "newly_dead", 7: "dead"}.get(place % 20, "kept")
    alive = {"teacher": status in ("kept", "newly_dead"), "rsae": status in ("kept", "newly_alive")}
    cos = 1 - 0.4 * noise.random() ** 3
    return {
        "latent": number,
        "status": status,
        "change": 1 - cos,
        "cos_decoder": cos,
        "cos_encoder": cos - 0.02 * noise.random(),
        "correlation": 1 - 0.6 * noise.random() ** 2 if status == "kept" else None,
        "density": {row: 10 ** noise.uniform(-4, -1.2) if alive[row] else 0.0 for row in alive},
        "examples": {
            row: [_example(noise, 9.3 * noise.random() + 1) for _ in range(5)] if alive[row] else [] for row in alive
        },
    }


def _features(latents: int) -> dict[str, Any]:
    noise = random.Random(1)
    numbers = noise.sample(range(2304), latents)
    listed = [_latent(noise, number, place) for place, number in enumerate(numbers)]
    return {
        "rows": ["teacher", "rsae"],
        "summary": {
            "dead": {"teacher": 200, "rsae": 134},
            "newly_alive": 91,
            "newly_dead": 25,
            "median_cos_decoder": 0.97312,
        },
        "latents": sorted(listed, key=lambda latent: -latent["change"]),
    }


def _around(value: float, width: float) -> dict[str, Any]:
    return {"value": value, "interval": [value - width, value + width]}


def _suite() -> dict[str, Any]:
    """Twelve tasks, three rows and random weights, as `evaluation.suite` reports them."""
    noise = random.Random(1)
    means = {"teacher": (0.66, 0.69, 0.73, 0.77), "rsae": (0.67, 0.70, 0.74, 0.77), "random": (0.55, 0.57, 0.61, 0.66)}
    tasks: dict[str, Any] = {
        f"{number}_task": {
            "train_texts": 200,
            "test_texts": 99,
            "copies": 7,
            "test": {
                **{
                    row: {
                        key: {"auc": value + noise.gauss(0, 0.04), "accuracy": value - 0.05}
                        for key, value in zip(SUITE_KEYS, values, strict=True)
                    }
                    for row, values in means.items()
                },
                "activations": {"auc_all": {"auc": 0.86, "accuracy": 0.8}},
            },
        }
        for number in range(12)
    }
    pairs = ("rsae - teacher", "rsae - random")
    mean = {row: dict(zip(SUITE_KEYS, values, strict=True)) for row, values in means.items()}
    summary = {
        "tasks": 12,
        "mean": {
            **{row: {key: _around(value, 0.03) for key, value in keys.items()} for row, keys in mean.items()},
            "activations": {"auc_all": _around(0.86, 0.02)},
        },
        "differences": {
            pair: {
                key: _around(mean[row][key] - mean[base][key], 0.02) | {"wins": 8, "losses": 4} for key in SUITE_KEYS
            }
            for pair in pairs
            for row, base in [pair.split(" - ")]
        },
    }
    return {
        "protocol": {"method": "sae-probes 0.4.2", "seed": 42},
        "tasks": tasks,
        "left_out": {"131_temp_cat": "too few texts"},
        "test": summary,
        "elsewhere": {"tasks": 1, "mean": {"rsae": {"auc_k1": {"value": 0.6}}}, "differences": {}},
    }


def add_everything(report: dict[str, Any], latents: int) -> dict[str, Any]:
    """Probes, features and absorption on top of a report."""
    for row, values in PROBE_VALUES.items():
        report["rows"].setdefault(row, {}).update(zip(PROBE_KEYS, values, strict=True))
        report["intervals"].setdefault(row, {}).update(
            {key: [value - 0.008, value + 0.008] for key, value in zip(PROBE_KEYS, values, strict=True)}
        )
    for key, ours, base in zip(PROBE_KEYS, PROBE_VALUES["rsae"], PROBE_VALUES["teacher"], strict=True):
        report["differences"]["rsae - teacher"][key] = _around(ours - base, 0.005)
    report["probing"] = {
        "protocol": {"k": [1, 2, 5, 20], "seeds": [42, 43, 44], "classifier": "LogisticRegression(C=1)"},
        "tasks": {
            task: {
                "classes": ["sport", "world", "business", "science"][:classes],
                "train": 800,
                "test": 200,
                "rows": {
                    row: {key: _around(v + shift, 0.02) for key, v in zip(PROBE_KEYS, values, strict=True)}
                    for row, values in PROBE_VALUES.items()
                },
            }
            for task, classes, shift in (("news topics", 4, 0.03), ("sentiment", 2, -0.03))
        },
    }
    report["suite"] = _suite()
    report["features"] = _features(latents)
    report["also"] = {key: report[key] for key in ("rows", "intervals", "differences")} | {
        "text": "chat.jsonl",
        "data": {"test_tokens": 4000, "test_documents": 61},
        "warnings": [],
    }
    report["absorption"] = {
        row: {"absorption_fraction": _around(value, 0.01), "letters": 26, "smoke_test": "a smoke test: 2,304 latents"}
        for row, value in (("teacher", 0.114), ("rsae", 0.097))
    }
    return report


@pytest.fixture
def everything(full: dict[str, Any]) -> dict[str, Any]:
    """The full report with probes, 500 latents and absorption."""
    return add_everything(full, 500)


@pytest.fixture
def several(full: dict[str, Any]) -> dict[str, Any]:
    """The same with 60 latents: quick to draw."""
    return add_everything(full, 60)


@pytest.fixture
def full() -> dict[str, Any]:
    """Every section, with numbers of a real upgrade's size."""
    rows = {name: _row(*values) for name, values in METRICS.items()}
    return {
        "schema": 1,
        "title": "Rational upgrade of smollm2 layer 12, TopK k=32",
        "verdict": "The rational SAE explains more than its teacher at the same sparsity (FVU 0.1212 against 0.1324); "
        "of this gain, 0.0016 is the rational's own, over the same machinery without it.",
        "warnings": ["61 % of the training tokens were used twice: the text is shorter than was asked for."],
        "rows": rows,
        "intervals": {
            row: {
                key: [value - 0.012 * abs(value), value + 0.012 * abs(value)]
                for key, value in values.items()
                if not (key == "l0" and row == "teacher")
            }
            for row, values in rows.items()
        },
        "differences": {
            f"rsae - {other}": _differences(rows, other) for other in ("teacher", "control_native", "identity")
        },
        "gate": _gate(),
        "curves": _curves(),
        "firing": _firing(),
        "fit": {
            "type": [9, 8],
            "error": 3.1e-4,
            "alternations": 19,
            "min_denominator": 2.3e-5,
            "target": "jumprelu, threshold 0.118, gap 0.01",
        },
        "teacher": {
            "family": "topk",
            "source": "demo/teachers/topk",
            "formula": "x̂ = W_dec·z + b_dec, z = TopK(W_enc·(x − b_dec) + b_enc)",
            "d_in": 576,
            "d_sae": 2304,
            "hook": "model.layers.11",
            "model": "smollm2",
        },
        "data": {"text": "embedded", "train_tokens": 600000, "test_tokens": 50000, "bos": "excluded"},
        "settings": {"steps": 600, "learning_rate": 1e-4, "gate": "hard", "type": [9, 8], "control": {"band": 0.05}},
        "environment": {"python": "3.11.9", "torch": "2.8.0", "device": "cpu", "deterministic": True},
        "timing": {"harvest": 41.23, "fit": 0.81, "finetune": 128.4, "evaluate": 63.0},
    }


@pytest.fixture
def minimal() -> dict[str, Any]:
    return {"schema": 1, "title": "Least", "verdict": "Nothing was trained.", "rows": {"teacher": {"fvu": 0.25}}}


@pytest.fixture
def swept(full: dict[str, Any]) -> dict[str, Any]:
    """A sweep's summary: two families, two sparsities each."""
    cells = {}
    for number, (name, family) in enumerate(
        [("a cell", "topk"), ("topk-64", "topk"), ("relu-30", "relu"), ("relu-60", "relu")]
    ):
        part = 1 + number % 2
        cells[name] = {
            "model": "smollm2",
            "hook": "model.layers.11",
            "family": family,
            "d_sae": 2304,
            "development": not number,
            "rows": {
                row: {key: value * part if key == "l0" else value / part for key, value in values.items()}
                for row, values in full["rows"].items()
            },
            "intervals": {},
            "differences": full["differences"],
            "verdict": full["verdict"],
            "seconds": 12.0,
        }
    ratio = {
        "geometric_mean": 0.91,
        "worst": 0.99,
        "worst_cell": "relu-60",
        "cells": 4,
        "clearly_better": 3,
        "clearly_worse": 0,
    }
    return {
        "schema": 1,
        "cells": cells,
        "ratios": {"headline": {"teacher": {"fvu_at_l0": ratio}}, "development": {}},
        "rates": {},
        "failed": {"gone": "no such folder"},
        "missing": [],
    }
