"""The SAE's own ways to files and back: the field's names, paths as users write them, signatures that are seen."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_sae import D_SAE, make, sample

import rational_sae
from rational_sae.errors import OutputError, SourceError
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.model import SAE
from rational_sae.sae.storage import OFFERED_BY


@pytest.fixture
def sae() -> SAE:
    return make(ThresholdGate(torch.full((D_SAE,), 0.4)))


@pytest.mark.parametrize("kind", [str, Path])
@torch.no_grad()
def test_an_sae_goes_to_a_folder_and_back(sae: SAE, tmp_path: Path, kind: type) -> None:
    folder = kind(tmp_path / "new" / "sae")
    sae.save_pretrained(folder)
    for again in (SAE.from_pretrained(folder), rational_sae.load(folder), type(sae).from_pretrained(folder)):
        assert type(again) is rational_sae.SAE
        assert again.metadata.source == str(folder)
        assert torch.equal(again.encode(sample()), sae.encode(sample()))
    rational_sae.save(again, folder)  # over what is ours


def test_a_path_from_home_is_there(sae: SAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    rational_sae.save(sae, "~/one")
    sae.save_pretrained(Path("~/two"))
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    assert rational_sae.load("~/one").d_sae == SAE.from_pretrained(Path("~/two")).d_sae == D_SAE
    with pytest.raises(SourceError, match="home"):
        SAE.from_pretrained("~nobody-of-this-name/sae")


def test_refusals_are_those_of_load_and_save(sae: SAE, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        SAE.from_pretrained(tmp_path / "nothing")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.md").write_text("precious")
    with pytest.raises(OutputError):
        sae.save_pretrained(tmp_path / "mine")


def test_help_shows_what_every_public_name_takes() -> None:
    assert list(inspect.signature(rational_sae.load).parameters) == ["name"]
    assert list(inspect.signature(rational_sae.SAE.push_to_hub).parameters) == ["self", "repo", "private"]
    page = pydoc.plain(pydoc.render_doc(rational_sae))
    for line in ("load(name: 'str | Path') -> 'SAE'", "save_pretrained(self, folder: 'str | Path') -> 'None'", "fit("):
        assert line in page
    assert {"SAE", "load", "save"} <= set(dir(rational_sae))


@pytest.mark.parametrize("name", [name for name in rational_sae.__all__ if name not in ("fit", "__version__")])
def test_every_public_name_gives_saes_all_their_ways(name: str) -> None:
    code = f"import rational_sae; rational_sae.{name}\nfrom rational_sae.sae.storage import *\n"
    code += "print(*(offered(method).__name__ for method in OFFERED_BY))"
    assert run(code) == "load save push_sae"


def test_a_room_alone_says_what_to_import() -> None:
    code = "from rational_sae.sae.model import SAE\ntry:\n    SAE.from_pretrained('x')\n"
    assert run(code + "except RuntimeError as error:\n    print(error)").endswith("import rational_sae.formats")
    assert set(OFFERED_BY) == {"from_pretrained", "save_pretrained", "push_to_hub"}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_demo_saes_come_with_the_package() -> None:
    sae = SAE.from_pretrained("demo:topk")
    assert (sae.metadata.family, sae.d_in, sae.metadata.source) == ("topk", 576, "demo:topk")
    with pytest.raises(SourceError, match="there is no demo:gated; choose demo:relu"):
        SAE.from_pretrained("demo:gated")
