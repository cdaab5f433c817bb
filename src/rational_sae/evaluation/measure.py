"""One pass over held-out text: what every SAE, the clean model and the ablations do to each document; or over held-out
vectors, where there is no model.

All rows see the same tokens and share one clean forward. Sums are kept per document, in float64, so that every metric
and every difference can be bootstrapped over documents afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rational_sae.data.activations import Reader
from rational_sae.data.text import Split
from rational_sae.data.tokens import Sequences
from rational_sae.evaluation.behaviour import Predictions, cross_entropy
from rational_sae.metrics import Tokens, prediction_columns, token_columns
from rational_sae.sae.match_l0 import CHUNK, can_match, shifted, solve_shift
from rational_sae.sae.model import SAE

SEQUENCES_PER_FORWARD = 4
"""Bounds the logits to [4 · context, vocabulary] float32."""

EQUAL_L0 = 1e-3
"""Relative difference of L0 below which a row is taken to be at the teacher's L0 as it is."""


@dataclass(frozen=True)
class RowSums:
    """Sums of one row, float64, by document; filled batch by batch."""

    columns: dict[str, Tensor]
    """Column of a metric → [documents]."""
    ce_everywhere: Tensor
    """[documents] cross-entropy with x̂ in place of x at every position of the sequence; 0 in `at_l0` and in rows that
    are not in `written_everywhere`, where nobody asks for it."""
    fired: Tensor
    """[d_sae] int64: tokens on which each latent was active."""

    @classmethod
    def zeros(cls, documents: int, d_sae: int, *, predictions: bool = True) -> RowSums:
        """predictions: whether there is a language model, which gives some."""
        names = (*token_columns(), *(prediction_columns() if predictions else ()))
        return cls(
            {name: _column(documents) for name in names}, _column(documents), torch.zeros(d_sae, dtype=torch.int64)
        )

    def of(self, documents: Tensor) -> RowSums:
        """The sums of some documents. documents: [documents] bool, or [m] int64."""
        columns = {name: column[documents] for name, column in self.columns.items()}
        return RowSums(columns, self.ce_everywhere[documents], self.fired)


def _column(documents: int) -> Tensor:
    return torch.zeros(documents, dtype=torch.float64)


@dataclass(frozen=True)
class Measurements:
    """Per-document sums of a whole evaluation, filled batch by batch; `metrics.py` turns them into figures."""

    tokens: Tensor
    """[documents] kept positions."""
    predictions: Tensor
    """[documents] kept positions that have a next token."""
    x: Tensor
    """[documents, d_in] sums of x."""
    x_squared: Tensor
    """[documents] sums of ‖x‖²."""
    x_mean_squared: Tensor
    """[documents] sums of ‖x‖² along the direction of ones: d_in times the squared mean over d_in."""
    ce: dict[str, Tensor]
    """[documents] sums of next-token cross-entropy of `clean`, `zero` and `mean`; empty without a language model."""
    everywhere: dict[str, Tensor]
    """[documents]: `predictions`, all positions that have a next token, the first and sinks among them; their
    cross-entropy `clean`, and `zero` with zeros written at every position of the sequence."""
    rows: dict[str, RowSums]
    at_l0: dict[str, RowSums] = field(default_factory=dict)
    """The rows again, with thresholds moved so that each has the L0 of the reference row."""
    reference: str = "teacher"
    """The row whose L0 is the common one."""
    centred: frozenset[str] = frozenset()
    """Rows whose SAE reads x minus its mean over d_in: its FVU is of that."""
    written_everywhere: frozenset[str] = frozenset()
    """Rows that have `ce_everywhere`."""

    def of(self, documents: Tensor) -> Measurements:
        """The sums of some documents. documents: [documents] bool, or [m] int64, in which one may occur repeatedly."""
        return replace(
            self,
            tokens=self.tokens[documents],
            predictions=self.predictions[documents],
            x=self.x[documents],
            x_squared=self.x_squared[documents],
            x_mean_squared=self.x_mean_squared[documents],
            ce={name: column[documents] for name, column in self.ce.items()},
            everywhere={name: column[documents] for name, column in self.everywhere.items()},
            rows={name: row.of(documents) for name, row in self.rows.items()},
            at_l0={name: row.of(documents) for name, row in self.at_l0.items()},
        )


