"""Code of the documents runs as it is written, where its tensors exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from upgrading.test_on_tensors import teacher, vectors

README = Path(__file__).parents[1] / "README.md"


def blocks(page: Path = README) -> list[str]:
    parts = page.read_text(encoding="utf-8").split("```python\n")[1:]
    return [part.partition("```")[0] for part in parts]


@pytest.mark.slow
def test_the_steering_example_runs_and_steers(capsys: pytest.CaptureFixture[str]) -> None:
    code = next(block for block in blocks(README.parent / "docs" / "steering.md") if "intervene" in block)
    exec(compile(code, "docs/steering.md", "exec"), {})
    plain, steered = capsys.readouterr().out.strip().split("The council said")[1:]
    assert "Wednesday" in steered
    assert "day" not in plain


def test_the_stages_on_tensors_run(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import rational_sae\n" + next(block for block in blocks() if "rational_sae.calibrate" in block)
    given = {"teacher": teacher("jumprelu"), "x": vectors(1024), "x_test": vectors(512, seed=2)}
    exec(compile(code.replace("steps=600", "steps=4"), str(README), "exec"), given)
    assert capsys.readouterr().out.count("Figures(fvu=0.") == 2


def test_the_guide_on_tensors_runs_and_training_helps(capsys: pytest.CaptureFixture[str]) -> None:
    whole, stages = blocks(README.parent / "docs" / "tensors.md")
    given: dict[str, object] = {}
    exec(compile(whole, "docs/tensors.md", "exec"), given)
    answer, difference, *rows = capsys.readouterr().out.splitlines()
    assert answer.startswith("Upgrade of an SAE in memory. Yes: FVU")
    assert "ΔCE was not measured" in answer
    assert float(difference.split()[0]) < 0
    before, control, rational = (float(line.split()[1]) for line in rows)
    assert rational < control < 0.9 * before
    exec(compile(stages, "docs/tensors.md", "exec"), given)
    found = [float(line.partition("fvu=")[2].partition(",")[0]) for line in capsys.readouterr().out.splitlines()]
    before, control, rational = found
    assert max(control, rational) < 0.9 * before
