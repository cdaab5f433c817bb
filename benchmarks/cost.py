"""What upgrades cost: the model of docs/scale.md, beside measured points, and for all of Gemma Scope.

    python benchmarks/cost.py --write docs/scale.md       # about a minute on an idle core

A measured point is a whole fine-tuning step, or a forward of a language model up to a hook, in seconds of processor
time of one thread. The model has no constant fitted to the points: its rates are those of single operations, timed in
the same run at one other shape, in turn with the points, because the machine may be busy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rational_sae.bench.ours import our_jobs
from rational_sae.bench.problem import Shape, make_problem
from rational_sae.sae.sparse import Entries

MARKS = {name: (f"<!-- {name} -->", f"<!-- /{name} -->") for name in ("points", "gemma")}
REPEATS = 9

CALIBRATION = Shape(192, 1536, 512)
"""Not one of the points."""
POINTS = (
    Shape(256, 2048, 512),
    Shape(256, 4096, 512),
    Shape(384, 3072, 512),
    Shape(384, 3072, 1024),
    Shape(256, 2048, 1024, l0=64),
    Shape(512, 4096, 512, l0=16),
)
SMALLEST = Shape(8, 64, 8, l0=2)
"""A step that is nothing but calls."""

WIDTHS = (256, 384, 512)
LAYERS, CONTEXT, SEQUENCES = 3, 128, 8

SPARSE_PRODUCTS = 4
"""Products over listed entries in a step: decode, its two gradients, and the encoder's weight gradient."""
STATE_BYTES = 4
"""float32."""


@dataclass(frozen=True)
class Rates:
    """Seconds of single operations on one machine."""

    dense: float
    """Per FLOP of a dense product."""
    sparse: float
    """Per FLOP of a product over listed entries."""
    listed: float
    """Per listed entry, for the gate with its gradients."""
    entry: float
    """Per pre-activation, to find the listed ones."""
    parameter: float
    """Per parameter, for one Adam step, the gradient's norm, and writing the gradient."""
    element: float
    """Per number that an elementwise function of a language model works on."""
    call: float
    """Of a step's calls, whatever their size."""


def step_flops(shape: Shape, listed: float) -> tuple[float, float]:
    """(dense, sparse) FLOPs of a step of one SAE. listed: entries a token that are active or near their threshold."""
    dense = 2.0 * shape.batch * shape.d_in * shape.d_sae
    return dense, SPARSE_PRODUCTS * 2.0 * shape.batch * listed * shape.d_in


def step_seconds(shape: Shape, listed: float, rates: Rates) -> float:
    """Of one fine-tuning step of one SAE."""
    dense, sparse = step_flops(shape, listed)
    return (
        dense * rates.dense
        + sparse * rates.sparse
        + shape.batch * listed * rates.listed
        + shape.batch * shape.d_sae * rates.entry
        + 2 * shape.d_in * shape.d_sae * rates.parameter
        + rates.call
    )


def forward_flops(parameters: float, layers: int, width: int, context: int) -> float:
    """Of one token through so many layers: two for each weight, and attention's two products over half the context on
    average."""
    return 2 * parameters + layers * 4 * width * context / 2


def cpu(job: Callable[[], object]) -> float:
    began = time.process_time()
    job()
    return time.process_time() - began


def listed_entries(shape: Shape) -> float:
    problem = make_problem(shape)
    x = problem.x[: shape.batch]
    sae = problem.sae("hard")
    return len(sae.gate.places(sae.preactivations(x).detach())) / shape.batch


