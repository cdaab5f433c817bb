"""A finished upgrade, in memory: what it found, and how it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rational_sae.data.sequences import SequenceBatches
from rational_sae.data.text import Split
from rational_sae.evaluation import Comparison, Measurements, Results, comparison
from rational_sae.sae.model import SAE
from rational_sae.support.safe_text import printable, redact
from rational_sae.upgrading.pilots import Pilot
from rational_sae.upgrading.prepare import Prepared
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.train.candidate import Candidate


@dataclass(frozen=True, eq=False, repr=False)
class Upgrade:
    """A finished upgrade.

    >>> done = rational_sae.upgrade("path/to/teacher", text="news")  # doctest: +SKIP
    >>> done.sae  # doctest: +SKIP
    >>> done.rows["rsae"]["fvu_at_l0"]  # doctest: +SKIP
    >>> done.compare("control_native").fvu_at_l0.high < 0  # clearly better than its control  # doctest: +SKIP
    >>> done.save("runs/mine")  # doctest: +SKIP
    """

    settings: Settings
    """With every default resolved."""
    saes: dict[str, SAE]
    """All rows, in the teacher's units, `rsae` among them."""
    results: Results
    """Figures, intervals and paired differences of all rows."""
    warnings: list[str]
    """What a reader of the figures must know, a line each."""
    prepared: Prepared
    """The teacher verified, and what training started from."""
    candidates: dict[str, Candidate]
    """What was trained, with its curves."""
    sums: Measurements
    calibration_x: Tensor
    """[n, d_in] float32 activations of the calibration split, as the model gives them."""
    distinct_tokens: int
    """Of training, read as single vectors."""
    sequences: SequenceBatches | None
    """What training read as sequences, counted."""
    pilots: dict[str, Pilot]
    """Controls that kept their start, and what was tried for them."""
    digests: dict[tuple[Split, int | None], str]
    """sha256 of the sequences that were read, by split and seed."""
    timing: dict[str, float]
    """Seconds by stage."""

    def __repr__(self) -> str:
        from rational_sae.upgrading.run.summary import verdict

        return f"Upgrade of {printable(redact(self.settings.teacher))}. {verdict(self)}"

    @property
    def sae(self) -> SAE:
        """The upgraded SAE, in the teacher's units: W_enc [d_in, d_sae], W_dec [d_sae, d_in], float32."""
        return self.saes["rsae"]

    @property
    def untrained(self) -> frozenset[str]:
        """Rows that were fine-tuned and kept their start, because no step was better on validation."""
        return frozenset(name for name, candidate in self.candidates.items() if candidate.kept_step == 0)

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """Row → metric → figure on the test tokens, as in report.json."""
        return self.results.rows

    def compare(self, base: str = "control_native") -> Comparison:
        """`rsae` minus another row on the same tokens, with 95 % intervals: of each metric value, low and high.

        Raises SettingsError naming the rows that there are if `base` is none of them.

        >>> found = done.compare("teacher")  # doctest: +SKIP
        >>> found.fvu_at_l0.value, found.fvu_at_l0.low, found.fvu_at_l0.high  # doctest: +SKIP
        >>> found.to_frame()  # doctest: +SKIP
        """
        return comparison(self.results.differences, "rsae", base)

    def report(self) -> dict[str, Any]:
        """What report.json holds."""
        from rational_sae.upgrading.run.summary import report_of

        return report_of(self)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write what `rsae upgrade --out` writes: sae/, controls, report.json, report.html, settings.yaml, log.jsonl.

        All of it or nothing. overwrite: an earlier result there is replaced by name, and other files stay. Raises
        OutputError if the folder holds anything (unless `overwrite`) or cannot be written, TrainingError if an SAE is
        not safe to save.
        """
        from rational_sae.upgrading.run.write import write

        write(self, Path(folder), overwrite=overwrite)
