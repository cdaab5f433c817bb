"""Fits that several files look at, computed once."""

from __future__ import annotations

import pytest

from rational_sae.rational import Fit, fit


@pytest.fixture(scope="session")
def relu() -> Fit:
    return fit("relu", (9, 8))


@pytest.fixture(scope="session")
def jumprelu() -> Fit:
    return fit("jumprelu", (9, 8))
