"""Reading SAEs, from where they are: files, folders, the Hugging Face hub, SAELens' table of releases, this package."""

from __future__ import annotations

from pathlib import Path

from rational_sae.errors import SourceError
from rational_sae.formats.containers import one_line
from rational_sae.formats.detect import read_path
from rational_sae.formats.saelens import read_saelens
from rational_sae.formats.save import save as _save
from rational_sae.formats.shipped import PREFIX, shipped
from rational_sae.sae.model import SAE
from rational_sae.sae.storage import offer

__all__ = ["load", "read_saelens"]


def load(name: str | Path) -> SAE:
    """The SAE of a file, a folder, `hub:OWNER/REPO[/PATH]`, `saelens:RELEASE/ID` or `demo:FAMILY`: float32, CPU.

    >>> sae = load("~/saes/layer-11")  # doctest: +SKIP
    >>> sae = load("saelens:gpt2-small-res-jb/blocks.8.hook_resid_pre")  # doctest: +SKIP

    What format it has is decided by what its files hold. Raises SourceError if it is missing, damaged, of a kind that
    is not read, ambiguous, or cannot be read for a reason of the system (a disk error, no permission, a loop of links).
    """
    name = str(name)
    try:
        sae = _load(name)
    except OSError as error:  # anywhere below: a file can fail at every touch
        raise SourceError(f"{name}: cannot be read ({one_line(error)})", "check the file and the disk") from error
    sae.metadata.source = name
    return sae


def _load(name: str) -> SAE:
    if name.startswith("hub:"):
        from rational_sae.formats.hub import load_hub

        return load_hub(name)
    if name.startswith("saelens:"):
        from rational_sae.formats.release import load_release

        return load_release(name)
    if name.startswith(PREFIX):
        name = str(shipped(name))
    return read_path(name)


offer("from_pretrained", load)
offer("save_pretrained", _save)
