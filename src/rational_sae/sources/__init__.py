"""Reading SAEs, from where the user has them: files, folders, the Hugging Face hub, SAELens' table of releases."""

from __future__ import annotations

from rational_sae.sae import SAE
from rational_sae.sources.detect import read_path
from rational_sae.sources.saelens import read_saelens

__all__ = ["load", "read_saelens"]


def load(name: str) -> SAE:
    """The SAE of a file, a folder, `hub:OWNER/REPO[/PATH]` or `saelens:RELEASE/ID`.

    What format it has is decided by what its files hold. Raises SourceError if it is missing, damaged, of a kind that
    is not read, or ambiguous.
    """
    if name.startswith("hub:"):
        from rational_sae.sources.hub import load_hub

        sae = load_hub(name)
    elif name.startswith("saelens:"):
        from rational_sae.sources.release import load_release

        sae = load_release(name)
    else:
        sae = read_path(name)
    sae.metadata.source = name
    return sae