def primitives() -> dict[str, tuple[Callable[[], object], float]]:
    """Single operations at the calibration's shape: name → (job, how much of it)."""
    d, f, n = CALIBRATION.d_in, CALIBRATION.d_sae, CALIBRATION.batch
    x, W, bias = torch.randn(n, d), torch.randn(d, f), torch.zeros(f)
    per_token = 64
    places = torch.randint(f, (n, per_token)).sort(-1).values + torch.arange(n)[:, None] * f
    entries, value = Entries(places.flatten(), torch.Size([n, f])), torch.rand(n * per_token)
    W_dec = torch.randn(f, d)
    gate = make_problem(CALIBRATION).sae("hard").gate
    near = (value * 2 * make_problem(CALIBRATION).threshold).requires_grad_()

    def products() -> None:
        entries.product(value, W_dec)
        entries.transposed_product(value, x)
        entries.dots(x, W_dec)

    def codes() -> None:
        code, l0 = gate.codes(near, entries.latent, n)
        (code.sum() + l0).backward()

    activations = torch.randn(n, f)
    h, level = activations.numpy(), np.full(f, 2.5, np.float32)
    parameters = [torch.randn(d, f, requires_grad=True), torch.randn(f, d, requires_grad=True)]
    adam = torch.optim.Adam(parameters, lr=1e-9, fused=True)

    def optimise() -> None:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        adam.step()
        adam.zero_grad(set_to_none=True)

    return {
        "dense": (lambda: torch.addmm(bias, x, W), 2.0 * n * d * f),
        "sparse": (products, 3 * 2.0 * n * per_token * d),
        "listed": (codes, n * per_token),
        "element": (lambda: torch.nn.functional.silu(activations), n * f),
        "entry": (lambda: np.flatnonzero(np.greater(h, level)), n * f),
        "parameter": (optimise, 2.0 * d * f),
    }


ELEMENTWISE = 30
"""Widths of numbers a token and layer: 8 in the MLP's gate, 8 in norms, 6 in rotary positions, 2 in sums, 6 in the
softmax (counted, for the model below)."""


def host(width: int) -> tuple[Callable[[], object], float, float]:
    """A forward of a random language model without its head, its FLOPs, and its elementwise numbers."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // 64,
        max_position_embeddings=CONTEXT,
    )
    model = LlamaModel(config).eval()
    weights = sum(p.numel() for p in model.layers.parameters())
    ids = torch.randint(64, (SEQUENCES, CONTEXT))
    flops = SEQUENCES * CONTEXT * forward_flops(weights, LAYERS, width, CONTEXT)
    elements = SEQUENCES * CONTEXT * LAYERS * ELEMENTWISE * width
    return torch.no_grad()(lambda: model(ids, use_cache=False)), flops, elements


def measure(repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Every point with its measured and predicted seconds; the median of the repeats' own shares."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    single = primitives()
    smallest = our_jobs(make_problem(SMALLEST))["sparse"]
    steps = {shape: our_jobs(make_problem(shape))["sparse"] for shape in POINTS}
    listed = {shape: listed_entries(shape) for shape in POINTS}
    hosts = {width: host(width) for width in WIDTHS}
    found: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(repeats + 1):
        rates = Rates(**{name: cpu(job) / amount for name, (job, amount) in single.items()}, call=cpu(smallest))
        for shape, job in steps.items():
            seconds, predicted = cpu(job), step_seconds(shape, listed[shape], rates)
            name = f"step, d_in {shape.d_in}, d_sae {shape.d_sae}, batch {shape.batch}, L0 {shape.l0}"
            if repeat:
                found.setdefault(name, []).append((seconds, predicted))
        for width, (job, flops, elements) in hosts.items():
            seconds = cpu(job)
            if repeat:
                name = f"forward, {LAYERS} layers of width {width}, {SEQUENCES * CONTEXT} tokens"
                found.setdefault(name, []).append((seconds, flops * rates.dense + elements * rates.element))
    return [
        {
            "point": name,
            "seconds": statistics.median(measured for measured, _ in pairs),
            "ratio": statistics.median(predicted / measured for measured, predicted in pairs),
        }
        for name, pairs in found.items()
    ]


@dataclass(frozen=True)
class Suite:
    """A family of SAEs on one model."""

    name: str
    layers: int
    width: int
    weights: float
    """Of all layers, the embedding not counted."""
    vocabulary: int
    d_sae: tuple[int, ...]
    """Widths at every layer's residual stream; one sparsity each."""


