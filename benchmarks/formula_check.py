"""How often the formula check accuses a right SAE, and how often it names what is wrong with a confused one.

    python benchmarks/formula_check.py               # about five minutes on two cores, a language model's stream too
    python benchmarks/formula_check.py --synthetic   # about three

Right SAEs of every family, density and normalisation are made on streams of several kinds: ± principal directions and
k-means (a basis, which is best as dense as can be), the dictionary that made the stream, and tiny ones trained for some
hundred steps; and, on `smollm2` with `news` at the demo's hook, the demo's teachers beside bases and quickly trained
ones. Each is then read wrongly in each of the usual ways. A confusion *matters* where the right formula leaves at most
MATTERS of the error that the wrong one leaves: others cannot be told by errors, and do little harm.

Prints the accused of the right ones, then a line for each kind of confusion. Everything is seeded.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rational_sae.check.alternatives import likely_formula
from rational_sae.data.reading import Reading
from rational_sae.formats import load
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Normalisation

MATTERS = 0.8
D_IN, FEATURES, D_SAE = 48, 160, 192
STREAMS = ("plain", "mean", "massive", "centred", "offset", "small", "sparse")
TEACHERS = Path(__file__).parents[1] / "demo" / "teachers"


@dataclass(frozen=True)
class Case:
    """An SAE as somebody reads it."""

    name: str
    kind: str
    """Of confusion; empty for a right one."""
    sae: SAE
    x: Tensor
    right: str = ""
    """Pattern of what is to be named."""
    share: float = 1.0
    """Of this reading's error that the right one leaves."""


@dataclass(frozen=True)
class Stream:
    """Activations that a known dictionary made."""

    kind: str
    train: Tensor
    test: Tensor
    dictionary: Tensor
    """[features, d_in], rows of norm 1."""
    centre: Tensor
    """[d_in]: what no feature explains."""


def stream(kind: str, *, train: int = 8000, test: int = 1000, seed: int = 0) -> Stream:
    """Six of FEATURES a token on average, their frequencies falling as a power, sizes log-normal, norms that vary by
    token. kind: `plain` has a mean near 0, the others a large one; `massive` has two dimensions far off, `centred` no
    mean over d_in, `offset` one that varies, and `small` is in other units. `sparse` is easier: three of 64 features a
    token, nearly orthogonal, about equally frequent and large, under one mean."""
    if kind == "sparse":
        return sparse_stream(train, test, seed)
    fixed, drawn = (torch.Generator().manual_seed(seed + part) for part in (0, 1000))
    n = train + test
    dictionary = normalize(torch.randn(FEATURES, D_IN, generator=fixed), dim=-1)
    rate = 1 / torch.arange(1, FEATURES + 1) ** 0.8
    rate *= 6 / rate.sum()
    size = 2 * (0.5 * torch.randn(n, FEATURES, generator=drawn)).exp()
    x = ((torch.rand(n, FEATURES, generator=drawn) < rate) * size) @ dictionary
    x += 0.15 * torch.randn(n, D_IN, generator=drawn)
    centre = -(rate * 2 * 1.133) @ dictionary  # so that the features' own mean is taken off
    if kind != "plain":
        centre += 8 * normalize(torch.randn(D_IN, generator=fixed), dim=-1)
    x = (x + centre) * (1 + 0.25 * torch.randn(n, 1, generator=drawn)).clamp_min(0.3)
    if kind == "massive":
        x[:, 3] += 60 + 8 * torch.randn(n, generator=drawn)
        x[:, 17] -= 25 + 3 * torch.randn(n, generator=drawn)
    if kind == "offset":
        x += 2 + 1.5 * torch.randn(n, 1, generator=drawn)
    if kind == "centred":
        x -= x.mean(-1, keepdim=True)
    if kind == "small":
        x, centre = x * 0.05, centre * 0.05
    return Stream(kind, x[:train], x[train:], dictionary, centre)


def sparse_stream(train: int, test: int, seed: int) -> Stream:
    fixed, drawn = (torch.Generator().manual_seed(seed + part) for part in (0, 1000))
    n, features = train + test, D_IN + D_IN // 3
    dictionary = normalize(torch.randn(features, D_IN, generator=fixed), dim=-1)
    for _ in range(100):  # push apart what is alike
        alike = dictionary @ dictionary.T
        dictionary = normalize(dictionary - 0.2 * (alike - torch.eye(features)) @ dictionary, dim=-1)
    size = 2 * (0.25 * torch.randn(n, features, generator=drawn)).exp()
    active = torch.rand(n, features, generator=drawn) < 3 / features
    centre = 4 * normalize(torch.randn(D_IN, generator=fixed), dim=-1)
    x = (active * size) @ dictionary + centre + 0.05 * torch.randn(n, D_IN, generator=drawn)
    return Stream("sparse", x[:train], x[train:], dictionary, centre)


