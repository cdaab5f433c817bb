"""The README's code on steering, and on tensors alone, runs as it is written, where its paths and tensors exist."""

from __future__ import annotations

import contextlib
import io
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from test_steering import make
from upgrading.test_on_tensors import teacher, vectors

from rational_sae.formats.save import save

README = Path(__file__).parents[1] / "README.md"


def blocks() -> list[str]:
    parts = README.read_text(encoding="utf-8").split("```python\n")[1:]
    return [part.partition("```")[0] for part in parts]


def test_the_steering_example_runs_and_steers(
    tmp_path: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(block for block in blocks() if "intervene" in block)
    (tmp_path / "path" / "to").mkdir(parents=True)
    shutil.copytree(tiny_folders["llama"], tmp_path / "path" / "to" / "model")
    sae = make("model.layers.1")
    with torch.no_grad():
        sae.W_dec[42] *= 50.0  # loud enough to be heard in five words of a random model
    save(sae, tmp_path / "path" / "to" / "rsae")
    monkeypatch.chdir(tmp_path)
    said = {}
    for value in ("8.0", "0.0"):
        out = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(out):
            warnings.simplefilter("ignore")
            exec(compile(code.replace("8.0", value), str(README), "exec"), {})
        said[value] = out.getvalue()
    assert said["8.0"].startswith("<unk> <unk> <unk>")
    assert said["8.0"] != said["0.0"]


def test_the_stages_on_tensors_run(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import rational_sae\n" + next(block for block in blocks() if "rational_sae.calibrate" in block)
    given = {"teacher": teacher("jumprelu"), "x": vectors(1024), "x_test": vectors(512, seed=2)}
    exec(compile(code.replace("steps=600", "steps=4"), str(README), "exec"), given)
    assert capsys.readouterr().out.count("Figures(fvu=0.") == 2
