"""A sweep: shared is the same as alone, finished is not done again, and a failure does not stop the rest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import save_tiny_teacher, save_tiny_text

from rational_sae.errors import OutputError
from rational_sae.report import read_report, render_sweep, sweep_sheets
from rational_sae.support.progress import Silent
from rational_sae.sweep import Plan, read_plan, sweep
from rational_sae.sweep.pilot import best_rates
from rational_sae.sweep.summary import ratios
from rational_sae.sweep.task import Outcome
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run.status import cells_line, status
from rational_sae.upgrading.run.summary import report_of

DEFAULTS = {"steps": 6, "train_tokens": 2048, "eval_tokens": 512, "batch_tokens": 512, "controls": ["native"]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Path:
    """A folder with a text and a teacher of each kind, at one hook."""
    folder = tmp_path_factory.mktemp("inputs")
    text = save_tiny_text(folder / "text.jsonl")
    for family in ("topk", "relu"):
        save_tiny_teacher(folder / family, tiny_folders["llama"], text, family=family)
    return folder


def plan_file(folder: Path, inputs: Path, **changes: Any) -> Path:
    content = {
        "defaults": DEFAULTS | {"text": str(inputs / "text.jsonl")} | changes,
        "rates": [0.5, 2.0],
        "cells": {
            "topk": {"teacher": str(inputs / "topk"), "pilot": True, "development": True},
            "relu": {"teacher": str(inputs / "relu")},
            "gone": {"teacher": str(folder / "nothing")},
        },
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> tuple[Path, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sweep")
    path = plan_file(folder, inputs)
    return path, folder / "out", sweep(read_plan(path), folder / "out", Silent())


def test_a_refused_cell_is_named_and_the_others_are_finished(swept: tuple[Path, Path, dict[str, Any]]) -> None:
    _, out, found = swept
    assert set(found["cells"]) == {"topk", "relu"}
    assert list(found["failed"]) == ["gone"]
    assert found["missing"] == []
    for name in ("topk", "relu"):
        assert found["cells"][name]["rows"] == read_report(out / "cells" / name)["rows"]
    assert json.loads((out / "sweep.json").read_text())["cells"].keys() == found["cells"].keys()


class Stops:
    """An engine that is interrupted at once."""

    def run(self, _tasks: object, _progress: object) -> Any:
        raise KeyboardInterrupt


def test_its_status_says_how_many_cells_there_are(
    swept: tuple[Path, Path, dict[str, Any]], inputs: Path, tmp_path: Path
) -> None:
    assert cells_line(swept[1]) == "2 of 3 cells finished, 1 failed"
    with pytest.raises(KeyboardInterrupt):
        sweep(read_plan(plan_file(tmp_path, inputs)), tmp_path / "out", Silent(), engine=Stops())
    assert status(tmp_path / "out") == []
    assert cells_line(tmp_path / "out") == "0 of 3 cells finished, 1 failed"


def test_every_row_of_a_pilot_chose_among_the_same_rates(swept: tuple[Path, Path, dict[str, Any]]) -> None:
    _, out, _ = swept
    kept = json.loads((out / "pilots" / "topk.json").read_text())
    assert {row: set(tried) for row, tried in kept["validation_fvu"].items()} == {
        "rsae": {"0.5", "2.0"},
        "control_native": {"0.5", "2.0"},
    }
    used = yaml.safe_load((out / "cells" / "topk" / "settings.yaml").read_text())["rates"]
    assert used == kept["chosen"]
    assert yaml.safe_load((out / "cells" / "relu" / "settings.yaml").read_text())["rates"] == {}


def test_a_cell_of_a_shared_harvest_equals_the_same_upgrade_alone(swept: tuple[Path, Path, dict[str, Any]]) -> None:
    path, out, _ = swept
    alone = report_of(upgrade(read_plan(path).settings("relu")))
    shared = read_report(out / "cells" / "relu")
    assert alone["rows"]["rsae"] == shared["rows"]["rsae"]
    assert alone["data"] == shared["data"]


def test_resuming_does_nothing_twice_and_only_what_is_missing(swept: tuple[Path, Path, dict[str, Any]]) -> None:
    path, out, found = swept
    stages: list[str] = []

    class Heard(Silent):
        def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
            stages.append(name)

    with pytest.raises(OutputError, match="not empty"):
        sweep(read_plan(path), out, Heard())
    again = sweep(read_plan(path), out, Heard(), resume=True)
    assert stages == []
    assert again["cells"] == found["cells"]


def test_resuming_with_other_settings_is_refused_naming_the_difference(
    swept: tuple[Path, Path, dict[str, Any]], inputs: Path, tmp_path: Path
) -> None:
    _, out, _ = swept
    other = read_plan(plan_file(tmp_path, inputs, lr=1e-3)).model_copy(update={"rates": ()})
    with pytest.raises(OutputError, match=r"was made with .*now it is"):
        sweep(other, out, Silent(), resume=True)


def test_the_page_shows_the_numbers_of_the_summary(swept: tuple[Path, Path, dict[str, Any]]) -> None:
    _, out, found = swept
    page = (out / "sweep.html").read_text()
    assert page == render_sweep(json.loads((out / "sweep.json").read_text()))
    for sheet in sweep_sheets(found):
        for line in sheet.lines:
            assert all(field.text in page and field.interval in page for field in line)


def made_cell(rsae: float, native: float, interval: list[float]) -> dict[str, Any]:
    keys = ("fvu_at_l0", "delta_ce_at_l0")
    return {
        "rows": {"rsae": dict.fromkeys(keys, rsae), "control_native": dict.fromkeys(keys, native)},
        "differences": {"rsae - control_native": {key: {"interval": interval} for key in keys}},
    }


def test_ratios_are_geometric_and_count_only_clear_differences() -> None:
    cells = {"a": made_cell(0.2, 0.4, [-0.3, -0.1]), "b": made_cell(0.3, 0.3, [-0.1, 0.1])}
    found = ratios(cells)
    assert set(found) == {"control_native"}
    ratio = found["control_native"]["fvu_at_l0"]
    assert ratio["geometric_mean"] == pytest.approx(math.sqrt(0.5))
    assert (ratio["worst"], ratio["worst_cell"]) == (1.0, "b")
    assert (ratio["clearly_better"], ratio["clearly_worse"], ratio["cells"]) == (1, 0, 2)


def test_ratios_count_the_cells_whose_control_kept_its_start() -> None:
    cells = {
        "a": made_cell(0.2, 0.4, [-0.3, -0.1]),
        "b": made_cell(0.3, 0.3, [-0.1, 0.1]) | {"untrained": ["control_native"]},
    }
    assert ratios(cells)["control_native"]["fvu_at_l0"]["untrained"] == 1


def test_of_equal_rates_the_one_nearest_to_1_is_chosen() -> None:
    assert best_rates({"rsae": {0.3: 0.2, 1.0: 0.2, 3.0: 0.3}, "control_native": {0.3: 0.5, 3.0: 0.4}}) == {
        "rsae": 1.0,
        "control_native": 3.0,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cells: {}", "cells"),
        ("cells: {../out: {teacher: x}}", "pattern"),
        ("cells: {a: {teacher: x, settings: {stepz: 3}}}", "stepz"),
        ("cells: {a: {teacher: x}}\nrates: [0]", "rates"),
        ("cells: [", "YAML"),
        (
            "cells: {x: {teacher: t, pilot: true}, x.json: {teacher: t, pilot: true}}",
            "the pilots x and x.json would write one file; rename one of them",
        ),
    ],
)
def test_a_wrong_plan_is_refused_with_the_place(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(OutputError, match=words):
        read_plan(path)


def test_the_shipped_grid_is_a_plan() -> None:
    plan = read_plan(Path(__file__).parents[2] / "configs" / "grid.yaml")
    assert len(plan.cells) == 15
    assert sum(cell.development for cell in plan.cells.values()) == 3


def test_a_pilots_rates_are_its_own_and_those_of_its_familys_other_cells(inputs: Path, tmp_path: Path) -> None:
    chosen = {"one": 0.5, "two": 2.0}

    class Asked:
        """Notes the settings of cells; pilots choose what they are told to."""

        def __init__(self) -> None:
            self.settings: dict[str, Any] = {}

        def run(self, tasks: list[Any], progress: Any) -> Any:
            for task in tasks:
                name = task.name.removeprefix("pilot ")
                if task.rates:
                    task.choice.parent.mkdir(parents=True, exist_ok=True)
                    task.choice.write_text(json.dumps({"chosen": {"rsae": chosen[name]}}))
                else:
                    self.settings[name] = task.settings
                yield Outcome(task.name, "")

    cells = {name: {"teacher": str(inputs / "topk"), "pilot": name in chosen} for name in ("one", "two", "three")}
    cells["other"] = {"teacher": str(inputs / "relu")}
    plan = Plan.model_validate({"defaults": {"text": "news"}, "rates": [0.5, 2.0], "cells": cells})
    engine = Asked()
    found = sweep(plan, tmp_path / "out", Silent(), engine=engine)
    used = {name: settings.rates for name, settings in engine.settings.items()}
    assert used == {"one": {"rsae": 0.5}, "two": {"rsae": 2.0}, "three": {"rsae": 0.5}, "other": {}}
    assert found["rates"] == {"one": {"rsae": 0.5}, "two": {"rsae": 2.0}}
