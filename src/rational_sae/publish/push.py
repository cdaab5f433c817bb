"""An SAE to a repository of the Hugging Face hub: `sae/` and the card, in one commit.

The token is huggingface_hub's own business (`hf auth login`, or HF_TOKEN). It is never taken as an argument, written
anywhere, or shown: what the hub's errors say of it is cut out.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from rational_sae.errors import OutputError
from rational_sae.formats import load
from rational_sae.formats.saelens import CONFIG, WEIGHTS
from rational_sae.formats.save import save
from rational_sae.publish.card import model_card
from rational_sae.sae.model import SAE
from rational_sae.support.outputs import CARD
from rational_sae.support.paths import at_home

TOKEN = re.compile(r"hf_\w{6,}|(?<=[Bb]earer )\S+")


def push_sae(sae: SAE, repo: str, *, private: bool = False) -> str:
    """Upload an SAE in memory, as `push` does a folder; `sae.push_to_hub`."""
    with tempfile.TemporaryDirectory() as folder:
        save(sae, folder)
        return push(folder, repo, private=private)


def push(folder: str | Path, repo: str, *, private: bool = False) -> str:
    """Upload an SAE to `OWNER/NAME`, which is created if it is not there. Returns the commit's address.

    folder: an SAE's folder, or an upgrade's with `sae/` in it. The SAE is loaded first, so a broken one is not pushed.
    Raises SourceError if it cannot be read, OutputError with a one-line reason if the hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = at_home(folder)
    folder = folder if (folder / CONFIG).exists() else folder / "sae"
    sae = load(str(folder))
    card = folder / CARD
    content = card.read_bytes() if card.is_file() else model_card(sae).encode()
    files: dict[str, bytes | Path] = {CARD: content, **{f"sae/{name}": folder / name for name in (CONFIG, WEIGHTS)}}
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=source) for path, source in files.items()]
    try:
        api = HfApi(library_name="rational-sae")
        created = api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(created.repo_id, operations, commit_message="Add the SAE and its card")
    except Exception as error:
        # Every release of huggingface_hub has raised its own client's errors (requests, httpx, httpx2), and none may be
        # shown as it is: a traceback of a request can hold the token.
        raise OutputError(f"{repo}: not pushed ({_without_token(error)})", _remedy(error)) from None
    return str(commit.commit_url)


def _without_token(error: Exception) -> str:
    """One line of an error, with no token in it."""
    from huggingface_hub import get_token

    text = " ".join(str(error).split()) or type(error).__name__
    token = get_token()
    return TOKEN.sub("[token]", text.replace(token, "[token]") if token else text)


def _remedy(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "log in with a token that may write: hf auth login"
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "unset HF_HUB_OFFLINE"
    return "check the name OWNER/NAME and the connection, then push again"
