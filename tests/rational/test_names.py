"""The exported names are pinned: adding or dropping one is a decision."""

from __future__ import annotations

from rational_sae import rational


def test_exported_names() -> None:
    assert rational.__all__ == [
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
    assert all(hasattr(rational, name) for name in rational.__all__)
