"""What an upgrade did to single latents: how far each moved, whether it still fires, and on what.

Latents keep their index, so latent j of the teacher is compared with latent j of the upgraded SAE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rational_sae.data.activations import Reader
from rational_sae.data.text import Split
from rational_sae.evaluation.examples import Examples
from rational_sae.sae.model import SAE

SHOWN = {"revived or lost": 100, "most changed": 150, "least changed": 100, "random": 150}
"""Latents whose examples are shown: at most so many of each kind, 500 in all."""

PASSES = 2
"""One counts, one collects the examples of the latents chosen."""


@dataclass(frozen=True)
class Moments:
    """Sums over tokens of two SAEs' codes, latent by latent: all [d_sae] float64."""

    tokens: int
    fired: tuple[Tensor, Tensor]
    sums: tuple[Tensor, Tensor]
    squares: tuple[Tensor, Tensor]
    products: Tensor
    both: Tensor
    """Tokens on which both fire."""

    def correlation(self) -> Tensor:
        """[d_sae] Pearson correlation over tokens; NaN where one of the two is constant."""
        n = self.tokens
        covariance = self.products / n - self.sums[0] * self.sums[1] / n**2
        first, second = (
            (square / n - (total / n) ** 2).clamp(min=0) for square, total in zip(self.squares, self.sums, strict=True)
        )
        constant = (first == 0) | (second == 0)
        return torch.where(constant, torch.nan, covariance / (first * second).sqrt()).clamp(-1, 1)

    def overlap(self) -> Tensor:
        """[d_sae] Jaccard index of the tokens on which each fires: both over either; NaN where neither does."""
        return self.both / (self.fired[0] + self.fired[1] - self.both)  # 0/0 is NaN


@torch.no_grad()
def features(
    reader: Reader,
    rows: dict[str, SAE],
    tokens: int,
    *,
    split: Split = "test",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """`report["features"]` for two SAEs of one shape, the earlier first. rows: name → SAE.

    PASSES passes over at most `tokens` tokens of the split. progress is told (batches done, batches in all).
    """
    (_, before), (_, after) = rows.items()
    batches = list(reader.held_out(split, tokens))
    streams = _Streams(reader, batches, progress)
    moments = moments_of(before, after, streams)
    cos_decoder = cosine_similarity(before.W_dec, after.W_dec, dim=1).double().cpu()
    cos_encoder = cosine_similarity(before.W_enc, after.W_enc, dim=0).double().cpu()
    correlation, overlap = moments.correlation(), moments.overlap()
    alive = [fired > 0 for fired in moments.fired]
    status = [_status(bool(a), bool(b)) for a, b in zip(*alive, strict=True)]
    chosen = chosen_latents(1 - cos_decoder, alive[0], alive[1], seed)
    examples = {name: Examples(reader.host.tokenizer, chosen) for name in rows}
    for batch, keep, x in streams:
        for name, sae in rows.items():
            examples[name].add(batch.input_ids, keep, sae.encode(x)[:, chosen])
    shown = {name: found.latents() for name, found in examples.items()}
    return {
        "rows": list(rows),
        "summary": {
            "tokens": moments.tokens,
            "latents": len(status),
            "shown": len(chosen),
            "choice": "; ".join(f"{kind}: up to {count}" for kind, count in SHOWN.items()),
            "seed": seed,
            "dead": {name: int((~own).sum()) for name, own in zip(rows, alive, strict=True)},
            "newly_alive": status.count("newly_alive"),
            "newly_dead": status.count("newly_dead"),
            "median_cos_decoder": _median(cos_decoder),
            "median_cos_encoder": _median(cos_encoder),
            "median_correlation": _median(correlation),
            "median_overlap": _median(overlap),
        },
        "latents": [
            {
                "latent": j,
                "status": status[j],
                "change": 1 - float(cos_decoder[j]),
                "cos_decoder": float(cos_decoder[j]),
                "cos_encoder": float(cos_encoder[j]),
                "correlation": None if correlation[j].isnan() else float(correlation[j]),
                "overlap": None if overlap[j].isnan() else float(overlap[j]),
                "density": {
                    name: float(fired[j]) / moments.tokens for name, fired in zip(rows, moments.fired, strict=True)
                },
                "examples": {name: shown[name][place] for name in rows},
            }
            for place, j in enumerate(chosen)
        ],
    }


def chosen_latents(change: Tensor, before: Tensor, after: Tensor, seed: int) -> list[int]:
    """Latents to show, each once, in order of index. change: [d_sae]; before, after: [d_sae] bool, who is alive."""
    rng = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(change), generator=rng)
    order = change.argsort(descending=True, stable=True)
    alive = before | after
    pools = {
        "revived or lost": shuffled[(before != after)[shuffled]],
        "most changed": order[alive[order]],
        "least changed": order[alive[order]].flip(0),
        "random": shuffled[alive[shuffled]],
    }
    chosen: set[int] = set()
    for kind, pool in pools.items():
        chosen.update([j for j in pool.tolist() if j not in chosen][: SHOWN[kind]])
    return sorted(chosen)


class _Streams:
    """Passes over the same batches; the residual vectors are read again each time, so that none are kept."""

    def __init__(self, reader: Reader, batches: list[Any], progress: Callable[[int, int], None]) -> None:
        self.reader, self.batches, self.progress = reader, batches, progress
        self.read = 0

    def __iter__(self):
        for batch in self.batches:
            stream = self.reader.stream(batch.input_ids)
            keep = self.reader.kept(stream, batch)
            yield batch, keep, stream[keep].float()
            self.read += 1
            self.progress(self.read, PASSES * len(self.batches))


def moments_of(before: SAE, after: SAE, streams: Iterable[tuple[Any, Tensor, Tensor]]) -> Moments:
    """Of two SAEs of one shape, over batches of residual vectors x: [n, d_in], the last of each."""

    def column() -> Tensor:
        return torch.zeros(before.d_sae, dtype=torch.float64)

    tokens, products, both = 0, column(), column()
    fired, sums, squares = (column(), column()), (column(), column()), (column(), column())
    for _, _, x in streams:
        z = [sae.encode(x) for sae in (before, after)]
        tokens += len(x)
        products += (z[0] * z[1]).sum(0, dtype=torch.float64).cpu()
        both += ((z[0] != 0) & (z[1] != 0)).sum(0).cpu()
        for i in (0, 1):
            fired[i].add_((z[i] != 0).sum(0).cpu())
            sums[i].add_(z[i].sum(0, dtype=torch.float64).cpu())
            squares[i].add_(z[i].pow(2).sum(0, dtype=torch.float64).cpu())
    return Moments(tokens, fired, sums, squares, products, both)


def _status(before: bool, after: bool) -> str:
    if before:
        return "kept" if after else "newly_dead"
    return "newly_alive" if after else "dead"


def _median(values: Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(known.median()) if len(known) else None
