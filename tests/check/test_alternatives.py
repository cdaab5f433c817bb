"""The formula check on the benchmark's SAEs, fewer and shorter trained: nobody is accused, confusions are named."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from formula_check import Stream, as_threshold, basis, centred, clusters, readings, stream, trained, truth, verdict
from torch import Tensor

from rational_sae.check.alternatives import likely_formula
from rational_sae.check.verify import reconstruction
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE

D_SAE, STEPS = 96, 150


@functools.cache
def small(kind: str) -> Stream:
    return stream(kind, train=3000, test=600)


def scaled(x: Tensor, family: str, k: int = 8) -> SAE:
    """Trained on x scaled to mean norm √d_in, and the scale written into the weights."""
    scale = x.shape[1] ** 0.5 / float(x.norm(dim=-1).mean())
    sae = trained(x * scale, family, k=k, d_sae=D_SAE, steps=STEPS)
    sae.rescale_input_(1 / scale)
    return sae


quick = functools.partial(trained, d_sae=D_SAE, steps=STEPS)
RIGHT: dict[str, tuple[str, Callable[[Stream], SAE]]] = {
    **{
        f"basis k {k}, {kind}": (kind, lambda s, k=k: basis(s.train, k))
        for k in (4, 12, 32)
        for kind in ("plain", "mean")
    },
    **{
        f"basis k 12, {kind}": (kind, lambda s: basis(s.train, 12))
        for kind in ("massive", "centred", "offset", "small")
    },
    "basis, threshold": ("plain", lambda s: basis(s.train, 24, threshold=True)),
    "clusters": ("mean", lambda s: clusters(s.train, D_SAE)),
    "dictionary": ("sparse", lambda s: truth(s, k=3)),
    "dictionary, threshold": ("sparse", lambda s: truth(s, k=3, threshold=True)),
    "TopK, a third of d_sae": ("plain", lambda s: quick(s.train, "topk", k=D_SAE // 3)),
    "TopK, b_dec not subtracted": ("mean", lambda s: quick(s.train, "topk", k=8, subtract=False)),
    "TopK, layer_norm": ("offset", lambda s: quick(s.train, "topk", k=8, normalisation="layer_norm")),
    "TopK, constant_norm_rescale": (
        "massive",
        lambda s: quick(s.train, "topk", k=8, normalisation="constant_norm_rescale"),
    ),
    "BatchTopK, dense": ("plain", lambda s: quick(s.train, "batchtopk", k=24)),
    "BatchTopK, scaled": ("small", lambda s: scaled(s.train, "batchtopk")),
    "ReLU, shrinking": ("plain", lambda s: quick(s.train, "relu", sparsity=0.4)),
    "ReLU, dense": ("massive", lambda s: quick(s.train, "relu", sparsity=0.02)),
    "ReLU, scaled": ("mean", lambda s: scaled(s.train, "relu")),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_sae_is_left_alone(name: str) -> None:
    kind, make = RIGHT[name]
    assert likely_formula(make(small(kind)), small(kind).test) is None


def test_an_sae_of_centred_activations_is_left_alone_on_them() -> None:
    one = small("mean")
    assert likely_formula(quick(centred(one.train), "topk", k=8), centred(one.test)) is None


@functools.cache
def confused() -> dict[str, list[tuple[str, str]]]:
    """(name, verdict) of the wrong readings that leave twice the error of the right one, by kind."""
    one, easy = small("mean"), small("sparse")
    saes = [
        ("dictionary", easy, truth(easy, k=3)),
        ("threshold", easy, truth(easy, k=3, threshold=True)),
        ("layer_norm", one, quick(one.train, "batchtopk", k=8, normalisation="layer_norm")),
        ("constant_norm_rescale", one, quick(one.train, "topk", k=8, normalisation="constant_norm_rescale")),
        ("basis", one, basis(one.train, 24)),
        ("clusters", one, clusters(one.train, D_SAE)),
    ]
    found: dict[str, list[tuple[str, str]]] = {}
    for name, source, sae in saes:
        for case in readings(name, sae, source.test):
            if case.kind and case.share <= 0.5:
                found.setdefault(case.kind, []).append((name, verdict(case)))
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "b_dec the other way",
        "normalised, but should not be",
        "normalisation forgotten",
        "threshold read as ReLU",
        "selected without norms",
        "decoder's norms left in",
    ],
)
def test_a_confusion_is_named(kind: str) -> None:
    assert {verdict for _, verdict in confused()[kind]} == {"right"}, confused()[kind]


def test_a_k_that_is_far_too_small_is_named() -> None:
    """A stream's own dictionary, three features a token on average, read with k = 1."""
    one = small("sparse")
    likely = likely_formula(truth(one, k=1), one.test)
    assert likely is not None
    assert likely.changes[0] in ("TopK (k near 4, a guess)", "TopK (k near 8, a guess)")


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_topk_that_is_best_at_more_latents_is_left_alone(k: int) -> None:
    """Where the number of features varies by token, a right TopK's error is least at two or three times its k."""
    one = small("sparse")
    assert likely_formula(trained(one.train, "topk", k=k, d_sae=D_SAE, steps=400), one.test) is None


