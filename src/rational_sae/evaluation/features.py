"""What an upgrade did to single latents: how far each moved, whether it still fires, and on what.

Latents keep their index, so latent j of the teacher is compared with latent j of the upgraded SAE.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rational_sae.data.activations import Reader
from rational_sae.data.text import Split
from rational_sae.errors import HostError
from rational_sae.evaluation.examples import Example, Examples, token_text
from rational_sae.evaluation.logits import effects, kept_tokens
from rational_sae.report.schema import PUBLIC
from rational_sae.sae.model import SAE

SHOWN = {"revived or lost": 100, "most changed": 150, "least changed": 100, "others, at random": 2150}
"""Latents that are shown: at most so many of each kind, 2 500 in all, so that a page stays under 6 MB."""

MOST_TOKENS = 1 << 16
"""Tokens that are looked at: a page holds the sequences of its examples."""

BINS = 20
"""Of the histogram of a latent's values."""

NEURONPEDIA = re.compile(r"[\w.-]+/[\w.-]+")
"""A `neuronpedia_id`: model and SAE; nothing else becomes part of an address."""

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
    largest: tuple[Tensor, Tensor]
    """The largest code of each; 0 where a latent never fires."""

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

    PASSES passes over at most `tokens` tokens of the split, and of MOST_TOKENS. progress is told (batches done, batches
    in all).
    """
    (_, before), (_, after) = rows.items()
    batches = list(reader.held_out(split, min(tokens, MOST_TOKENS)))
    streams = _Streams(reader, batches, progress)
    moments = moments_of(before, after, streams)
    cos_decoder = cosine_similarity(before.W_dec, after.W_dec, dim=1).double().cpu()
    cos_encoder = cosine_similarity(before.W_enc, after.W_enc, dim=0).double().cpu()
    correlation, overlap = moments.correlation(), moments.overlap()
    alive = [fired > 0 for fired in moments.fired]
    status = [_status(bool(a), bool(b)) for a, b in zip(*alive, strict=True)]
    chosen = chosen_latents(1 - cos_decoder, alive[0], alive[1], seed)
    largest = {name: one[chosen].float() for name, one in zip(rows, moments.largest, strict=True)}
    examples = {name: Examples(reader.host.tokenizer, chosen, largest[name], seed) for name in rows}
    counts = {name: torch.zeros(len(chosen), BINS, dtype=torch.int64) for name in rows}
    for batch, keep, x in streams:
        for name, sae in rows.items():
            z = sae.encode(x)[:, chosen].float().cpu()
            examples[name].add(batch.input_ids, keep, z)
            counts[name] += histogram(z, largest[name])
    text = _Text(reader.host.tokenizer, [ids.tolist() for batch in batches for ids in batch.input_ids])
    logits, kept = _logits(reader, rows, chosen, text)
    shown = {name: [[text.written(one) for one in some] for some in found.top()] for name, found in examples.items()}
    weaker = {name: [[text.written(one) for one in some] for some in found.drawn()] for name, found in examples.items()}
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
            **({} if kept is None else {"median_tokens_kept": _median(kept)}),
        },
        "text": text.report(),
        **_public_page(before),
        "latents": [
            {
                "latent": j,
                "status": status[j],
                "change": _short(1 - float(cos_decoder[j])),
                "cos_decoder": _short(cos_decoder[j]),
                "cos_encoder": _short(cos_encoder[j]),
                "correlation": _short(correlation[j]),
                "overlap": _short(overlap[j]),
                **({} if kept is None else {"tokens_kept": _short(kept[place])}),
                "density": {
                    name: _short(float(fired[j]) / moments.tokens, 6)
                    for name, fired in zip(rows, moments.fired, strict=True)
                },
                "fired": {name: int(fired[j]) for name, fired in zip(rows, moments.fired, strict=True)},
                "largest": {name: _short(largest[name][place]) for name in rows},
                "histogram": {name: " ".join(map(str, counts[name][place].tolist())) for name in rows},
                **({} if logits is None else {"logits": {name: logits[name][place] for name in rows}}),
                "examples": {name: shown[name][place] for name in rows},
                "weaker": {name: weaker[name][place] for name in rows},
            }
            for place, j in enumerate(chosen)
        ],
    }


def histogram(z: Tensor, largest: Tensor) -> Tensor:
    """[latents, BINS] int64: how many codes fall in each of BINS equal parts of 0 to a latent's largest; zeros are left
    out. z: [n, latents] codes; largest: [latents]."""
    places = (z / largest.clamp_min(1e-30) * BINS).ceil().long().clamp(1, BINS) - 1
    counts = torch.zeros(z.shape[1], BINS, dtype=torch.int64)
    return counts.scatter_add_(1, places.T, (z > 0).T.long())


class _Text:
    """The sequences that examples come from, each once, and the tokens that occur, each once."""

    def __init__(self, tokenizer: Any, sequences: list[list[int]]) -> None:
        self._read = token_text(tokenizer)
        self._all = sequences
        self._sequences: dict[int, int] = {}
        self._tokens: dict[int, int] = {}

    def token(self, token: int) -> int:
        """Its place in the table."""
        return self._tokens.setdefault(token, len(self._tokens))

    def written(self, example: Example) -> str:
        """An example as report.json has it, its sequence by its place among those that are there."""
        place = self._sequences.setdefault(example.sequence, len(self._sequences))
        return replace(example, sequence=place).sparse()

    def ends(self, tokens: Tensor, values: Tensor) -> str:
        """Tokens by their place in the table, each with its logit."""
        pairs = zip(tokens.tolist(), values.tolist(), strict=True)
        return " ".join(f"{self.token(token)}:{value:.3g}" for token, value in pairs)

    def report(self) -> dict[str, Any]:
        lines = [" ".join(str(self.token(token)) for token in self._all[place]) for place in self._sequences]
        return {"tokens": [self._read(token) for token in self._tokens], "sequences": lines}


def _logits(
    reader: Reader, rows: dict[str, SAE], chosen: list[int], text: _Text
) -> tuple[dict[str, list[dict[str, str]]] | None, Tensor | None]:
    """Row → what each chosen latent promotes and suppresses, and [chosen] what is kept of it; None where what is at the
    hook has no direct effect on logits."""
    try:
        found = {name: effects(reader.host, reader.hook, sae.W_dec[chosen]) for name, sae in rows.items()}
    except HostError:
        return None, None
    written = {
        name: [
            {"promoted": text.ends(*row[:2]), "suppressed": text.ends(*row[2:])}
            for row in zip(one.promoted, one.promoted_by, one.suppressed, one.suppressed_by, strict=True)
        ]
        for name, one in found.items()
    }
    return written, kept_tokens(*found.values())


def public_page(sae: SAE) -> str | None:
    """The address of the SAE's latents on Neuronpedia, without the number of the latent; None where its files name
    none."""
    named = sae.metadata.extra.get("neuronpedia_id")
    if not isinstance(named, str) or not NEURONPEDIA.fullmatch(named):
        return None
    return f"{PUBLIC}{named}/"


def _public_page(sae: SAE) -> dict[str, str]:
    found = public_page(sae)
    return {} if found is None else {"public_page": found}


def _short(value: Any, digits: int = 5) -> float | None:
    """A number as the page needs it; None for NaN."""
    return None if math.isnan(value) else float(f"{float(value):.{digits}g}")


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
        "others, at random": torch.cat([shuffled[alive[shuffled]], shuffled[~alive[shuffled]]]),
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
    largest = (column(), column())
    for _, _, x in streams:
        z = [sae.encode(x) for sae in (before, after)]
        tokens += len(x)
        products += (z[0] * z[1]).sum(0, dtype=torch.float64).cpu()
        both += ((z[0] != 0) & (z[1] != 0)).sum(0).cpu()
        for i in (0, 1):
            fired[i].add_((z[i] != 0).sum(0).cpu())
            sums[i].add_(z[i].sum(0, dtype=torch.float64).cpu())
            squares[i].add_(z[i].pow(2).sum(0, dtype=torch.float64).cpu())
            largest[i].copy_(torch.maximum(largest[i], z[i].amax(0).double().cpu()))
    return Moments(tokens, fired, sums, squares, products, both, largest)


def _status(before: bool, after: bool) -> str:
    if before:
        return "kept" if after else "newly_dead"
    return "newly_alive" if after else "dead"


def _median(values: Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(known.median()) if len(known) else None
