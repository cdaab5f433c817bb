"""Many upgrades, resumably, into one table."""

from rational_sae.sweep.engines import engine_named
from rational_sae.sweep.plan import Plan, read_plan
from rational_sae.sweep.run import sweep

__all__ = ["Plan", "engine_named", "read_plan", "sweep"]
