"""`saelens:RELEASE/ID`: SAELens' table of published SAEs, as the installed package has it, and the hub behind it."""

from __future__ import annotations

import difflib
import functools
import importlib.util
from pathlib import Path
from typing import Any

from rational_sae.errors import MissingExtraError, SourceError
from rational_sae.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    goodfire,
    nanda,
    openmoss,
    qwen_scope,
    saelens,
    sparsify,
)
from rational_sae.formats.containers import open_tensors
from rational_sae.formats.hub import fetch, load_from_repository
from rational_sae.sae.cfg import CENTRING, KWARGS
from rational_sae.sae.model import SAE

TABLE = "pretrained_saes.yaml"

AS_PER_LAYER = "mntss_clt_layer_transcoder"
"""The conversion that makes per-layer transcoders of a cross-layer one; a row's path is the number of its layer."""

FORMATS = {
    None: saelens.FORMAT,
    "sae_lens": saelens.FORMAT,
    "gemma_2": gemma_scope.FORMAT,
    "gemma_2_transcoder": gemma_scope.FORMAT,
    "gemma_3": gemma_scope.FORMAT,
    "dictionary_learning_1": dictionary_learning.FORMAT,
    "sparsify": sparsify.FORMAT,
    "llama_scope": openmoss.FORMAT,
    "llama_scope_r1_distill": openmoss.FORMAT,
    "qwen_scope": qwen_scope.FORMAT,
    "goodfire": goodfire.FORMAT,
    "deepseek_r1": dictionary_learning.FORMAT,
    "connor_rob_hook_z": nanda.FORMAT,
    "mwhanna_transcoder": circuit_tracer.FORMAT,
    AS_PER_LAYER: circuit_tracer.FORMAT,
}
"""Which of SAELens' conversions are read here, as which format. The others are refused by name."""


def load_release(name: str) -> SAE:
    """The SAE of `saelens:RELEASE/ID`, with what the table adds: model, overrides, and a scaling to fold in."""
    release, _, identifier = name.removeprefix("saelens:").partition("/")
    entry = _nearest(table(), release, "release")
    conversion = entry.get("conversion_func")
    if conversion not in FORMATS:
        raise SourceError(f"{name}: releases of the kind {conversion!r} are not read", "choose another release")
    row = _nearest({str(row["id"]): row for row in entry["saes"]}, identifier, "SAE")
    read = _load_layer if conversion == AS_PER_LAYER else load_from_repository
    sae = read(entry["repo_id"], str(row["path"]))
    if sae.metadata.format != FORMATS[conversion]:
        raise SourceError(
            f"{name}: SAELens says {FORMATS[conversion]}, but it is {sae.metadata.format}", "do not use it"
        )
    _apply(sae, entry, row)
    return sae


def _load_layer(repository: str, layer: str) -> SAE:
    """A layer of a cross-layer transcoder, with its decoders summed."""
    encoder, decoder = (open_tensors(fetch(repository, name)) for name in circuit_tracer.files_of(layer))
    sae = circuit_tracer.read_as_per_layer(encoder, decoder, layer)
    sae.metadata.extra.setdefault("repository", repository)
    return sae


def table() -> dict[str, Any]:
    """SAELens' releases by name. Raises MissingExtraError without SAELens."""
    spec = importlib.util.find_spec("sae_lens")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("sae-lens", extra="saelens")
    return _parsed(Path(spec.submodule_search_locations[0]) / TABLE)


@functools.cache
def _parsed(path: Path) -> dict[str, Any]:
    """A table, parsed once: it takes two seconds."""
    import yaml

    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})", "install sae-lens again") from error


def _nearest(rows: dict[str, Any], name: str, what: str) -> Any:
    if name not in rows:
        near = difflib.get_close_matches(name, rows, n=3, cutoff=0.0)
        raise SourceError(f"SAELens has no {what} {name[:200]!r}", f"nearest: {', '.join(near)}")
    return rows[name]


def _apply(sae: SAE, entry: dict[str, Any], row: dict[str, Any]) -> None:
    """What the table knows beyond the files."""
    metadata, overrides = sae.metadata, entry.get("config_overrides") or {}
    normalisation = overrides.get("normalize_activations", sae.normalisation)
    if normalisation not in (sae.normalisation, metadata.extra.get("normalize_activations")):
        if normalisation not in ("none", "layer_norm", "constant_norm_rescale"):
            raise SourceError(f"{entry['repo_id']}: normalisation {normalisation!r} is not supported", "choose another")
        sae.normalisation = normalisation
        metadata.warnings = _without_normalisation(metadata.warnings)
    factor = row.get("norm_scaling_factor")
    if factor is not None and metadata.extra.get("normalize_activations") == "expected_average_only_in":
        sae.rescale_input_(1 / float(factor))  # SAELens' fold_activation_norm_scaling_factor
        metadata.extra["norm_scaling_factor"] = factor
        metadata.warnings = _without_normalisation(metadata.warnings)
    metadata.model_name = metadata.model_name or entry.get("model")
    metadata.extra |= {key: overrides[key] for key in (KWARGS, "dataset_path") if key in overrides}
    if KWARGS in overrides:
        sae.centred = bool(overrides[KWARGS].get(CENTRING, False))
    others = ", ".join(sorted(overrides.keys() - {"normalize_activations", KWARGS, "dataset_path"}))
    if others:
        metadata.warnings.append(f"SAELens' table overrides what is not followed here: {others[:200]}")
    if row.get("neuronpedia"):
        metadata.extra["neuronpedia_id"] = row["neuronpedia"]


def _without_normalisation(warnings: list[str]) -> list[str]:
    """Warnings but for the one about a normalisation, which the table has settled."""
    return [one for one in warnings if "normalize_activations" not in one]
