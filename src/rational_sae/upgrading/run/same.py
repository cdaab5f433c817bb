"""What a job that is resumed must have in common with the one that was begun: settings, inputs and, for the same bits,
the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from rational_sae.errors import OutputError
from rational_sae.report import environment
from rational_sae.support.outputs import SETTINGS
from rational_sae.upgrading.run.checkpoint import Checkpoint
from rational_sae.upgrading.settings import completed


def stored_settings(out: Path) -> dict[str, Any]:
    """What settings.yaml says, or nothing. Raises OutputError if it cannot be read."""
    try:
        found = yaml.safe_load((out / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    except OSError as error:
        raise OutputError(
            f"{out / SETTINGS} cannot be read ({error.strerror})", "mend that; nothing was changed"
        ) from error
    return completed(found) if isinstance(found, dict) else {}


def require_same(where: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise OutputError naming the first setting that differs."""
    for key in dict.fromkeys([*asked, *stored]):
        if stored.get(key) != asked.get(key):
            raise OutputError(
                f"{where} was made with {key} {stored.get(key)!r}, now it is {asked.get(key)!r}",
                "choose another --out, or give the settings that it was made with",
            )


def require_same_inputs(out: Path, found: Checkpoint, inputs: dict[str, str]) -> None:
    """Raise OutputError naming the first input whose sha256 is not the checkpoint's."""
    for what, value in inputs.items():
        if found.state["inputs"].get(what) != value:
            raise OutputError(
                f"{out} cannot be resumed: {what} changed since step {found.step}",
                "restore it, or start again: --overwrite instead of --resume, or in a sweep without that folder",
            )


def take_over_environment(then: dict[str, str]) -> list[str]:
    """Take as many threads as the checkpoint's process had, because sums depend on it. Returns a warning if anything
    else differs."""
    torch.set_num_threads(int(then["threads"]))
    now = environment()
    differing = [f"{name} {then[name]} → {now.get(name)}" for name in then if now.get(name) != then[name]]
    return [f"resumed in another environment, so not bit for bit: {', '.join(differing)}"] if differing else []
