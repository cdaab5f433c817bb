"""If the stored formula looks wrong: the likely right one, found by trying the usual confusions on real activations.

The confusions: b_dec subtracted or not; input centred (TransformerLens' centred writing weights), scaled to mean norm
√d_in, or normalised; decoder norms folded or not; a TopK or a threshold read as ReLU, or with another k.

What counts as evidence. One formula is found on the first half of the tokens and confirmed on the second. It must
leave less error than the stored one at the same L0 or a lower one: codes of a formula with more latents are cut down
first, by size, because more latents leave less error under any formula. What a formula is told of each token for
nothing (its mean, its norm) is no merit. Another gate must need half of the latents, or show by its errors which k it
was trained for: between a TopK and a threshold at one L0 the difference says which selects better, not which is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from rational_sae.gates.base import Gate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.kernels.selection import where_true
from rational_sae.sae.model import LAYER_NORM_EPSILON, SAE

TOKENS = 256
"""Tokens of each half."""

BETTER, FREELY_BETTER, DENSER_BETTER = 0.93, 0.8, 0.65
"""Share of the stored formula's error that another may leave: in general; where it normalises each token, and so is
told more than the stored one; and where its codes had to be cut by more than SLACK. The best alternatives of 202 right
SAEs of the kinds of benchmarks/formula_check.py left .98, .83 and .73; confused ones' right formulas mostly under .6.
"""

SHAPE_BETTER = 0.85
"""The same for what is left when both formulas may fit a mean and a scale to each token. Right SAEs: .9."""

SLACK = 1.1
"""Times the stored formula's L0: codes of more latents than that are far from their formula when cut down to it."""

ABSURD_FVU, RESCUED, SPARSE = 0.9, 0.5, 0.1
"""Where the stored formula explains almost nothing, its L0 means nothing either: another is also likely if it leaves
half of the error with this share of all latents."""

BLIND = 1 / 3
"""Slope, over tokens, of the reconstruction's mean over d_in on x's own, below which an SAE does not see that mean: one
that was trained on centred activations has about 0 to .28, right others .49 or more where the mean matters."""

MOST_CONFUSIONS = 2
"""Kinds of confusion in one formula."""

NORMED = 0.02
"""Relative spread of the decoder's norms from 1 above which folding them makes a difference."""

SPARSER, CLEARLY = 2.0, 0.8
"""Another gate counts at so many times fewer latents with this share of the error. Right SAEs lose by fewer latents."""

LARGER_K, BETTER_K, TURNS = 4.0, 0.5, 1.1
"""A larger k counts from this factor on if the stored figures are doubtful, the error is least there, BETTER_K of the
stored k's or less, and is TURNS times that again further on: an SAE is best near the k that it was trained with (up to
2.7 times that, where the number of features varies from token to token), a mere basis is not."""

MOST_K = 1024
"""Largest k tried: published SAEs have 512 at most."""

DOUBTFUL_FVU, DOUBTFUL_DENSITY = 0.35, 0.05
"""Error, and share of latents active, above which other gates than a TopK's are tried: it costs more than all else
together."""

SIMPLER, EQUAL = 2.0, 1.02
"""Of the formulas that win, the one with the fewest changes among those within SIMPLER of the least error; of those the
first listed within EQUAL of the best."""

BLOCKS, T_QUANTILE = 16, 2.13
"""Neighbouring tokens are alike, so the interval of the paired errors is over so many blocks of them: Student's t."""

Grounds = Literal["input", "sparser", "larger k"]
Normaliser = Literal["none", "scaled", "layer_norm", "constant_norm_rescale"]


@dataclass(frozen=True)
class Figures:
    """One formula on real activations."""

    changes: tuple[str, ...]
    """How it differs from the stored one; empty for that one itself."""
    fvu: float
    l0: float

    def __str__(self) -> str:
        return f"{', '.join(self.changes) or 'as stored'}: FVU {self.fvu:.3f} at L0 {self.l0:.1f}"


@torch.no_grad()
def likely_formula(sae: SAE, x: Tensor) -> Figures | None:
    """The formula that explains x: [n, d_in] clearly better than the stored one, or None.

    x in the order of the text: its halves serve to choose and to confirm, at most TOKENS of each. Costs one encoder
    product a half, and for each formula tried a pass over [TOKENS, d_sae] and a decoder product of its active codes.
    """
    x = x.float()
    half = len(x) // 2
    if half < BLOCKS:
        return None
    first, second = (_Tokens(sae, _spaced(part)) for part in (x[:half], x[half:]))
    stored = first.read(first.stored)
    if not stored.error.isfinite().all():
        return None
    won = [one for one in _tried(first, stored) if one.wins(stored)]
    if not won:
        return None
    best = _simplest(won, stored)
    there, again = second.read(second.stored), second.read(best.formula)
    again.cut = second.cut(best.formula, again, there)
    if not (again.wins(there) and again.surely_below(there)):
        return None
    return Figures(best.formula.changes, (best.fvu + again.fvu) / 2, (best.l0 + again.l0) / 2)


