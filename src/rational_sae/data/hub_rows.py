"""Rows of a data set of the hub, or of a folder in its layout: `hf:NAME[/CONFIG][:SPLIT]`.

NAME is OWNER/NAME or a folder. Of a name on the hub the first two parts are always the owner's and the data set's, as
there; what follows is the configuration. What follows a folder is one if the folder's card (README.md) names any.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rational_sae.errors import MissingExtraError, TextError

DEFAULT_SPLIT = "train"

LISTED = 20
"""Configurations named in a message; some data sets have hundreds."""


@dataclass(frozen=True)
class HubName:
    """What `hf:NAME[/CONFIG][:SPLIT]` says."""

    dataset: str
    """OWNER/NAME, or a folder."""
    config: str | None
    split: str


def parse(name: str) -> HubName:
    """The parts of `hf:NAME[/CONFIG][:SPLIT]`. Raises TextError if there is no such folder, or the name is empty."""
    place, split = name.removeprefix("hf:"), DEFAULT_SPLIT
    parent, slash, last = place.rpartition("/")
    if ":" in last:  # after the last slash; a split may hold colons itself: train[:10%]
        last, _, split = last.partition(":")
        place = parent + slash + last
    if not place.strip("/") or not split:
        raise TextError(f"{name} names no data set", "give hf:OWNER/NAME[/CONFIG][:SPLIT], or a folder after hf:")
    folder = Path(os.path.expanduser(place))
    known = _configurations(folder.parent)
    if os.path.isdir(folder) and folder.name not in known:
        return HubName(str(folder), None, split)
    if place.startswith(("/", ".", "~")):
        if known:  # or a mistyped path would have all that is beside it searched for data
            return HubName(str(folder.parent), folder.name, split)
        raise TextError(f"there is no folder {folder}", "check the path after hf:")
    owner, _, rest = place.partition("/")
    dataset, _, config = rest.partition("/")
    return HubName(f"{owner}/{dataset}" if dataset else owner, config or None, split)


def _configurations(folder: Path) -> list[str]:
    """Those that the card of a local data set names."""
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    with contextlib.suppress(Exception):  # whatever is wrong with some README.md, it names no configuration
        configs = (metadata_load(card) or {}).get("configs") if os.path.isfile(card) else None
        return [one["config_name"] for one in configs or []]
    return []


def open_hub(name: str) -> tuple[str, Any]:
    """The data set's name and its rows, streamed, of `hf:NAME[/CONFIG][:SPLIT]`.

    Raises MissingExtraError without the package `datasets`, and TextError if there is no such data set, configuration
    or split; it names those that there are.
    """
    asked = parse(name)
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError("datasets", extra="hub") from error
    try:
        splits = load_dataset(asked.dataset, asked.config, streaming=True)
    except Exception as error:  # the hub client raises many kinds; all mean the same to a user
        raise _not_opened(asked, error) from error
    if asked.split not in splits:
        raise TextError(
            f"the data set {asked.dataset} has no split {asked.split}",
            f"after the last colon give one of: {', '.join(map(str, splits))}",
        )
    return asked.dataset, splits[asked.split]


def _not_opened(asked: HubName, error: Exception) -> TextError:
    from datasets import get_dataset_config_names

    names: list[str] = []
    with contextlib.suppress(Exception):  # there is no such data set, or no network
        names = get_dataset_config_names(asked.dataset)
    if names and asked.config not in names and (asked.config or len(names) > 1):
        more = f", … ({len(names)} in all)" if len(names) > LISTED else ""
        known = f"{', '.join(names[:LISTED])}{more}"
        if asked.config:
            return TextError(
                f"the data set {asked.dataset} has no configuration {asked.config}", f"give one of: {known}"
            )
        return TextError(
            f"the data set {asked.dataset} has several configurations",
            f"give hf:{asked.dataset}/CONFIG with one of: {known}",
        )
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    owner = asked.dataset.partition("/")[0]
    remedy = "check its name and the network; a configuration follows the owner and the name: hf:OWNER/NAME/CONFIG"
    if owner != asked.dataset and owner and os.path.isdir(owner):
        remedy = f"check the network, or write hf:./{asked.dataset} for the folder {owner} here"
    return TextError(f"cannot open the data set {asked.dataset} ({first})", remedy)


def numbered_rows(dataset: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows, each with what messages call it. Raises TextError where the data set cannot be read further."""
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            yield f"{dataset} row {number}", row
    except Exception as error:  # of the network, of each file format's reader, of the data set's own types
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TextError(
            f"the data set {dataset} cannot be read after row {number} ({first})", "check its files and the network"
        ) from error
