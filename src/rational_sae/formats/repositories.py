"""Model and hook of SAEs whose files do not say, from the names of their repository and their path in it."""

from __future__ import annotations

import re

from rational_sae.errors import SourceError
from rational_sae.sae.model import Metadata

GEMMA_SCOPE = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)")

FOLDER = re.compile(r"(?:(resid_post|mlp_out|attn_out)(?:_all)?/)?layer_(\d+)")

PLACES = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "attn.hook_z",
}
"""Where an SAE reads, by the end of Gemma Scope's repositories and by the folders of Gemma Scope 2."""

MODELS = (
    (re.compile(r"Llama3_1-8B-Base-LX\w+-\d+x$"), "meta-llama/Llama-3.1-8B"),
    (re.compile(r"Llama-Scope-R1-Distill$"), "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
)
"""What OpenMOSS' repositories are of. Of the second SAELens' table says so too, while its loader says Llama-3.1-8B."""

SINGLE = re.compile(r"((Llama|DeepSeek)-[\w.-]+)-SAE-l(\d+)")
"""Goodfire's and qresearch's files and repositories: the model, and the block whose output is read."""

OWNERS = {"Llama": "meta-llama", "DeepSeek": "deepseek-ai"}


def refuse_by_repository(repository: str, path: str) -> None:
    """Raise SourceError for what Gemma Scope's files do not tell from SAEs, before they are fetched."""
    named = GEMMA_SCOPE.search(repository)
    inside = "gemma-scope-2-" in repository and path.startswith(("transcoder", "clt", "crosscoder"))
    if inside or (named and named[3] == "transcoders"):
        raise SourceError(f"hub:{repository}: a transcoder predicts other activations than it reads", "use an SAE")
    if named and path.startswith("embedding/"):
        raise SourceError(f"hub:{repository}: an SAE of embeddings, in units of its own", "choose one of another place")


def name_by_repository(metadata: Metadata, repository: str, path: str) -> None:
    """Fill in the model and the hook that an SAE's files do not name."""
    model, hook = _gemma_scope(repository, path) if "gemma-scope-" in repository else (None, None)
    for pattern, name in MODELS:
        if pattern.search(repository):
            model = name
    if single := SINGLE.search(f"{repository}/{path}"):
        model, hook = f"{OWNERS[single[2]]}/{single[1]}", f"blocks.{single[3]}.hook_resid_post"
    metadata.model_name = metadata.model_name or model
    metadata.hook_name = metadata.hook_name or hook


def _gemma_scope(repository: str, path: str) -> tuple[str | None, str | None]:
    """The model and the hook of a path in one of Gemma Scope's repositories."""
    named, folder, model = GEMMA_SCOPE.search(repository), FOLDER.search(path), None
    if named:
        model = f"gemma-2-{named[1]}{'-it' if named[2] == 'it' else ''}"
    elif "gemma-scope-2-" in repository:
        model = repository.replace("gemma-scope-2", "gemma-3")
    kind = (folder and folder[1]) or (named and named[3])
    return model, f"blocks.{folder[2]}.{PLACES[kind]}" if folder and kind else None
