"""Rational functions that stand in for gates: targets, minimax fits with certificates, stored forms."""

from rational_sae.rational.cache import cached_fit
from rational_sae.rational.certificate import Certificate, certify
from rational_sae.rational.conversion import from_rational, from_safe_pade, to_rational, to_safe_pade
from rational_sae.rational.forms import PartialFractions, SafePade
from rational_sae.rational.minimax import fit
from rational_sae.rational.result import Fit
from rational_sae.rational.targets import FunctionTarget, Target, target
from rational_sae.rational.zolotarev import zolotarev_sign

__all__ = [
    "Certificate",
    "Fit",
    "FunctionTarget",
    "PartialFractions",
    "SafePade",
    "Target",
    "cached_fit",
    "certify",
    "fit",
    "from_rational",
    "from_safe_pade",
    "target",
    "to_rational",
    "to_safe_pade",
    "zolotarev_sign",
]
