"""The trainable rational function and its gradients, behind one function with interchangeable back ends."""

from rational_sae.kernels.function import BACKENDS, apply_rational, rational_value, value_slope_sums
from rational_sae.kernels.reference import LINEAR, linear_basis
from rational_sae.kernels.safe_pade import apply_safe_pade

__all__ = [
    "BACKENDS",
    "LINEAR",
    "apply_rational",
    "apply_safe_pade",
    "linear_basis",
    "rational_value",
    "value_slope_sums",
]