def basis(x: Tensor, k: int, *, threshold: bool = False) -> SAE:
    """A TopK, or a threshold of its L0, over ± the principal directions of x: [n, d_in]."""
    mean = x.mean(0)
    directions = torch.linalg.svd(x - mean, full_matrices=False).Vh
    rows = torch.cat([directions, -directions])
    sae = SAE(rows.T, torch.zeros(len(rows)), rows, mean, TopKGate(k))
    return as_threshold(sae, x, k) if threshold else sae


def clusters(x: Tensor, d_sae: int) -> SAE:
    """A TopK with k = 1 over the means of spherical k-means."""
    rng = torch.Generator().manual_seed(0)
    mean = x.mean(0)
    directions = normalize(x - mean, dim=-1)
    rows = directions[torch.randperm(len(x), generator=rng)[:d_sae]]
    for _ in range(8):
        nearest = (directions @ rows.T).argmax(-1)
        rows = normalize((1e-4 * rows).index_add_(0, nearest, directions), dim=-1)
    return SAE(rows.T, torch.zeros(d_sae), rows, mean, TopKGate(1))


def truth(one: Stream, *, k: int, threshold: bool = False) -> SAE:
    """The dictionary that made the stream."""
    rows = one.dictionary
    sae = SAE(rows.T, torch.zeros(len(rows)), rows, one.centre, TopKGate(k))
    return as_threshold(sae, one.train, k) if threshold else sae


@torch.no_grad()
def as_threshold(sae: SAE, x: Tensor, l0: float) -> SAE:
    """The SAE with one threshold for all latents, of this L0 on x: what a BatchTopK is at inference."""
    h = sae.preactivations(x[:4096]).flatten()
    cut = float(h.topk(int(l0 * len(x[:4096]))).values[-1])
    return sae.with_gate(ThresholdGate(torch.full((sae.d_sae,), max(cut, 0.0))))


def trained(
    x: Tensor,
    family: str,
    *,
    k: int = 8,
    sparsity: float = 0.1,
    d_sae: int = D_SAE,
    steps: int = 400,
    batch: int = 256,
    normalisation: Normalisation = "none",
    subtract: bool = True,
) -> SAE:
    """A tiny SAE of a family: relu (L1 of weight `sparsity`), topk or batchtopk. x: [n, d_in] as it is to be read."""
    rng = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(d_sae, x.shape[1], generator=rng), dim=-1)
    gate = ReLUGate() if family == "relu" else TopKGate(k)
    sae = SAE(
        rows.T,
        torch.zeros(d_sae),
        rows,
        torch.zeros(x.shape[1]),
        gate,
        normalisation=normalisation,
        apply_b_dec_to_input=subtract,
    )
    n = sae.normalise(x)[0]
    size = float((n - n.mean(0)).norm(dim=-1).mean())
    with torch.no_grad():
        sae.b_dec.copy_(n.mean(0))
        if not subtract:
            sae.b_enc.copy_(-sae.b_dec @ sae.W_enc)
    weights, biases = [sae.W_enc, sae.W_dec], [sae.b_enc, sae.b_dec]
    rates = [2e-3, 2e-3 * size]
    optimiser = torch.optim.Adam([{"params": weights}, {"params": biases}], betas=(0.9, 0.99))
    for step in range(steps):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, 3 * (1 - step / steps))
        y = n[torch.randint(len(n), (batch,), generator=rng)]
        h = (y - sae.b_dec if subtract else y) @ sae.W_enc + sae.b_enc
        if family == "batchtopk":
            z = torch.where(h > h.detach().flatten().topk(k * batch).values[-1].clamp_min(0), h, 0.0)
        elif family == "topk":
            largest = h.topk(k, dim=-1)
            z = torch.zeros_like(h).scatter(1, largest.indices, largest.values.relu())
        else:
            z = h.relu()
        loss = (y - z @ sae.W_dec - sae.b_dec).pow(2).sum(-1).mean() / size**2
        if family == "relu":
            loss = loss + sparsity * z.sum(-1).mean() / size
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            sae.W_dec /= sae.W_dec.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    sae.requires_grad_(False)
    return as_threshold(sae, x, k) if family == "batchtopk" else sae


