"""Many upgrades, resumably, into one table."""

from rational_sae.sweep.plan import Plan, read_plan
from rational_sae.sweep.run import engine_named, sweep

__all__ = ["Plan", "engine_named", "read_plan", "sweep"]
