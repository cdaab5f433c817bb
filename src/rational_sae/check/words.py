"""What `inspect` found, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FAMILIES = {"rational": "Rational", "jumprelu": "JumpReLU", "relu": "ReLU", "topk": "TopK"}
"""How families are written."""


def sentences(facts: Mapping[str, Any]) -> list[str]:
    """Lines about an SAE; the answer of a measurement first. facts: of `inspect_sae`."""
    found = [*_verified(facts.get("verified")), *_what(facts), *_numbers(facts), *_reading(facts), *_training(facts)]
    return [*found, *(f"Warning: {line}" for line in facts["warnings"])]


def _verified(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    figures = f"FVU {found['fvu']:.3f}, L0 {found['l0']:.1f} on {found['tokens']:,} tokens"
    if found["likely"]:
        yield f"The stored formula looks wrong: {figures}."
    elif any(line.startswith(("FVU", "L0", "no latent")) for line in found["warnings"]):
        yield f"The SAE does not explain these activations: {figures}."
    else:
        yield f"The formula holds: {figures}."
    if found["out_of_range"] is not None:
        yield f"Of active pre-activations {found['out_of_range']:.1%} lie right of the interval that r was fitted on."
    yield from (f"Warning: {line}" for line in found["warnings"])


def _what(facts: Mapping[str, Any]) -> Iterator[str]:
    family = FAMILIES.get(facts["family"], facts["family"])
    where = " at ".join(filter(None, (facts["model_name"], facts["hook_name"])))
    yield f"{family} SAE{f' of {where}' if where else ''}, {facts['d_in']:,} → {facts['d_sae']:,} latents"
    yield f"Read as {facts['format'] or 'tensors'} from {facts['source'] or 'memory'}"
    yield from (f"  {line}" for line in facts["formula"])


def _numbers(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts.get("k") is not None:
        yield f"k = {facts['k']} latents of each token."
    for name, words in (("threshold", "Thresholds"), ("scale", "Scales s_j")):
        if isinstance(spread := facts.get(name), Mapping):
            zeros = spread.get("zeros")
            yield f"{words}: {_spread(spread)}{f'; {zeros:,} are 0' if zeros else ''}."
    scaling = facts["scaling"]
    yield (
        f"Norms: decoder rows {_spread(scaling['decoder_row_norm'])}; encoder columns "
        f"{_spread(scaling['encoder_column_norm'])}; b_dec {scaling['b_dec_norm']:.3g}."
    )


def _spread(found: Mapping[str, Any]) -> str:
    return f"{found['min']:.3g} to {found['max']:.3g}, median {found['median']:.3g}"


def _reading(facts: Mapping[str, Any]) -> Iterator[str]:
    context, bos = facts["context_size"], facts["prepend_bos"]
    parts = [f"contexts of {context:,} tokens" if context else "contexts of unstated length"]
    parts.append({None: "BOS not stated", True: "with BOS", False: "without BOS"}[bos])
    if facts["seqpos_slice"] is not None:
        parts.append(f"positions {':'.join('' if one is None else str(one) for one in facts['seqpos_slice'])}")
    yield f"Trained on {', '.join(parts)}."


def _training(facts: Mapping[str, Any]) -> Iterator[str]:
    """What the config says of training, without what is nested; `--json` has all of it."""
    plain = {key: value for key, value in facts["training"].items() if isinstance(value, (str, int, float))}
    if plain:
        yield "Its config also says: " + ", ".join(f"{key.replace('_', ' ')} {_short(v)}" for key, v in plain.items())


def _short(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value
