"""One latent: its gate, when it fires and on what, what it does to logits, and what lies beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Hook, Host
from rational_sae.data.reading import Reading, settle
from rational_sae.data.tokens import require_tokens
from rational_sae.errors import HostError, SettingsError
from rational_sae.evaluation.examples import Examples, token_text
from rational_sae.evaluation.features import public_page
from rational_sae.evaluation.logits import effects, kept_tokens
from rational_sae.evaluation.run import require_same_place
from rational_sae.formats import load
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress, Silent

NEAREST = 5
"""Latents that are listed by the cosine of their decoder rows."""


def latent_card(
    name: str,
    latent: int,
    reading: Reading,
    *,
    with_text: bool,
    tokens: int,
    teacher: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What there is to know of latent `latent` of an SAE.

    with_text: whether the text of `reading` is read, at most `tokens` tokens of its test split, for firing and
    examples. teacher: an SAE in which the same index is looked up. Raises SettingsError if there is no such latent, and
    RationalSAEError with a one-line reason if an input cannot be used.
    """
    progress = progress or Silent()
    progress.stage("load SAE and model")
    sae = load(name)
    require_latent(name, sae, latent)
    saes = {"sae": sae}
    if teacher is not None:
        saes["teacher"] = load(teacher)
        require_latent(teacher, saes["teacher"], latent)
        if saes["teacher"].W_dec.shape != sae.W_dec.shape:
            raise SettingsError(f"{teacher} has other shapes than {name}", "give the SAE that it was upgraded from")
    if with_text:
        reader = reading.open(sae)
        host, hook = reader.host, reader.hook
        if teacher is not None:
            require_same_place(teacher, saes["teacher"], reader, given=reading.hook is not None)
    else:
        reader = None
        host, hook = reading.resolved(sae).place(sae)
    for one in saes.values():
        one.to(host.device)
        settle(one, host, hook)
    firing = {} if reader is None else _firing(reader, saes, latent, tokens, progress)
    found = {
        "source": name,
        "latent": latent,
        "d_sae": sae.d_sae,
        "model": host.name,
        "hook": hook.name,
        "public_page": None if (page := public_page(sae)) is None else f"{page}{latent}",
        **_alone(sae, latent, host, hook),
        **firing.get("sae", {}),
        "nearest": _nearest(sae, latent),
    }
    if teacher is not None:
        found["teacher"] = _beside(saes["teacher"], sae, latent, host, hook)
        found["teacher"] |= {"source": teacher} | firing.get("teacher", {})
    return found


def require_latent(name: str, sae: SAE, latent: int) -> None:
    """Raise SettingsError if an SAE has no latent of this index."""
    if not 0 <= latent < sae.d_sae:
        raise SettingsError(
            f"{name} has {sae.d_sae} latents, numbered from 0, and no latent {latent}",
            f"give a number from 0 to {sae.d_sae - 1}",
        )


@torch.no_grad()
def _alone(sae: SAE, latent: int, host: Host, hook: Hook) -> dict[str, Any]:
    """Gate and logits of one latent. `logits` says why there are none where there are none."""
    gate: Any = sae.gate
    numbers = {"b_enc": float(sae.b_enc[latent]), "decoder_norm": float(sae.W_dec[latent].norm())}
    for key in ("threshold", "scale"):
        value = getattr(gate, key, None)
        if isinstance(value, Tensor) and value.shape == (sae.d_sae,):
            numbers[key] = float(value[latent])
    found: dict[str, Any] = {"formula": gate.formula(), "numbers": numbers}
    try:
        ends = effects(host, hook, sae.W_dec[latent : latent + 1])
    except HostError as error:
        return found | {"no_logits": error.cause}
    read = token_text(host.tokenizer)

    def words(ids: Tensor, values: Tensor) -> list[list[Any]]:
        return [[read(token), value] for token, value in zip(ids[0].tolist(), values[0].tolist(), strict=True)]

    return found | {
        "promoted": words(ends.promoted, ends.promoted_by),
        "suppressed": words(ends.suppressed, ends.suppressed_by),
    }


@torch.no_grad()
def _nearest(sae: SAE, latent: int) -> list[list[float]]:
    """[index, cosine] of the other latents whose decoder rows lie closest."""
    cosines = cosine_similarity(sae.W_dec, sae.W_dec[latent : latent + 1], dim=1)
    cosines[latent] = -2.0
    values, places = cosines.topk(min(NEAREST, sae.d_sae - 1))
    return [[place, value] for place, value in zip(places.tolist(), values.tolist(), strict=True)]


@torch.no_grad()
def _beside(teacher: SAE, sae: SAE, latent: int, host: Host, hook: Hook) -> dict[str, Any]:
    """The teacher's latent of the same index, and how far this one has moved from it."""
    rows = (teacher.W_dec[latent : latent + 1], sae.W_dec[latent : latent + 1])
    found = _alone(teacher, latent, host, hook)
    found["cos_decoder"] = float(cosine_similarity(rows[0], rows[1]))
    found["cos_encoder"] = float(cosine_similarity(teacher.W_enc[:, latent], sae.W_enc[:, latent], dim=0))
    if "promoted" in found:
        before, after = (effects(host, hook, row) for row in rows)
        found["tokens_kept"] = float(kept_tokens(before, after))
    return found


@torch.no_grad()
def _firing(
    reader: Reader, saes: dict[str, SAE], latent: int, tokens: int, progress: Progress
) -> dict[str, dict[str, Any]]:
    """SAE → how often the latent fires on test tokens, how strongly, and on what."""
    progress.stage("read the text")
    examples = {name: Examples(reader.host.tokenizer, [latent]) for name in saes}
    codes: dict[str, list[Tensor]] = {name: [] for name in saes}
    batches = list(reader.held_out("test", tokens))
    for batch in batches:
        stream = reader.stream(batch.input_ids)
        keep = reader.kept(stream, batch)
        for name, sae in saes.items():
            z = sae.encode(stream[keep].float())[:, latent : latent + 1].float().cpu()
            examples[name].add(batch.input_ids, keep, z)
            codes[name].append(z[:, 0])
        progress.advance(total=len(batches))
    read = sum(len(part) for part in codes["sae"])
    require_tokens(read, 1, "test", reader.text, reader.tokeniser)
    found = {}
    for name in saes:
        z = torch.cat(codes[name])
        active = z[z != 0]
        found[name] = {
            "tokens": read,
            "fired": len(active),
            "mean": float(active.mean()) if len(active) else None,
            "largest": float(active.max()) if len(active) else None,
            "examples": examples[name].latents()[0],
        }
    return found
