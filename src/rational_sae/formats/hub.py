"""`hub:OWNER/REPO[/PATH]`: an SAE from the Hugging Face hub, or from its cache where there is no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from rational_sae.errors import SourceError
from rational_sae.formats import circuit_tracer
from rational_sae.formats.containers import one_line
from rational_sae.formats.detect import NO_WEIGHTS, SUFFIXES, read_path
from rational_sae.formats.openmoss import CHECKPOINTS, CONFIGS, MODEL_CONFIG
from rational_sae.formats.repositories import name_by_repository, refuse_by_repository
from rational_sae.sae.model import SAE


def load_hub(name: str) -> SAE:
    """The SAE of `hub:OWNER/REPO[/PATH]`; PATH is a file or a folder. Only what the SAE needs is fetched."""
    parts = name.removeprefix("hub:").split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise SourceError(f"{name[:200]!r}: not hub:OWNER/REPO[/PATH]", "name the repository, then the folder in it")
    return load_from_repository("/".join(parts[:2]), "/".join(parts[2:]))


def load_from_repository(repository: str, path: str) -> SAE:
    """The SAE at a path of a repository; an empty path is its top folder."""
    refuse_by_repository(repository, path)
    sae = read_path(str(fetch(repository, path)))
    sae.metadata.extra.setdefault("repository", repository)
    name_by_repository(sae.metadata, repository, path)
    return sae


def fetch(repository: str, path: str) -> Path:
    """The local file or folder of a path in a repository, in the hub's cache.

    Raises SourceError with the hub's own remedy for a repository that is gated, private or missing.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with _explained(repository):
        try:
            files = HfApi().list_repo_files(repository)
        except (HfHubHTTPError, HFValidationError):  # it answered
            raise
        except Exception:  # no network; which error says so depends on the library below
            folder = Path(snapshot_download(repository, local_files_only=True))
        else:
            chosen = wanted(files, path, repository)
            local = [Path(hf_hub_download(repository, file)) for file in chosen]
            folder = local[0].parents[len(PurePosixPath(chosen[0]).parts) - 1]
    found = folder / path
    if not found.exists():
        raise SourceError(f"hub:{repository}: {path} is not in the local cache", "go online once, or check the path")
    return found


def wanted(files: list[str], path: str, repository: str) -> list[str]:
    """Which files of a repository make up the SAE at a path: weights, configs beside them, and those of sparsify's
    run and of Llama Scope in the folder above."""
    folder = path if path not in files else os.path.dirname(path)
    inner = os.path.join(folder, CHECKPOINTS)
    if path not in files and not any(_is_weights(file) for file in _in(files, folder)) and _in(files, inner):
        folder = inner
    beside = _in(files, folder)
    weights = [path] if path in files else [file for file in beside if _is_weights(file)]
    if not weights:
        folders = sorted({os.path.dirname(file) for file in files if _is_weights(file)})
        near = [one for one in folders if one.startswith(path)] or folders
        raise SourceError(
            f"hub:{repository}: no SAE at {path or 'its top'}",
            f"name one of {len(near)} folders, such as {', '.join(near[:4])}" if near else "name another repository",
        )
    if len(weights) > 1:
        names = ", ".join(os.path.basename(file) for file in sorted(weights)[:4])
        raise SourceError(
            f"hub:{repository}: {len(weights)} files of weights at {path or 'its top'}", f"name one: {names}"
        )
    names = (*CONFIGS, MODEL_CONFIG) if os.path.basename(folder) == CHECKPOINTS else ("config.json",)
    above = [os.path.join(os.path.dirname(folder), name) for name in names] if folder else []
    return [
        *weights,
        *(file for file in beside if _is_config(file) and file not in weights),
        *(file for file in files if file in above),
    ]


def _in(files: list[str], folder: str) -> list[str]:
    """The files that lie in a folder itself."""
    return [file for file in files if os.path.dirname(file) == folder]


def _is_config(file: str) -> bool:
    return file.endswith(".json") or os.path.basename(file) in (circuit_tracer.CONFIG, *circuit_tracer.RUNS)


def _is_weights(file: str) -> bool:
    return file.endswith(SUFFIXES) and os.path.basename(file) not in NO_WEIGHTS


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """The hub's errors as ours, with the hub's own advice."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except SourceError:
        raise
    except GatedRepoError as error:
        said = one_line(Exception(error.server_message or error))
        raise SourceError(
            f"hub:{repository} is gated ({said})",
            f"ask for access at https://huggingface.co/{repository}, then log in with: hf auth login",
        ) from error
    except HFValidationError as error:
        raise SourceError(f"hub:{repository}: not the name of a repository", "give OWNER/REPO") from error
    except LocalEntryNotFoundError as error:
        raise SourceError(
            f"hub:{repository}: no network, or HF_HUB_OFFLINE is set, and it is not in the local cache",
            "go online, or download it elsewhere into the cache",
        ) from error
    except Exception as error:
        raise SourceError(
            f"hub:{repository}: the hub answers: {one_line(error)}",
            "check the name; for a private repository, log in with: hf auth login",
        ) from error
