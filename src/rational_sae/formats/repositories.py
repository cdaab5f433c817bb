"""Model and hooks of SAEs whose files do not say, from the names of their repository and their path in it."""

from __future__ import annotations

import re

from rational_sae.errors import SourceError
from rational_sae.sae.model import Metadata

GEMMA_SCOPE = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)")

FOLDER = re.compile(r"(?:(resid_post|mlp_out|attn_out|transcoder)(?:_all)?/)?layer_(\d+)")

PLACES = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "transcoders": "ln2.hook_normalized",
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "attn.hook_z",
    "transcoder": "mlp.hook_in",
}
"""Where an SAE reads, by the end of Gemma Scope's repositories and by the folders of Gemma Scope 2."""

TRANSCODED = "hook_mlp_out"
"""What the transcoders of both predict."""

MODELS = (
    (re.compile(r"Llama3_1-8B-Base-LX\w+-\d+x$"), "meta-llama/Llama-3.1-8B"),
    (re.compile(r"Llama-Scope-R1-Distill$"), "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
)
"""What OpenMOSS' repositories are of. Of the second SAELens' table says so too, while its loader says Llama-3.1-8B."""

SINGLE = re.compile(r"((Llama|DeepSeek)-[\w.-]+)-SAE-l(\d+)")
"""Goodfire's and qresearch's files and repositories: the model, and the block whose output is read."""

OWNERS = {"Llama": "meta-llama", "DeepSeek": "deepseek-ai"}

QWEN = re.compile(r"mwhanna/qwen3-(\d+(?:\.\d+)?)b-transcoders")
"""Hanna's transcoders of Qwen 3; those of the 14B model come without the config that the others have."""

QWEN_LAYER = re.compile(r"layer_(\d+)\.safetensors")

CROSS_LAYER = "a cross-layer transcoder: its latents write to the MLPs of several layers, and each of these needs all"
"""Why one layer of it is neither an SAE nor a transcoder."""


def refuse_by_repository(repository: str, path: str) -> None:
    """Raise SourceError for what files do not tell, or only after gigabytes, before they are fetched."""
    if ("gemma-scope-2-" in repository and path.startswith("clt")) or re.search(r"/clt-", repository):
        raise SourceError(
            f"hub:{repository}: {CROSS_LAYER}",
            "use a per-layer one (SAELens' mntss-gemma-2-2b-2.5m-clt-as-per-layer adds up what a latent writes)",
        )
    if "gemma-scope-2-" in repository and path.startswith("crosscoder"):
        raise SourceError(f"hub:{repository}: a crosscoder reads several places at once", "use an SAE of one place")
    if GEMMA_SCOPE.search(repository) and path.startswith("embedding/"):
        raise SourceError(f"hub:{repository}: an SAE of embeddings, in units of its own", "choose one of another place")


def name_by_repository(metadata: Metadata, repository: str, path: str) -> None:
    """Fill in the model and the hooks that an SAE's files do not name."""
    model, hook, out = None, None, None
    if "gemma-scope-" in repository:
        model, (hook, out) = _gemma_scope_model(repository), _gemma_scope_hooks(f"{repository}/{path}")
    for pattern, name in MODELS:
        if pattern.search(repository):
            model = name
    if single := SINGLE.search(f"{repository}/{path}"):
        model, hook = f"{OWNERS[single[2]]}/{single[1]}", f"blocks.{single[3]}.hook_resid_post"
    if (named := QWEN.match(repository)) and (layer := QWEN_LAYER.fullmatch(path)):
        model, hook, out = (
            f"Qwen/Qwen3-{named[1]}B",
            *(f"blocks.{layer[1]}.mlp.{end}" for end in ("hook_in", "hook_out")),
        )
    metadata.model_name = metadata.model_name or model
    metadata.hook_name = metadata.hook_name or hook
    metadata.hook_name_out = metadata.hook_name_out or out


def transcoder_hooks(path: str) -> tuple[str, str] | None:
    """What a transcoder of Gemma Scope reads and predicts, by the folders in a path; None if they do not name one."""
    hook, out = _gemma_scope_hooks(path)
    return (hook, out) if hook and out else None


def _gemma_scope_model(repository: str) -> str | None:
    if named := GEMMA_SCOPE.search(repository):
        return f"gemma-2-{named[1]}{'-it' if named[2] == 'it' else ''}"
    return repository.replace("gemma-scope-2", "gemma-3") if "gemma-scope-2-" in repository else None


def _gemma_scope_hooks(path: str) -> tuple[str | None, str | None]:
    """What is read, and of a transcoder what is predicted, by a path from a repository's name on."""
    named = GEMMA_SCOPE.search(path)
    *_, folder = (None, *FOLDER.finditer(path))  # the last: a user's own folders come first
    kind = (folder and folder[1]) or (named and named[3])
    if not folder or not kind:
        return None, None
    hook = f"blocks.{folder[2]}.{PLACES[kind]}"
    return hook, f"blocks.{folder[2]}.{TRANSCODED}" if kind.startswith("transcoder") else None