def synthetic(kind: str) -> Iterator[Case]:
    """All cases of one kind of stream."""
    one = stream(kind)
    x, tokens = one.train, one.test
    saes = {f"basis, k {k}": basis(x, k) for k in (4, 12, 24, 32)}
    saes |= {f"basis, threshold {k}": basis(x, k, threshold=True) for k in (4, 24)}
    saes["clusters, k 1"] = clusters(x, D_SAE)
    if kind == "sparse":
        saes["dictionary, k 3"] = truth(one, k=3)
        saes["dictionary, threshold 3"] = truth(one, k=3, threshold=True)
        saes["TopK 3, longer"] = trained(x, "topk", k=3, steps=1500)
        saes["BatchTopK 3, longer"] = trained(x, "batchtopk", k=3, steps=1500)
    saes |= {f"TopK {k}": trained(x, "topk", k=k) for k in (4, 16, 48, 64)}
    saes |= {f"BatchTopK {k}": trained(x, "batchtopk", k=k) for k in (4, 32)}
    saes |= {f"ReLU, L1 {weight}": trained(x, "relu", sparsity=weight) for weight in (0.02, 0.1, 0.4)}
    families = {"TopK 16": ("topk", 16), "BatchTopK 8": ("batchtopk", 8), "ReLU": ("relu", 0)}
    for name, (family, k) in families.items():
        saes[f"{name}, b_dec not subtracted"] = trained(x, family, k=k, subtract=False)
        for normalisation in ("layer_norm", "constant_norm_rescale"):
            saes[f"{name}, {normalisation}"] = trained(x, family, k=k, normalisation=normalisation)
        scale = D_IN**0.5 / float(x.norm(dim=-1).mean())
        sae = trained(x * scale, family, k=k)
        folded = copy.deepcopy(sae)
        folded.rescale_input_(1 / scale)
        saes[f"{name}, scaled"] = folded
        yield case(f"{kind}: {name}", "scale forgotten", sae, tokens, "x scaled to mean norm √d_in", folded)
        if kind != "centred":
            sae, away = trained(centred(x), family, k=k), centred(tokens)
            yield case(f"{kind}: {name}", "centring forgotten", sae, tokens, "x centred over d_in", sae, away)
            yield Case(f"{kind}: {name}, centred stream", "", sae, away)
    for name, sae in saes.items():
        yield from readings(f"{kind}: {name}", sae, tokens)


def real() -> Iterator[Case]:
    """The demo's teachers on the demo's stream, and bases and quickly trained SAEs of the same stream."""
    teachers = {family: load(str(TEACHERS / family)) for family in ("relu", "jumprelu", "topk")}
    reader = Reading(text="news").open(teachers["topk"])
    x = torch.cat(list(reader.vectors("train", 32_768)))
    tokens = reader.sample("calibration", 3072)
    saes = {f"the demo's {name}": sae for name, sae in teachers.items()}
    saes |= {f"basis, k {k}": basis(x, k) for k in (16, 64, 192, 384)}
    saes |= {f"basis, threshold {k}": basis(x, k, threshold=True) for k in (32, 128)}
    saes["clusters, k 1"] = clusters(x, 1152)
    for k in (32, 128, 256):
        saes[f"TopK {k}"] = trained(x, "topk", k=k, d_sae=768)
    saes["TopK 64, layer_norm"] = trained(x, "topk", k=64, d_sae=768, normalisation="layer_norm")
    saes["BatchTopK 64"] = trained(x, "batchtopk", k=64, d_sae=768)
    saes["ReLU"] = trained(x, "relu", sparsity=0.05, d_sae=768)
    for name, sae in saes.items():
        yield from readings(f"smollm2: {name}", sae, tokens)
    for name, sae in saes.items():
        if sae.normalisation == "none":
            unscaled = copy.deepcopy(sae)
            unscaled.rescale_input_(sae.d_in**0.5 / float(tokens.norm(dim=-1).mean()))
            yield case(f"smollm2: {name}", "scale forgotten", unscaled, tokens, "x scaled to mean norm √d_in", sae)
    # This stream's own mean over d_in is small: centring is forgotten where one is added to it.
    offset = tokens + 2 + 4 * torch.randn(len(tokens), 1, generator=torch.Generator().manual_seed(0))
    for family, options in {"topk": {"k": 64}, "batchtopk": {"k": 64}, "relu": {"sparsity": 0.05}}.items():
        sae = trained(centred(x), family, d_sae=768, **options)
        yield Case(f"smollm2: {family}, centred stream", "", sae, centred(tokens))
        yield case(f"smollm2: {family}", "centring forgotten", sae, offset, "x centred over d_in", sae, centred(offset))


