"""Reading SAEs, from where the user has them."""

from __future__ import annotations

from pathlib import Path

from rational_sae.errors import SourceError
from rational_sae.sae import SAE
from rational_sae.sources.saelens import CONFIG, WEIGHTS, read_saelens

__all__ = ["load", "read_saelens"]

ONLINE = ("hub:", "saelens:")


def load(name: str) -> SAE:
    """The SAE in a folder, in the folder's `sae/`, or in the folder of a weights file."""
    if name.startswith(ONLINE):
        raise SourceError(f"{name}: SAEs are not fetched from the network", "download the folder, and name it")
    path = Path(name).expanduser()
    if path.is_file():
        if path.name not in (WEIGHTS, CONFIG):
            raise SourceError(f"{path}: not the weights of an SAE", f"name a folder that holds {WEIGHTS}")
        path = path.parent
    elif not (path / CONFIG).exists() and not (path / WEIGHTS).exists() and (path / "sae").is_dir():
        path = path / "sae"
    sae = read_saelens(path)
    sae.metadata.source = f"{name} (SAELens)"
    return sae
