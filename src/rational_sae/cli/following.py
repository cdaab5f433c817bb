"""The processes of a data-parallel job beside the first: they train, and write nothing."""

from __future__ import annotations

from typing import Any

import typer


def follow(settings: Any, *, accept_implausible: bool) -> None:
    """The part of such a process, until the first one has all that it needs."""
    from rational_sae.support import distributed
    from rational_sae.upgrading import job

    try:
        if not distributed.leaders_json(None):
            job.run(settings, accept_implausible=accept_implausible)
    except distributed.LeaderGoesOn:
        pass
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # the leader says how to go on
    distributed.stop()
