"""Which file of a folder holds the SAE, and which format that is: by what files hold, not by what they are called."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from rational_sae.errors import SourceError
from rational_sae.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    goodfire,
    nanda,
    openai,
    openmoss,
    qwen_scope,
    saelens,
    sparsify,
)
from rational_sae.formats.containers import Contents, looks_like_tensors, one_line, open_tensors
from rational_sae.sae.model import SAE

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")
"""Files of these names are meant to hold tensors: if one is damaged, that is the error."""

NO_WEIGHTS = ("sparsity.safetensors", "optimizer.pt", "examples.safetensors")
"""Companions of weights that are neither fetched nor opened; the last is Gemma Scope 2's record, of gigabytes, of what
latents fire on."""

MOST_FILES = 1000
"""So many entries of a folder are looked at."""

FORMATS = (
    saelens.FORMAT,
    gemma_scope.FORMAT,
    dictionary_learning.FORMAT,
    sparsify.FORMAT,
    openai.FORMAT,
    openmoss.FORMAT,
    qwen_scope.FORMAT,
    goodfire.FORMAT,
    nanda.FORMAT,
    circuit_tracer.FORMAT,
)

INNER = ("sae", openmoss.CHECKPOINTS)
"""Folders in which an upgrade and Llama Scope keep the weights, below the folder that is named."""

Reader = Callable[[Contents], SAE]


def reader_of(contents: Contents) -> Reader | None:
    """The reader of a file, told by the names of its tensors, by its container, and where these are those of several
    formats by the config beside it."""
    names, container = contents.shapes.keys(), contents.container
    if openai.recognises(names):
        return openai.read
    if gemma_scope.recognises(names, container):
        return gemma_scope.read
    if sparsify.recognises(names):
        return sparsify.read
    if goodfire.recognises(names):
        return goodfire.read
    if openmoss.recognises(contents):
        return openmoss.read
    if dictionary_learning.recognises(names, container):
        return dictionary_learning.read
    if qwen_scope.recognises(contents):
        return qwen_scope.read
    if nanda.recognises(contents):
        return nanda.read
    if circuit_tracer.recognises(contents):
        return circuit_tracer.read
    if saelens.recognises(names):
        return saelens.read
    return None


def read_path(name: str) -> SAE:
    """The SAE of a file, of a folder, or of the folder's `sae/` or `checkpoints/`."""
    path = Path(name)
    try:
        path = path.expanduser()
        is_folder = path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, or the home of nobody
        raise SourceError(f"{name[:200]!r}: not a path ({one_line(error)})", "check the path") from error
    if not is_folder and path.suffix == ".json" and path.is_file():
        path, is_folder = path.parent, True
    if is_folder:
        return _read_folder(path)
    if not os.path.lexists(path):
        raise SourceError(f"{path}: no such folder or file", "name a folder that holds an SAE")
    contents = open_tensors(path)
    reader = reader_of(contents)
    if reader is None:
        raise _unknown(contents)
    return reader(contents)


def _read_folder(folder: Path) -> SAE:
    opened, failed, unknown = [], [], []
    for path in _files(folder):
        try:
            contents = open_tensors(path)
        except SourceError as error:
            failed.append(error)
            continue
        reader = reader_of(contents)
        if reader is None:
            unknown.append(contents)
        else:
            opened.append((contents, reader))
    if len(opened) > 1:
        names = ", ".join(contents.path.name for contents, _ in opened)
        raise SourceError(f"{folder}: holds more than one SAE ({names[:300]})", "name the file")
    if opened:
        contents, reader = opened[0]
        return reader(contents)
    if failed:
        raise failed[0]
    if unknown:
        raise _unknown(unknown[0])
    for inner in INNER:
        if (folder / inner).is_dir():
            return _read_folder(folder / inner)
    raise _empty(folder)


def _files(folder: Path) -> list[Path]:
    """Files that may hold tensors, in the order of their names."""
    try:
        entries = sorted(itertools.islice(folder.iterdir(), MOST_FILES))
    except OSError as error:
        raise SourceError(f"{folder}: cannot be read ({error.strerror})", "check the folder") from error
    files = [path for path in entries if path.is_file() and path.name not in NO_WEIGHTS]
    return [path for path in files if path.suffix in SUFFIXES or looks_like_tensors(path)]


def _empty(folder: Path) -> SourceError:
    """The error for a folder without weights: it names folders inside that have some, as releases do."""
    inner = [path for path in sorted(itertools.islice(folder.iterdir(), MOST_FILES)) if path.is_dir()]
    found = [path.name for path in inner[:100] if _files(path)]
    if found:
        return SourceError(f"{folder}: no SAE, but folders that may hold one", f"name one: {', '.join(found[:8])}")
    return SourceError(
        f"{folder}: no such file as the weights of an SAE in it (no safetensors, .npz or .pt)",
        f"name a folder that holds an SAE of one of: {', '.join(FORMATS)}",
    )


def _unknown(contents: Contents) -> SourceError:
    names = ", ".join(sorted(contents.shapes))[:300] or "nothing"
    return SourceError(
        f"{contents.path}: not an SAE of a format that is read (tensors: {names})",
        f"formats that are read: {', '.join(FORMATS)}",
    )