@pytest.mark.parametrize("family", ["topk", "batchtopk", "relu"])
def test_a_forgotten_scale_is_named(family: str) -> None:
    one = small("mean")
    scale = one.train.shape[1] ** 0.5 / float(one.train.norm(dim=-1).mean())
    likely = likely_formula(quick(one.train * scale, family), one.test * 10)
    assert likely is not None
    assert likely.changes == ("x scaled to mean norm √d_in",)


@pytest.mark.parametrize("offset", [0.5, 3.0])
@pytest.mark.parametrize("make", ["basis", "trained"])
def test_a_forgotten_centring_is_named(make: str, offset: float) -> None:
    """A basis of centred activations gives the same codes off centre, and the mean over d_in alone is missing."""
    one = small("mean")
    sae = basis(centred(one.train), 24) if make == "basis" else quick(centred(one.train), "topk", k=8)
    x = centred(one.test)
    moved = x + offset * (1 + torch.randn(len(x), 1, generator=torch.Generator().manual_seed(0)))
    likely = likely_formula(sae, moved)
    assert likely is not None
    assert likely.changes == ("x centred over d_in",)
    assert likely.fvu == pytest.approx(reconstruction(sae, x)[0], rel=0.1)


def test_a_centred_sae_that_says_so_is_left_alone() -> None:
    """Read centred it is right, with tokens' means or without; a plain SAE that is read centred is named."""
    one = small("offset")
    plain = quick(one.train, "topk", k=8)
    right = quick(centred(one.train), "topk", k=8)
    right.centred = True
    assert likely_formula(right, one.test) is None
    assert likely_formula(right, centred(one.test)) is None
    wrong = copy.deepcopy(plain)
    wrong.centred = True
    likely = likely_formula(wrong, one.test)
    assert likely is not None
    assert likely.changes == ("x not centred over d_in",)


def test_a_threshold_against_a_topk_at_one_l0_is_no_accusation() -> None:
    """Of a basis the threshold leaves less error than the TopK, at the same L0; both are right."""
    one = small("plain")
    topk = basis(one.train, 24)
    threshold = as_threshold(topk, one.train, 24)
    assert reconstruction(threshold, one.test)[0] < 0.9 * reconstruction(topk, one.test)[0]
    assert likely_formula(topk, one.test) is None
    assert likely_formula(threshold, one.test) is None


def test_one_formula_is_the_stored_ones_own_arithmetic() -> None:
    """FVU and L0 of the formula that is named are those of an SAE that has it."""
    one = small("mean")
    right = quick(one.train, "topk", k=8, normalisation="layer_norm")
    wrong = copy.deepcopy(right)
    wrong.normalisation = "none"
    likely = likely_formula(wrong, one.test)
    assert likely is not None
    assert likely.changes == ("normalisation layer_norm",)
    halves = [reconstruction(right, part)[0] for part in (one.test[:256], one.test[300:556])]
    assert likely.fvu == pytest.approx(sum(halves) / 2, rel=1e-3)
    assert likely.l0 == 8


def test_few_tokens_accuse_nobody() -> None:
    one = small("mean")
    wrong = basis(one.train, 4).with_gate(TopKGate(4))
    wrong.apply_b_dec_to_input = False
    assert likely_formula(wrong, one.test[:20]) is None