def readings(name: str, sae: SAE, x: Tensor) -> Iterator[Case]:
    """A right SAE, and the usual ways to read it wrongly."""
    yield Case(name, "", sae, x)
    wrong = copy.deepcopy(sae)
    wrong.apply_b_dec_to_input = not sae.apply_b_dec_to_input
    said = "b_dec subtracted" if sae.apply_b_dec_to_input else "b_dec not subtracted"
    yield case(name, "b_dec the other way", wrong, x, said, sae)
    if sae.normalisation == "none":
        for normalisation in ("layer_norm", "constant_norm_rescale"):
            wrong = copy.deepcopy(sae)
            wrong.normalisation = normalisation
            yield case(name, "normalised, but should not be", wrong, x, "normalisation none", sae)
    else:
        wrong = copy.deepcopy(sae)
        wrong.normalisation = "none"
        # Without a mean over d_in the two are one.
        either = "(layer_norm|constant_norm_rescale)" if name.startswith("centred") else sae.normalisation
        yield case(name, "normalisation forgotten", wrong, x, f"normalisation {either}", sae)
    if isinstance(sae.gate, TopKGate):
        for factor in (4, 2, 0.5, 0.25):
            k = round(sae.gate.k * factor)
            if 1 <= k <= sae.d_sae // 2:
                kind = "k too large" if factor > 1 else "k too small"
                yield case(name, kind, sae.with_gate(TopKGate(k)), x, r"TopK \(k .*\)", sae)
        yield case(name, "TopK read as ReLU", sae.with_gate(ReLUGate()), x, r"TopK \(k .*\)", sae)
    if isinstance(sae.gate, ThresholdGate):
        yield case(name, "threshold read as ReLU", sae.with_gate(ReLUGate()), x, r"a threshold \(.*\)", sae)
    norms = (0.5 * torch.randn(sae.d_sae, generator=torch.Generator().manual_seed(5))).exp()
    wrong = copy.deepcopy(sae)
    with torch.no_grad():
        wrong.W_enc /= norms
        wrong.b_enc /= norms
        wrong.W_dec *= norms[:, None]
    if not isinstance(sae.gate, ReLUGate):
        yield case(name, "selected without norms", wrong, x, "latents selected by code times decoder norm", sae)
    if float((sae.W_dec.detach().norm(dim=-1) - 1).abs().max()) < 0.02:
        wrong = copy.deepcopy(sae)
        with torch.no_grad():
            wrong.W_dec *= norms[:, None]
        yield case(name, "decoder's norms left in", wrong, x, "decoder rows of norm 1", sae)


def case(name: str, kind: str, wrong: SAE, x: Tensor, said: str, right: SAE, its_x: Tensor | None = None) -> Case:
    """A confused reading. its_x: what the right SAE reads, where that is not x."""
    return Case(name, kind, wrong, x, said, error(right, x if its_x is None else its_x) / max(error(wrong, x), 1e-300))


@torch.no_grad()
def error(sae: SAE, x: Tensor) -> float:
    return float((x - sae(x)).pow(2).sum(dtype=torch.float64))


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def verdict(one: Case) -> str:
    """right, other or silent."""
    likely = likely_formula(one.sae, one.x)
    if likely is None:
        return "silent"
    return "right" if one.kind and re.fullmatch(one.right, ", ".join(likely.changes)) else "other"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic", action="store_true", help="leave the language model out")
    parser.add_argument("--verbose", action="store_true", help="list what was accused, not named or misnamed")
    options = parser.parse_args()
    parts = {"synthetic streams": [one for kind in STREAMS for one in synthetic(kind)]}
    if not options.synthetic:
        parts["smollm2, model.layers.11, news"] = list(real())
    accused = 0
    for part, cases in parts.items():
        verdicts = [(one, verdict(one)) for one in cases]
        right = [found for one, found in verdicts if not one.kind]
        wrongly = len(right) - right.count("silent")
        accused += wrongly
        print(f"\n{part}\nright SAEs: {len(right)}, accused: {wrongly}\n")
        print("| confusion | cases | matter | named | other named | silent | of the rest: named, other, silent |")
        print("|---|---|---|---|---|---|---|")
        for kind in dict.fromkeys(one.kind for one in cases if one.kind):
            matter = Counter(found for one, found in verdicts if one.kind == kind and one.share <= MATTERS)
            rest = Counter(found for one, found in verdicts if one.kind == kind and one.share > MATTERS)
            told = " | ".join(str(matter[word]) for word in ("right", "other", "silent"))
            others = ", ".join(str(rest[word]) for word in ("right", "other", "silent"))
            print(f"| {kind} | {matter.total() + rest.total()} | {matter.total()} | {told} | {others} |")
        if options.verbose:
            for one, found in verdicts:
                if found != ("right" if one.kind else "silent") and one.share <= (MATTERS if one.kind else 1.0):
                    likely = likely_formula(one.sae, one.x)
                    print(f"{found}: {one.kind or 'right'}: {one.name} ({one.share:.2f}): {likely}")
    sys.exit(1 if accused else 0)


if __name__ == "__main__":
    main()
