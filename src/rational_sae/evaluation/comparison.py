"""One row minus another: of each metric the difference and its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rational_sae.errors import MissingExtraError, SettingsError

JOIN = " - "
"""Between two rows, in the names of differences."""

Figure = Mapping[str, Any]
"""`value`, and `interval` where there is one."""


def put_beside(
    means: Mapping[str, Mapping[str, Figure]],
    change: Callable[[str, str], Mapping[str, Figure]],
    rows: dict[str, dict[str, float]],
    intervals: dict[str, dict[str, list[float]]],
    differences: dict[str, dict[str, dict[str, float | list[float]]]],
) -> None:
    """Put figures of probes beside the other metrics of a report. means: row → key → figure; change: of a row and its
    base, key → figure of the paired difference, which is left out if it has no interval."""
    for row in means.keys() & rows.keys():
        for key, found in means[row].items():
            rows[row][key] = found["value"]
            if "interval" in found:
                intervals[row][key] = found["interval"]
    for name, figures in differences.items():
        row, _, base = name.rpartition(JOIN)
        if row in means and base in means:
            for key, found in change(row, base).items():
                if "interval" in found:
                    figures[key] = {"value": found["value"], "interval": found["interval"]}


@dataclass(frozen=True)
class Difference:
    """Of one metric."""

    value: float
    low: float
    high: float
    """`low` to `high` is the 95 % interval. It is paired: both rows see the same resamples of documents."""

    def __str__(self) -> str:
        return f"{self.value:+.4g} [{self.low:+.4g}, {self.high:+.4g}]"


class Comparison(Mapping[str, Difference]):
    """Metric → difference of two rows on the same tokens; metrics are attributes too.

    >>> found = Comparison("rsae", "teacher", {"fvu": Difference(-0.1, -0.2, -0.05)})
    >>> found.fvu.high < 0
    True
    >>> print(found)
    rsae - teacher, with 95 % intervals
    fvu  -0.1 [-0.2, -0.05]
    """

    def __init__(self, row: str, base: str, metrics: Mapping[str, Difference]) -> None:
        self.row, self.base = row, base
        self._metrics = dict(metrics)

    def __getitem__(self, metric: str) -> Difference:
        return self._metrics[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def __getattr__(self, name: str) -> Difference:
        if not name.startswith("_") and name in self._metrics:
            return self._metrics[name]
        raise AttributeError(f"{name!r} is no metric of this comparison")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._metrics})

    def __repr__(self) -> str:
        width = max(map(len, self._metrics), default=0)
        lines = [f"{name:{width}}  {difference}" for name, difference in self._metrics.items()]
        return "\n".join([f"{self.row}{JOIN}{self.base}, with 95 % intervals", *lines])

    def to_frame(self) -> Any:
        """A pandas DataFrame: one line a metric, columns `value`, `low`, `high`, float64.

        Raises MissingExtraError if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("pandas", extra="pandas") from error
        values = [[one.value, one.low, one.high] for one in self._metrics.values()]
        return pandas.DataFrame(values, index=list(self._metrics), columns=["value", "low", "high"])


def comparison(differences: Mapping[str, Mapping[str, Any]], row: str, base: str) -> Comparison:
    """Of two rows, from a report's `differences`.

    Raises SettingsError naming the pairs that there are, if these two were not compared.
    """
    found = differences.get(f"{row}{JOIN}{base}")
    if found is None:
        pairs = ", ".join(differences) or "nothing"
        raise SettingsError(f"{row} was not compared with {base}", f"there is: {pairs}")
    return Comparison(row, base, {metric: Difference(one["value"], *one["interval"]) for metric, one in found.items()})
