"""The trainable rational function and its gradients, behind one function with interchangeable back ends."""

from rational_sae.kernels.function import BACKENDS, apply_rational, rational_value, value_slope_sums
from rational_sae.kernels.reference import LINEAR, linear_basis, rational, shape_gradient

__all__ = [
    "BACKENDS",
    "LINEAR",
    "apply_rational",
    "linear_basis",
    "rational",
    "rational_value",
    "shape_gradient",
    "value_slope_sums",
]