GEMMA_SCOPE = (
    Suite("Gemma Scope 2B", 26, 2304, 2.02e9, 256_000, (16_384, 65_536)),
    Suite("Gemma Scope 9B", 42, 3584, 8.32e9, 256_000, (16_384, 131_072)),
)


@dataclass(frozen=True)
class Plan:
    """What each upgrade does; the defaults of `rsae upgrade`, but for `steps`."""

    steps: int = 4000
    batch: int = 1024
    candidates: int = 3
    """rsae, identity and one control."""
    eval_tokens: int = 16_384
    listed: float = 200.0
    """Entries a token that are active or near their threshold."""
    validations: int = 9
    context: int = 128


def cost(suite: Suite, plan: Plan) -> dict[str, float]:
    """FLOPs and bytes of upgrading every SAE of a suite, one sparsity each; SAEs of one hook share a harvest."""
    tokens = plan.steps * plan.batch + plan.eval_tokens  # calibration and validation are half of eval_tokens each
    forward = forward_flops(suite.weights, suite.layers, suite.width, plan.context)
    # Hooks are spread over the layers: half of the model on average. No head is needed.
    harvest = suite.layers * tokens * forward / 2
    train = measure_flops = moved = 0.0
    rows = 2 * plan.candidates + 6  # each also at the teacher's L0; teacher, rescaled, init; clean, zero and mean
    head = 2.0 * suite.vocabulary * suite.width
    for d_sae in suite.d_sae:
        shape = Shape(suite.width, d_sae, plan.batch)
        step = plan.steps * plan.candidates * sum(step_flops(shape, plan.listed))
        validate = plan.validations * plan.candidates * plan.eval_tokens / 2 * 2 * 2.0 * suite.width * d_sae
        train += suite.layers * (step + validate)
        sae = rows * 4.0 * suite.width * d_sae
        measure_flops += suite.layers * plan.eval_tokens * (rows * (forward / 2 + head) + sae)
        # Adam reads p, m, v and g and writes p, m, v and g; the norm reads g once more.
        moved += suite.layers * plan.steps * plan.candidates * 9.0 * STATE_BYTES * 2 * suite.width * d_sae
    return {
        "saes": suite.layers * len(suite.d_sae),
        "tokens": suite.layers * tokens,
        "harvest": harvest,
        "train": train,
        "measure": measure_flops,
        "optimiser_bytes": moved,
        "activation_bytes": tokens * suite.width * 4.0,
        "job_bytes": (4 * plan.candidates + 1) * 8.0 * suite.width * max(suite.d_sae),
    }


def points_table(found: list[dict[str, Any]]) -> list[str]:
    lines = ["| point | measured | predicted / measured |", "|---|---|---|"]
    return lines + [f"| {row['point']} | {row['seconds'] * 1e3:.1f} ms | {row['ratio']:.2f} |" for row in found]


def gemma_table() -> list[str]:
    lines = [
        "| suite | SAEs | tokens harvested | harvest | training | measuring | optimiser traffic | largest job |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for suite in GEMMA_SCOPE:
        c = cost(suite, Plan())
        flops = " | ".join(f"{c[key] / 1e18:.2f} EFLOP" for key in ("harvest", "train", "measure"))
        traffic = f"{c['optimiser_bytes'] / 1e15:.2f} PB | {c['job_bytes'] / 1e9:.0f} GB"
        lines.append(f"| {suite.name} | {c['saes']:.0f} | {c['tokens'] / 1e6:.0f} M | {flops} | {traffic} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="Put the tables into this page.")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    tables = {"points": points_table(measure(options.repeats)), "gemma": gemma_table()}
    for name, lines in tables.items():
        print("\n".join(lines) + "\n")
        if options.write:
            before, after = MARKS[name]
            page = options.write.read_text()
            head, _, rest = page.partition(before)
            tail = rest.partition(after)[2]
            options.write.write_text(f"{head}{before}\n" + "\n".join(lines) + f"\n{after}{tail}")


if __name__ == "__main__":
    main()