def _spaced(x: Tensor) -> Tensor:
    return x[:: max(1, len(x) // TOKENS)][:TOKENS]


@dataclass(frozen=True)
class _Formula:
    changes: tuple[str, ...]
    gate: Gate
    centred: bool
    normaliser: Normaliser
    subtract: bool
    unit_rows: bool = False
    """Decoder rows are divided by their norms, codes are not multiplied."""
    by_norm: bool = False
    """The gate sees pre-activations times the decoder's norms."""
    grounds: Grounds = "input"
    """What it must show to win."""

    @property
    def told_mean(self) -> bool:
        """Whether each token's mean over d_in is put back as it was."""
        return self.centred or self.normaliser == "layer_norm"


@dataclass
class _Outcome:
    """One formula on the tokens of one half."""

    formula: _Formula
    error: Tensor
    """[n] float64: squared error of each token, in x's units."""
    seen: Tensor
    """[n] float64: the same without the mean over d_in, which some formulas are told for nothing."""
    shape: Tensor
    """[n] float64: what is left of x's deviations from its mean by the best multiple of the reconstruction's."""
    slope: float
    """Of the reconstruction's mean over d_in on x's own, over tokens."""
    fvu: float
    l0: float
    d_sae: int
    cut: _Outcome | None = None
    """The same formula with no more latents than the stored one has."""

    def wins(self, stored: _Outcome) -> bool:
        """Whether the figures speak for this formula, against the stored one."""
        if self.l0 == 0 or not self.error.isfinite().all():
            return False
        if self.formula.grounds == "sparser":
            return self.l0 * SPARSER <= stored.l0 and _share(self.error, stored.error) <= CLEARLY
        if self.formula.grounds == "larger k":
            return _share(self.error, stored.error) <= BETTER_K
        return self._sees_the_input_better(stored)

    def _sees_the_input_better(self, stored: _Outcome) -> bool:
        cut = self.cut or self
        told_more = self.formula.normaliser in ("layer_norm", "constant_norm_rescale")
        most = FREELY_BETTER if told_more else BETTER
        if self.l0 > SLACK * stored.l0:
            most = min(most, DENSER_BETTER)
        better = _share(cut.error, stored.error) <= most
        if told_more:
            better &= _share(cut.shape, stored.shape) <= SHAPE_BETTER
        if self.formula.told_mean and not stored.formula.told_mean:
            better &= _share(cut.seen, stored.seen) <= most or abs(stored.slope) < BLIND
        rescued = (
            not stored.fvu < ABSURD_FVU
            and _share(self.error, stored.error) <= RESCUED
            and self.l0 <= SPARSE * self.d_sae
        )
        return better or rescued

    def fairly(self, stored: _Outcome) -> _Outcome:
        """The outcome at an L0 that is no higher than the stored formula's, unless that one's means nothing."""
        return self if self.cut is None or not stored.fvu < ABSURD_FVU else self.cut

    def surely_below(self, stored: _Outcome) -> bool:
        """Whether the interval of the paired differences lies below 0."""
        paired = self.fairly(stored).error - stored.error
        difference = torch.stack([part.mean() for part in paired.chunk(BLOCKS)])
        return float(difference.mean() + T_QUANTILE * difference.std() / len(difference) ** 0.5) < 0


def _share(error: Tensor, of: Tensor) -> float:
    return float(error.sum() / of.sum().clamp_min(1e-300))


def _simplest(won: Sequence[_Outcome], stored: _Outcome) -> _Outcome:
    errors = [(one, float(one.fairly(stored).error.sum())) for one in won]
    least = min(error for _, error in errors)
    errors = [(one, error) for one, error in errors if error <= SIMPLER * least]
    fewest = min(len(one.formula.changes) for one, _ in errors)
    errors = [(one, error) for one, error in errors if len(one.formula.changes) == fewest]
    least = min(error for _, error in errors)
    return next(one for one, error in errors if error <= EQUAL * least)


class _Tokens:
    """Tokens of one half, and what all formulas share: h is affine in xᵀW_enc, 1ᵀW_enc and b_decᵀW_enc."""

    def __init__(self, sae: SAE, x: Tensor) -> None:
        self.sae, self.x = sae, x
        self.W_enc, self.W_dec, self.b_dec = sae.W_enc.float(), sae.W_dec.float(), sae.b_dec.float()
        self.product = x @ self.W_enc
        self.ones, self.offset = self.W_enc.sum(0), self.b_dec @ self.W_enc
        state = sae.normalise(x)[1]
        centred = sae.normalisation != "layer_norm" and state is not None and bool(state.shift.any())
        self.stored = _Formula((), sae.gate, centred, sae.normalisation, sae.apply_b_dec_to_input)

    @cached_property
    def norm(self) -> Tensor:
        """[d_sae], of the decoder's rows."""
        return self.W_dec.norm(dim=-1).clamp_min(1e-12)

    def variance(self, formula: _Formula) -> float:
        """Of what the formula is to explain: a centred one leaves x's mean over d_in alone."""
        x = self.x - self.x.mean(-1, keepdim=True) if formula.centred else self.x
        return float((x - x.mean(0)).pow(2).sum(dtype=torch.float64))

    def taken_off(self, formula: _Formula) -> tuple[Tensor, Tensor]:
        """Shift and scale: [n, 1] each; the SAE reads (x − shift) / scale."""
        x, width = self.x, self.x.shape[1] ** 0.5
        shift = x.mean(-1, keepdim=True)
        if formula.normaliser == "layer_norm":
            return shift, (x - shift).std(-1, keepdim=True) + LAYER_NORM_EPSILON
        shift = shift if formula.centred else torch.zeros_like(shift)
        norm = (x - shift).norm(dim=-1, keepdim=True)
        if formula.normaliser == "scaled":
            norm = norm.mean().expand_as(norm)
        return shift, torch.ones_like(norm) if formula.normaliser == "none" else norm / width

    def preactivations(self, formula: _Formula) -> Tensor:
        """h: [n, d_sae]."""
        shift, scale = self.taken_off(formula)
        h = (self.product - shift * self.ones) / scale + self.sae.b_enc.float()
        return h - self.offset if formula.subtract else h

    def codes(self, formula: _Formula, h: Tensor) -> Tensor:
        """z: [n, d_sae]."""
        return formula.gate(h * self.norm)[0] / self.norm if formula.by_norm else formula.gate(h)[0]

    def read(self, formula: _Formula) -> _Outcome:
        return self.outcome(formula, self.codes(formula, self.preactivations(formula)))

    def cut(self, formula: _Formula, outcome: _Outcome, stored: _Outcome) -> _Outcome | None:
        """The outcome with the smallest contributions dropped until there are no more than the stored formula's; None
        if there are not."""
        if outcome.l0 <= stored.l0:
            return None
        z = self.codes(formula, self.preactivations(formula))
        size = z.abs() if formula.unit_rows else z.abs() * self.norm
        kept = size.flatten().topk(round(stored.l0 * len(z)), sorted=False).indices
        left = torch.zeros_like(z).flatten().index_copy_(0, kept, z.flatten()[kept])
        return self.outcome(formula, left.view_as(z))

    def outcome(self, formula: _Formula, z: Tensor) -> _Outcome:
        shift, scale = self.taken_off(formula)
        x_hat = (self._decoded(z / self.norm if formula.unit_rows else z) + self.b_dec) * scale + shift
        error = self.x - x_hat
        own, found = self.x.mean(-1), x_hat.mean(-1)
        away, towards = (self.x - own[:, None]).double(), (x_hat - found[:, None]).double()
        along = (away * towards).sum(-1) ** 2 / towards.pow(2).sum(-1).clamp_min(1e-30)
        spread = (own - own.mean()).double()
        squared = error.pow(2).sum(-1, dtype=torch.float64)
        return _Outcome(
            formula,
            error=squared,
            seen=squared - error.mean(-1).double() ** 2 * error.shape[1],
            shape=away.pow(2).sum(-1) - along,
            slope=float((spread * found.double()).sum() / spread.pow(2).sum().clamp_min(1e-30)),
            fvu=float(squared.sum()) / self.variance(formula),
            l0=float((z != 0).sum()) / len(z),
            d_sae=z.shape[1],
        )

    def _decoded(self, z: Tensor) -> Tensor:
        """zᵀW_dec: [n, d_in], by the codes that are not 0."""
        places = where_true(z.flatten() != 0)
        starts = torch.searchsorted(places, torch.arange(len(z), device=z.device) * z.shape[1])
        codes = z.flatten()[places]
        return embedding_bag(places % z.shape[1], self.W_dec, starts, mode="sum", per_sample_weights=codes)


def _tried(tokens: _Tokens, stored: _Outcome) -> Iterator[_Outcome]:
    """Outcomes of the formulas that leave less error than the stored one."""
    for formula in _inputs(tokens):
        outcome = tokens.read(formula)
        if _share(outcome.error, stored.error) <= BETTER:
            outcome.cut = tokens.cut(formula, outcome, stored)
            yield outcome
    gate, density = tokens.sae.gate, stored.l0 / tokens.sae.d_sae
    doubtful = stored.fvu > DOUBTFUL_FVU or density > DOUBTFUL_DENSITY
    if gate.family == "topk" or (doubtful and gate.family != "rational"):
        yield from _gates(tokens, stored)


def _inputs(tokens: _Tokens) -> Iterator[_Formula]:
    """Combinations of the confusions before and after the gate: of input, b_dec and decoder norms."""
    stored, sae = tokens.stored, tokens.sae
    readings: list[tuple[bool, Normaliser]] = [
        (stored.centred, stored.normaliser),
        (False, "none"),
        (True, "none"),
        (False, "scaled"),
        (True, "scaled"),
        (False, "constant_norm_rescale"),
        (False, "layer_norm"),
    ]
    decoders = [(False, False)]
    if float((tokens.norm - 1).abs().max()) > NORMED:
        decoders.append((True, False))
        if sae.gate.family != "relu":
            decoders.append((False, True))
    flips = (False, True) if bool(tokens.b_dec.any()) else (False,)
    for (centred, normaliser), flipped, (unit_rows, by_norm) in product(dict.fromkeys(readings), flips, decoders):
        changes = _changes(stored, centred, normaliser)
        kinds = bool(changes) + flipped + (unit_rows or by_norm)
        if flipped:
            changes.append("b_dec not subtracted" if stored.subtract else "b_dec subtracted")
        if unit_rows:
            changes.append("decoder rows of norm 1")
        if by_norm:
            changes.append("latents selected by code times decoder norm")
        if 0 < kinds <= MOST_CONFUSIONS:
            subtract = stored.subtract != flipped
            yield _Formula(tuple(changes), sae.gate, centred, normaliser, subtract, unit_rows, by_norm)


def _changes(stored: _Formula, centred: bool, normaliser: Normaliser) -> list[str]:
    changes = []
    if normaliser != stored.normaliser:
        if normaliser != "scaled" or stored.normaliser != "none":
            changes.append(f"normalisation {'none' if normaliser == 'scaled' else normaliser}")
        if normaliser == "scaled":
            changes.append("x scaled to mean norm √d_in")
    if centred != stored.centred and normaliser != "layer_norm":
        changes.append("x centred over d_in" if centred else "x not centred over d_in")
    return changes


def _gates(tokens: _Tokens, stored: _Outcome) -> Iterator[_Outcome]:
    """The best TopK and, unless the stored gate is one, the best threshold for all latents, on the stored
    pre-activations: of powers of 2, which most published k are, up to where the error has turned."""
    sae, h = tokens.sae, tokens.preactivations(tokens.stored)
    given = tokens.stored
    is_topk = sae.gate.family == "topk"
    most = min(MOST_K, sae.d_sae // 2) if is_topk else min(MOST_K, int(stored.l0 / SPARSER))

    def topk(size: int, said: str = "", grounds: Grounds = "sparser") -> _Outcome:
        return tokens.outcome(
            replace(given, changes=(said,), gate=TopKGate(size), grounds=grounds), TopKGate(size)(h)[0]
        )

    best, turns = _least(lambda size: float(topk(size).error.sum()), most)
    known = sae.metadata.extra.get("k")
    if isinstance(known, int) and 0 < known <= sae.d_sae and not is_topk:
        yield topk(known, f"TopK (k = {known})")
    elif best:
        said = f"TopK (k near {best}, a guess)"
        yield topk(best, said)
        larger = is_topk and best >= LARGER_K * (sae.gate.k or 0)
        if larger and turns and stored.fvu > DOUBTFUL_FVU:
            yield topk(best, said, "larger k")
    if is_topk:
        return
    positive = h.flatten()[where_true(h.flatten() > 0)].sort(descending=True).values

    def threshold(size: int) -> _Outcome:
        cut = float(positive[min(size * len(h), len(positive) - 1)])
        gate = ThresholdGate(torch.full_like(h[0], cut))
        return tokens.outcome(
            replace(given, changes=(f"a threshold (near {cut:.3g}, a guess)",), gate=gate, grounds="sparser"),
            gate(h)[0],
        )

    best, _ = _least(lambda size: float(threshold(size).error.sum()), most if len(positive) else 0)
    if best:
        yield threshold(best)


def _least(error: Callable[[int], float], most: int) -> tuple[int, bool]:
    """The power of 2 up to most where the error is least, 0 if there is none; and whether the error turns there."""
    found: dict[int, float] = {}
    size = 1
    while size <= most and not (found and found[size // 2] >= TURNS * min(found.values())):
        found[size] = error(size)
        size *= 2
    if not found:
        return 0, False
    best = min(found, key=lambda size: found[size])
    return best, max(found[size] for size in found if size >= best) >= TURNS * found[best]
