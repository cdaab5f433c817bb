"""A finished evaluation, in memory: what it found, and how it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rational_sae.evaluation.comparison import Comparison, comparison
from rational_sae.evaluation.metrics import Results
from rational_sae.report import evaluation_report, write_report
from rational_sae.support.outputs import EVALUATION, check_out
from rational_sae.support.safe_text import printable, redact


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """SAEs measured on the same tokens.

    >>> found = rational_sae.evaluate(["path/to/teacher", "path/to/rsae"])  # doctest: +SKIP
    >>> found.rows["path/to/rsae"]["fvu_at_l0"]  # doctest: +SKIP
    >>> found.compare("path/to/rsae").to_frame()  # doctest: +SKIP
    """

    results: Results
    """Figures, intervals and paired differences of all rows, and further sections of a report."""
    asked: Mapping[str, Any]
    """What was asked for, as report.json's `settings`."""

    def __repr__(self) -> str:
        return f"Evaluation of {', '.join(printable(redact(name)) for name in self.rows)}"

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """SAE → metric → figure on the test tokens, as in report.json."""
        return self.results.rows

    @property
    def warnings(self) -> list[str]:
        """What a reader of the figures must know, a line each."""
        return self.results.further["warnings"]

    def compare(self, row: str, base: str | None = None) -> Comparison:
        """One SAE minus the first on the same tokens, with 95 % intervals: of each metric value, low and high.

        base: the first, which is what all are compared with. Raises SettingsError naming the pairs that there are, if
        these two were not compared.
        """
        return comparison(self.results.differences, row, next(iter(self.rows)) if base is None else base)

    def report(self) -> dict[str, Any]:
        """What report.json holds."""
        return evaluation_report(self.results.report(), self.asked)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write report.json and report.html, as `rsae evaluate --out` does.

        overwrite: an earlier evaluation there is replaced by name, and other files stay. Raises OutputError if the
        folder holds anything (unless `overwrite`) or cannot be written.
        """
        check_out(Path(folder), EVALUATION, overwrite=overwrite)
        write_report(self.report(), Path(folder))
