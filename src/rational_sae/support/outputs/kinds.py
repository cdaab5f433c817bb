"""The kinds of result, each of one command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rational_sae.support.outputs.names import (
    CELLS,
    CHECKPOINT,
    CHECKPOINT_NAMES,
    CONFIG,
    EARLIER,
    PAGE,
    PARTIAL,
    PILOTS,
    PLAIN,
    REPORT,
    RESULT_NAMES,
    SAE_FILES,
    SWEEP_PAGE,
    SWEEP_TABLE,
    TENSORS_BEGUN,
    THEORY,
    THEORY_NAMES,
    Tree,
)
from rational_sae.support.outputs.ours import LOOKED_INTO, holds_job, holds_sweep, is_begun, is_our_sae, json_of


@dataclass(frozen=True)
class Kind:
    """A kind of result."""

    command: str
    """That writes it."""
    names: Tree
    """Of a whole result."""
    whole: tuple[str, ...]
    """Files of which one is there if, and only if, all of a result is."""
    lies_in: Callable[[Path], bool]
    """Whether a folder holds such a result, or the beginning of one. Raises OSError."""
    running: Tree = field(default_factory=dict)
    """Names of what is kept while it is made."""
    remedy: str = "or give --overwrite: it replaces a result and leaves other files alone"

    @property
    def begun(self) -> Tree:
        """Names in the folder that a result is written into."""
        return {**self.names, TENSORS_BEGUN: None}

    @property
    def all_names(self) -> Tree:
        return {**self.names, PARTIAL: self.begun, EARLIER: self.names, **self.running}


SAE = Kind("export", SAE_FILES, (CONFIG, PLAIN), is_our_sae)
UPGRADE = Kind("upgrade", RESULT_NAMES, (REPORT,), holds_job, {CHECKPOINT: CHECKPOINT_NAMES})
EVALUATION = Kind(
    "evaluate",
    {REPORT: None, PAGE: None},
    (REPORT,),
    lambda out: LOOKED_INTO[REPORT](out / REPORT) and not holds_job(out),
)
SWEEP = Kind(
    "sweep",
    {SWEEP_TABLE: None, SWEEP_PAGE: None, PILOTS: {}, CELLS: {}},
    (SWEEP_TABLE,),
    holds_sweep,
    remedy="or give --resume to go on with a sweep there",
)
THEORIES = Kind(
    "theory", THEORY_NAMES, (THEORY,), lambda out: "exponents" in json_of(out / THEORY) or is_begun(out, THEORY_NAMES)
)
