"""Many upgrades, resumably, into one table."""

from rational_sae.sweep.plan import Plan, read_plan
from rational_sae.sweep.run import sweep

__all__ = ["Plan", "read_plan", "sweep"]
