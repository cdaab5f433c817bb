"""The paper's approximation theory, measured: each statement's figures beside its predicted rate."""

from rational_sae.theory.run import measure_theory, write_theory

__all__ = ["measure_theory", "write_theory"]
