"""Files that the system does not give: every path that is read ends in a typed error of one line.

The faults are the system's own: reading this process's memory at 0 is an I/O error, links can go round in circles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rational_sae.data.text import open_text
from rational_sae.errors import OutputError, RationalSAEError, SettingsError, SourceError, TextError
from rational_sae.evaluation.tasks import open_task
from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.gates.topk import TopKGate
from rational_sae.report import read_report, read_sweep
from rational_sae.sae.model import SAE
from rational_sae.sweep import read_plan
from rational_sae.upgrading.settings import read_settings

FAILS_WHEN_READ = "/proc/self/mem"
"""A regular file in the system's eyes; its first bytes cannot be read."""


def an_io_error(path: Path) -> Path:
    path.symlink_to(FAILS_WHEN_READ)
    return path


def a_loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


def a_long_name(path: Path) -> Path:
    return path.with_name("x" * 5000 + path.suffix)


def a_file_as_a_folder(path: Path) -> Path:
    path.write_text("")
    return path / path.name


def no_permission(path: Path) -> Path:
    path.write_text("{}")
    path.chmod(0)
    return path


FAULTS: dict[str, Callable[[Path], Path]] = {
    "an I/O error": an_io_error,
    "a loop of links": a_loop,
    "a folder": a_folder,
    "a long name": a_long_name,
    "a file for a folder": a_file_as_a_folder,
    "no permission": no_permission,
}


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def sae_folder(folder: Path) -> Path:
    save(SAE(torch.ones(3, 5), torch.ones(5), torch.ones(5, 3), torch.ones(3), TopKGate(2)), folder)
    return folder


def sae_with(name: str) -> Callable[[Path, Callable[[Path], Path]], Any]:
    """An SAE's folder in which one file is at fault, if a file of that name can be."""

    def read(folder: Path, fault: Callable[[Path], Path]) -> Any:
        sae_folder(folder / "sae")
        (folder / "sae" / name).unlink()
        fault(folder / "sae" / name)
        return lambda: load(str(folder / "sae"))

    return read


def named(name: str, read: Callable[[Path], Any]) -> Callable[[Path, Callable[[Path], Path]], Any]:
    def with_fault(folder: Path, fault: Callable[[Path], Path]) -> Any:
        path = fault(folder / name)
        return lambda: read(path)

    return with_fault


def in_folder(name: str, read: Callable[[Path], Any]) -> Callable[[Path, Callable[[Path], Path]], Any]:
    def with_fault(folder: Path, fault: Callable[[Path], Path]) -> Any:
        path = fault(folder / name)
        return lambda: read(path.parent)

    return with_fault


def documents(path: Path) -> None:
    list(open_text(str(path)).documents("train"))


READERS: dict[str, tuple[Any, type[RationalSAEError]]] = {
    "weights in a folder": (sae_with("sae_weights.safetensors"), SourceError),
    "config": (sae_with("cfg.json"), SourceError),
    "weights": (named("ae.pt", lambda path: load(str(path))), SourceError),
    "an SAE's folder": (named("sae", lambda path: load(str(path))), SourceError),
    "settings.yaml": (named("settings.yaml", read_settings), SettingsError),
    "GRID.yaml": (named("grid.yaml", read_plan), OutputError),
    "report.json": (in_folder("report.json", read_report), OutputError),
    "sweep.json": (in_folder("sweep.json", read_sweep), OutputError),
    ".txt": (named("text.txt", documents), TextError),
    ".jsonl": (named("text.jsonl", documents), TextError),
    ".jsonl.gz": (named("text.jsonl.gz", documents), TextError),
    "a folder of text": (named("texts", documents), TextError),
    "a probe": (named("probe.jsonl", lambda path: open_task(str(path))), TextError),
}


@pytest.mark.skipif(not os.path.exists(FAILS_WHEN_READ), reason="no /proc here")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("reader", READERS)
def test_what_the_system_does_not_give_is_a_typed_error_of_one_line(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, reader: str, fault: str
) -> None:
    if os.geteuid() == 0:  # pytest's folders are its user's own
        for folder in (tmp_path, tmp_path_factory.getbasetemp(), tmp_path_factory.getbasetemp().parent):
            folder.chmod(0o755)
    make, kind = READERS[reader]
    read = make(tmp_path, FAULTS[fault])
    with nobody(), pytest.raises(kind) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert caught.value.remedy


@pytest.mark.skipif(not os.path.exists(FAILS_WHEN_READ), reason="no /proc here")
def test_a_sparsify_runs_config_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    from format_cases import CASES, Shape

    case = next(case for case in CASES if case.format == "sparsify")
    case.make(tmp_path / "run" / "layers.3", Shape(5, 9, 3))
    load(str(tmp_path / "run" / "layers.3"))
    an_io_error(tmp_path / "run" / "config.json")
    with pytest.raises(SourceError, match="Input/output error"):
        load(str(tmp_path / "run" / "layers.3"))


@pytest.mark.skipif(not os.path.exists(FAILS_WHEN_READ), reason="no /proc here")
@pytest.mark.parametrize("name", ["cfg.json", "ae.pt"])
def test_the_cause_is_the_systems_own(tmp_path: Path, name: str) -> None:
    for fault, words in ((an_io_error, "Input/output error"), (a_loop, "Too many levels of symbolic links")):
        folder = sae_folder(tmp_path / fault.__name__)
        (folder / "cfg.json").unlink()
        path = fault(folder / name)
        with pytest.raises(SourceError, match=words):
            load(str(folder if name == "cfg.json" else path))


@pytest.mark.parametrize(
    "content", ["[" * 5000, "a: &a\n  b: *a\n", "a: 2001-99-99", "a: !!int 0b", "\x00", "? [x]\n: 1"]
)
def test_yaml_that_its_reader_stumbles_on_is_a_typed_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError):
        read_settings(path)
    with pytest.raises(OutputError):
        read_plan(path)
