"""Each metric once: its name, words, unit and direction, what is summed for it, its value from the sums, its digits.

    METRICS["toy"] = Metric("toy", "Toy", "What it is.", of=lambda sums: ..., table="headline")

`evaluation` computes what has an `of`, and `report` shows whatever is here, in this order. Importing this room is
cheap: neither NumPy nor torch.
"""

from rational_sae.metrics.absorption import ABSORPTION
from rational_sae.metrics.floor import FLOOR
from rational_sae.metrics.latents import LATENTS
from rational_sae.metrics.measured import MEASURED
from rational_sae.metrics.metric import Guesses, Metric, PredictionColumn, Sums, Table, TokenColumn, Tokens
from rational_sae.metrics.probes import PROBES

METRICS: dict[str, Metric] = {one.name: one for one in (*MEASURED, *FLOOR, *PROBES, *LATENTS, *ABSORPTION)}
"""By name, in the order of display."""


def metric(name: str) -> Metric:
    """What is known of a name; an unknown one is shown under itself.

    >>> metric("fvu").label, metric("mine").label
    ('FVU', 'mine')
    """
    return METRICS.get(name) or Metric(name, name, "", decimals=None)


def named(*tables: Table) -> list[str]:
    """Names of a table's metrics, in the order of display.

    >>> named("probing")[0]
    'probe_k1'
    """
    return [one.name for one in METRICS.values() if one.table in tables]


def token_columns() -> dict[str, TokenColumn]:
    """What is summed over kept tokens, for all metrics together."""
    return {c.name: c for one in METRICS.values() for c in one.sums if isinstance(c, TokenColumn)}


def prediction_columns() -> dict[str, PredictionColumn]:
    """What is summed over predicted positions, for all metrics together."""
    return {c.name: c for one in METRICS.values() for c in one.sums if isinstance(c, PredictionColumn)}


__all__ = [
    "METRICS",
    "Guesses",
    "Metric",
    "PredictionColumn",
    "Sums",
    "Table",
    "TokenColumn",
    "Tokens",
    "metric",
    "named",
    "prediction_columns",
    "token_columns",
]