def measure(
    reader: Reader,
    saes: dict[str, SAE],
    tokens: int,
    mean: Tensor,
    *,
    split: Split = "test",
    needed: int | None = None,
    reference: str = "teacher",
    everywhere: Collection[str] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Measurements:
    """Run every SAE in place of what passes at the hook, and the model clean, zero- and mean-ablated.

    mean: [d_in], x̄ of the train split, for mean ablation. reference: the row whose L0 the others are moved to; none
    if there is no such row. everywhere: rows that are also written at every position, for SAELens' `ce_loss_score`, a
    forward more each; None: all. progress is told (batches done, batches in all).
    Raises TextError if the split has fewer than `needed` tokens (default: a quarter of `tokens`), and HostError if the
    model gives NaN or infinity.
    """
    batches = list(reader.held_out(split, tokens))
    found = sum(int(batch.keep.sum()) for batch in batches)
    reader.require(found, needed or max(1, tokens // 4), split)
    small = [part for batch in batches for part in _split(batch)]
    # The stream is read once, and every forward starts at the hook. [tokens, d_in]: small beside the logits.
    streams = [reader.stream(part.input_ids) for part in small]
    pairs = zip(small, streams, strict=True)
    shifts = _shifts_to(
        reference, saes, lambda: torch.cat([stream[reader.kept(stream, batch)].float() for batch, stream in pairs])
    )
    documents, width = 1 + max(int(batch.document.max()) for batch in batches), len(reader.target(mean))
    written = frozenset(saes if everywhere is None else everywhere)
    sums = replace(_empty(saes, shifts, documents, width, reference), written_everywhere=written)
    for done, (batch, stream) in enumerate(zip(small, streams, strict=True)):
        _measure_batch(reader, saes, shifts, batch, stream, mean, sums)
        progress(done + 1, len(small))
    return sums.of(sums.tokens > 0)  # the bootstrap resamples documents that have a kept position


@torch.no_grad()
def measure_vectors(
    saes: dict[str, SAE],
    rows: Tensor,
    groups: Tensor,
    *,
    reference: str = "teacher",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Measurements:
    """The same of held-out vectors, without a language model: what every SAE makes of each.

    rows: [n, d_in], or [n, d_in + d_out] of transcoders. groups: [n] int64 from 0, which stand for documents. progress
    is told (parts done, parts in all).
    """
    shifts = _shifts_to(reference, saes, lambda: rows)
    width = saes[reference].target(rows).shape[1]
    sums = _empty(saes, shifts, 1 + int(groups.max()), width, reference, predictions=False)
    parts = list(zip(rows.split(CHUNK), groups.split(CHUNK), strict=True))
    for done, (read, owner) in enumerate(parts):
        target = saes[reference].target(read)
        _add_vectors(sums, target, owner)
        for name, sae in saes.items():
            _add_codes(sums.rows[name], sae, read, target, owner)
            if name in shifts:
                with shifted(sae, shifts[name]):
                    _add_codes(sums.at_l0[name], sae, read, target, owner)
        progress(done + 1, len(parts))
    return sums.of(sums.tokens > 0)


def _shifts_to(reference: str, saes: dict[str, SAE], vectors: Callable[[], Tensor]) -> dict[str, float]:
    """For each row whose L0 can move and is not the reference's already: the move to it on these very vectors, which
    are [n, d_in]."""
    movable = [name for name, sae in saes.items() if name != reference and can_match(sae)]
    if reference not in saes or not movable:
        return {}
    x = vectors()
    target = mean_l0(saes[reference], x)
    apart = [name for name in movable if abs(mean_l0(saes[name], x) / target - 1) > EQUAL_L0]
    return {name: solve_shift(saes[name], x, target) for name in apart}


@torch.no_grad()
def mean_l0(sae: SAE, x: Tensor) -> float:
    """Mean number of z_j ≠ 0 over x: [n, d_in]."""
    return sum(int((sae.encode(part) != 0).sum()) for part in x.split(2048)) / len(x)


def _empty(
    saes: dict[str, SAE],
    shifts: dict[str, float],
    documents: int,
    d_in: int,
    reference: str,
    *,
    predictions: bool = True,
) -> Measurements:
    def row(sae: SAE) -> RowSums:
        return RowSums.zeros(documents, sae.d_sae, predictions=predictions)

    return Measurements(
        tokens=_column(documents),
        predictions=_column(documents),
        x=torch.zeros(documents, d_in, dtype=torch.float64),
        x_squared=_column(documents),
        x_mean_squared=_column(documents),
        ce={name: _column(documents) for name in ("clean", "zero", "mean") if predictions},
        everywhere={name: _column(documents) for name in ("predictions", "clean", "zero")},
        rows={name: row(sae) for name, sae in saes.items()},
        at_l0={name: row(saes[name]) for name in shifts},
        reference=reference,
        centred=frozenset(name for name, sae in saes.items() if sae.centred),
    )


def _split(batch: Sequences) -> list[Sequences]:
    parts = zip(
        batch.input_ids.split(SEQUENCES_PER_FORWARD),
        batch.keep.split(SEQUENCES_PER_FORWARD),
        batch.document.split(SEQUENCES_PER_FORWARD),
        strict=True,
    )
    return [Sequences(*part) for part in parts if bool(part[1].any())]


@torch.no_grad()
def _measure_batch(
    reader: Reader,
    saes: dict[str, SAE],
    shifts: dict[str, float],
    batch: Sequences,
    stream: Tensor,
    mean: Tensor,
    sums: Measurements,
) -> None:
    keep = reader.kept(stream, batch)
    read = stream[keep].float()
    reader.require_finite(read, "measured")
    target, x, mean = reader.target(stream), reader.target(read), reader.target(mean)
    owner = batch.document[:, None].expand_as(batch.keep)
    document = owner[keep.cpu()]
    # A kept position predicts if its next token is real; padding is special and never predicted.
    everywhere, where = torch.zeros_like(keep), torch.zeros_like(keep)
    everywhere[:, :-1] = _real_next(reader, batch).to(keep.device)
    where[:, :-1] = keep[:, :-1] & everywhere[:, :-1]
    predicted = owner[where.cpu()]
    entering = reader.host.entering(batch.input_ids, reader.hook)
    labels = batch.input_ids.to(stream.device)[where.roll(1, 1)]

    def logits(x_hat: Tensor, others: Tensor | None = None) -> Tensor:
        edited = target.clone()
        edited[keep] = x_hat.to(stream.dtype)
        if others is not None:
            edited[~keep] = others.to(stream.dtype)
        return reader.host.logits_from(batch.input_ids, reader.hook, edited, entering)

    def add_everywhere(column: Tensor, found: Tensor) -> None:
        positions = everywhere.flatten().nonzero()[:, 0]
        labels = batch.input_ids.to(stream.device).roll(-1, 1).flatten()[positions]
        _add(column, owner[everywhere.cpu()], cross_entropy(found, positions, labels))

    _add_vectors(sums, x, document)
    _add(sums.predictions, predicted, torch.ones(len(labels)))
    untouched, left_out = logits(x), stream[~keep].float()
    clean = Predictions.of(untouched, where.flatten().nonzero()[:, 0], labels)
    _add(sums.ce["clean"], predicted, clean.cross_entropy())
    _add(sums.everywhere["predictions"], owner[everywhere.cpu()], torch.ones(int(everywhere.sum())))
    add_everywhere(sums.everywhere["clean"], untouched)
    if sums.written_everywhere:
        add_everywhere(sums.everywhere["zero"], logits(torch.zeros_like(x), torch.zeros_like(reader.target(left_out))))
    for name, ablated in {"zero": torch.zeros_like(x), "mean": mean.to(x).expand_as(x)}.items():
        _add(sums.ce[name], predicted, cross_entropy(logits(ablated), clean.positions, labels))

    def run(sae: SAE, row: RowSums) -> Tensor:
        x_hat = _add_codes(row, sae, read, x, document)
        for name, values in clean.compared(logits(x_hat), prediction_columns()).items():
            _add(row.columns[name], predicted, values)
        return x_hat

    for name, sae in saes.items():
        x_hat = run(sae, sums.rows[name])
        if name in sums.written_everywhere:
            add_everywhere(sums.rows[name].ce_everywhere, logits(x_hat, sae(left_out)))
        if name in shifts:
            with shifted(sae, shifts[name]):
                run(sae, sums.at_l0[name])


def _add_vectors(sums: Measurements, x: Tensor, document: Tensor) -> None:
    """What is to be given back: x: [n, d_in]; document: [n]."""
    _add(sums.tokens, document, torch.ones(len(x)))
    _add(sums.x_squared, document, x.double().pow(2).sum(-1))
    _add(sums.x_mean_squared, document, x.double().mean(-1).pow(2) * x.shape[1])
    sums.x.index_add_(0, document, x.double().cpu())


def _add_codes(row: RowSums, sae: SAE, read: Tensor, x: Tensor, document: Tensor) -> Tensor:
    """What an SAE makes of what it reads, to be compared with x: x̂ [n, d_in]."""
    x_hat, z, _ = sae.outputs(read)
    active = z != 0
    row.fired.add_(active.sum(0).cpu())
    seen = Tokens(x, x_hat, z, active, _above_epsilon(sae, z))
    for name, column in token_columns().items():
        _add(row.columns[name], document, column.of(seen))
    return x_hat


def _real_next(reader: Reader, batch: Sequences) -> Tensor:
    """[batch, context − 1] bool: whether the token after each position is part of the text."""
    special = torch.tensor(sorted(reader.tokeniser.tokenizer.all_special_ids))
    return ~torch.isin(batch.input_ids[:, 1:], special)


def _above_epsilon(sae: SAE, z: Tensor) -> Tensor:
    """[n] counts of |z_j| > ε·s_j for a smooth gate; equal to L0 for every other."""
    return sae.gate.above_epsilon(z).sum(-1)


def _add(column: Tensor, document: Tensor, values: Tensor) -> None:
    column.index_add_(0, document, values.double().cpu())
