"""Where results go: nothing of anybody else's is removed, moved or replaced, and places are checked before any work."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dying import DiedError, run
from safetensors.torch import load_file, save_file
from tiny import tiny_job
from typer.testing import CliRunner

from rational_sae.cli import app
from rational_sae.errors import OutputError
from rational_sae.formats import load
from rational_sae.formats.save import save, save_plain
from rational_sae.support.outputs import (
    EARLIER,
    PARTIAL,
    SAE_NAMES,
    UPGRADE,
    check_elsewhere,
    check_file,
    files_of,
    write_file,
)
from rational_sae.upgrading.run.checkpoint import Checkpoints
from rational_sae.upgrading.run.folder import JobFolder
from rational_sae.upgrading.settings import Settings

FOREIGN = Path(__file__).parents[1] / "foreign.py"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Settings:
    return tiny_job(tmp_path_factory.mktemp("job"), tiny_folders["llama"])


@pytest.fixture(scope="module")
def whole(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(settings, out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def result(out: Path) -> dict[str, bytes]:
    """What is the same in every run: not the report, which has times."""
    return {name: content for name, content in contents(out).items() if not name.startswith("report")}


def rsae(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rational_sae", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, cwd=cwd)


def refusal(*arguments: str | Path) -> str:
    """The one line with which a command is refused."""
    found = CliRunner().invoke(app, [str(one) for one in arguments])
    assert isinstance(found.exception, OutputError), found.output
    assert "\n" not in str(found.exception)
    return str(found.exception)


def test_resume_takes_no_folder_without_a_job(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "runs" / "precious").mkdir(parents=True)
    (tmp_path / "runs" / "precious" / "report.json").write_text("{}")
    (tmp_path / "runs" / "notes.md").write_text("mine")
    before = contents(tmp_path)
    refused = rsae("upgrade", settings.teacher, "--text", settings.text, "--out", tmp_path / "runs", "--resume")
    assert refused.returncode == 1
    assert "holds no job of rsae upgrade to resume" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert contents(tmp_path) == before
    plan = tmp_path / "grid.yaml"
    plan.write_text(f"cells: {{a: {{teacher: {settings.teacher}, settings: {{text: {settings.text}}}}}}}")
    assert "no job of rsae sweep" in refusal("sweep", plan, "--out", tmp_path / "runs", "--resume")
    plan.unlink()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["settings.yaml", "report.json", "log.jsonl", "sae/cfg.json", "checkpoint"])
@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_files_of_our_names_that_others_wrote_are_not_taken_for_ours(
    settings: Settings, tmp_path: Path, name: str, options: dict[str, bool]
) -> None:
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text('{"mine": true}')
    with pytest.raises(OutputError, match="no job of rsae upgrade" if "resume" in options else "not written by rsae"):
        run(settings, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == {name: b'{"mine": true}'}


@pytest.mark.parametrize("name", ["settings.yaml", "report.json", "report.html", "log.jsonl", "sae/README.md"])
def test_a_file_of_our_name_that_holds_something_else_is_refused_in_our_folder_too(
    settings: Settings, whole: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    if name == "report.html":
        (out / "report.json").unlink()
    (out / name).write_text('{"mine": true}')
    before = contents(out)
    with pytest.raises(OutputError, match=f"{name} was not written by rsae upgrade, so it is not replaced"):
        run(settings, out, overwrite=True)
    assert contents(out) == before


def test_an_overwrite_starts_without_the_checkpoints_of_the_job_before(
    settings: Settings, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DiedError):
        run(settings.model_copy(update={"lr": 1e-3}), out, dies_at=11)
    assert Checkpoints(out / "checkpoint").newest_step() == 8
    notes = {path: b"mine" for path in (out / "notes.md", *(p / "notes.md" for p in out.glob("checkpoint/step-*")))}
    for path, content in notes.items():
        path.write_bytes(content)
    with pytest.raises(DiedError):
        run(settings, out, dies_at=5, overwrite=True)
    assert Checkpoints(out / "checkpoint").newest_step() == 4
    run(settings, out, resume=True)
    assert {path: path.read_bytes() for path in notes} == notes
    for path in notes:
        path.unlink()
    assert {name: content for name, content in result(out).items()} == result(whole)


def test_a_result_that_is_overwritten_stays_whole_until_the_new_one_is(
    settings: Settings, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for name in ("notes.md", "sae/notes.md", "control-native/x.txt", "plots/a.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    with pytest.raises(DiedError):
        run(settings.model_copy(update={"seed": 1}), out, dies_at=5, overwrite=True)
    assert contents(out / EARLIER) == contents(whole)
    run(settings.model_copy(update={"seed": 1}), out, resume=True)
    kept = {name: content for name, content in contents(out).items() if content == b"mine"}
    assert set(kept) == {"notes.md", "sae/notes.md", "control-native/x.txt", "plots/a.png"}
    assert set(contents(out)) - set(kept) == set(contents(whole))
    assert contents(out)["sae/sae_weights.safetensors"] != contents(whole)["sae/sae_weights.safetensors"]


def test_the_log_of_a_new_job_leaves_other_names_of_the_old_one_alone(
    settings: Settings, whole: Path, tmp_path: Path
) -> None:
    out, backup = tmp_path / "out", tmp_path / "backup"
    shutil.copytree(whole, out)
    shutil.copytree(out, backup, copy_function=os.link)
    before = contents(backup)
    with pytest.raises(DiedError):
        run(settings, out, dies_at=5, overwrite=True)
    assert contents(backup) == before


def test_every_file_of_a_job_is_in_the_table_of_names(settings: Settings, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DiedError):
        run(settings, tmp_path / "out", dies_at=6)
    for out in (whole, tmp_path / "out"):
        assert set(files_of(out, UPGRADE.all_names)) == {path for path in out.rglob("*") if path.is_file()}
    save(load(settings.teacher), tmp_path / "sae", "# Card")
    save_plain(load(settings.teacher), tmp_path / "plain")
    for out in (tmp_path / "sae", tmp_path / "plain"):
        assert set(files_of(out, SAE_NAMES)) == set(out.iterdir())


def test_a_teacher_is_not_replaced_by_its_own_upgrade(settings: Settings, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for teacher in (out, out / "sae"):
        with pytest.raises(OutputError, match="lies where the result would replace it"):
            run(settings.model_copy(update={"teacher": str(teacher)}), out, overwrite=True)
    assert contents(out) == contents(whole)
    assert "lies where" in refusal("export", out, "--as", "safetensors", "--out", out / "sae")
    check_elsewhere("hub:owner/sae", out)
    check_elsewhere(str(tmp_path / "other"), out)


def test_an_sae_of_another_program_is_not_replaced_by_an_export(settings: Settings, tmp_path: Path) -> None:
    sae = load(settings.teacher)
    for out, write in ((tmp_path / "a", save), (tmp_path / "b", save_plain)):
        write(sae, out)
        write(sae, out)
        path = next(out.glob("*.safetensors"))
        save_file(load_file(path), path)  # what another program writes has no mark of ours
        before = contents(out)
        with pytest.raises(OutputError, match="an SAE that this program did not write"):
            write(sae, out)
        assert contents(out) == before


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A file system of its own at a folder, where this user may do that."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if made.returncode:
        pytest.skip("this user may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def small(settings: Settings) -> list[str]:
    options = {"--steps": "4", "--batch-tokens": "64", "--train-tokens": "256", "--eval-tokens": "128"}
    return [settings.teacher, "--text", settings.text, *(part for pair in options.items() for part in pair)]


def test_a_job_into_the_folder_one_stands_in(settings: Settings, tmp_path: Path) -> None:
    done = rsae("upgrade", *small(settings), "--out", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"report.json", "report.html", "sae"} <= {path.name for path in tmp_path.iterdir()}
    assert PARTIAL not in {path.name for path in tmp_path.iterdir()}
    done = rsae("export", "sae", "--as", "safetensors", "--out", "plain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = rsae("export", "../sae", "--as", "safetensors", "--out", ".", cwd=tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "plain").iterdir()] == ["sae.safetensors"]


def test_a_job_into_a_mount_below_a_folder_that_is_read_only(settings: Settings, whole: Path, tmp_path: Path) -> None:
    parent, out = tmp_path / "parent", tmp_path / "parent" / "out"
    with mounted(parent), mounted(out):
        subprocess.run(["mount", "-o", "remount,ro", str(parent)], check=True)
        run(settings, out)
        assert result(out) == result(whole)
        run(settings, out, overwrite=True)
        save(load(settings.teacher), out / "exported")
        with pytest.raises(OutputError, match="Read-only file system"):
            JobFolder(parent / "other")
        with pytest.raises(OutputError, match="Read-only file system"):
            save(load(settings.teacher), parent / "other")


def test_a_folder_that_may_not_be_written_is_refused_at_once(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out, words in ((tmp_path / "file", "Not a directory"), (tmp_path / "file" / "x", "Not a directory")):
        with pytest.raises(OutputError, match=words):
            JobFolder(out)
    with pytest.raises(OutputError, match="name too long"):
        JobFolder(tmp_path / ("x" * 300))
    if os.geteuid() == 0:
        return  # root may write anywhere
    (tmp_path / "out").mkdir()
    tmp_path.chmod(0o555)
    try:
        run(settings, tmp_path / "out")
        with pytest.raises(OutputError, match="Permission denied"):
            JobFolder(tmp_path / "other")
    finally:
        tmp_path.chmod(0o755)


JSON_COMMANDS = {
    "inspect": ["nowhere"],
    "evaluate": ["nowhere", "--text", "nothing"],
    "headroom": ["nowhere", "--text", "nothing"],
    "export": ["nowhere", "--as", "safetensors", "--out", "nowhere-else"],
    "latent": ["nowhere", "3"],
    "fit": ["relu"],
    "bench": [],
}


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_a_place_for_json_is_looked_at_before_any_work(command: str, tmp_path: Path) -> None:
    """Were the SAE opened first, the message would be of that."""
    (tmp_path / "file").write_text("mine")
    arguments = [command, *JSON_COMMANDS[command], "--json"]
    assert "file/x.json cannot be written (Not a directory)" in refusal(*arguments, tmp_path / "file" / "x.json")
    assert "is a folder; name a file" in refusal(*arguments, tmp_path)
    assert "too long" in refusal(*arguments, tmp_path / ("x" * 300))
    assert contents(tmp_path) == {"file": b"mine"}


def test_every_command_with_json_is_tested() -> None:
    callbacks = [command.callback for command in app.registered_commands if command.callback]
    assert {one.__name__ for one in callbacks if "json_file" in one.__annotations__} == set(JSON_COMMANDS)


def test_a_picture_is_refused_before_the_fit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in refusal("fit", "relu", "--type", "nonsense", "--plot", tmp_path / "file" / "x.svg")
    assert "is no picture" in refusal("fit", "relu", "--type", "nonsense", "--plot", tmp_path / "x.doc")


def test_a_named_file_is_written_through_links_and_pipes(tmp_path: Path) -> None:
    path, link = tmp_path / "new" / "a.json", tmp_path / "link"
    write_file(path, "one")
    link.symlink_to(path)
    check_file(link)
    write_file(link, "two")
    assert link.is_symlink()
    assert path.read_text() == "two"
    code = (
        "from pathlib import Path; from rational_sae.support.outputs import check_file, write_file\n"
        "p = Path('/dev/stdout'); check_file(p); write_file(p, 'said')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "said"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("upgrade", ["--cache", "a b", "--trust-remote-code", "--checkpoint-steps", "5", "--steps", "7"]),
        ("demo", ["--family", "relu", "--seed", "7"]),
        ("sweep", ["--workers", "2", "--cache", "it's"]),
    ],
)
def test_a_printed_command_is_one_that_runs(
    command: str, options: list[str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "Ergebnisse (2026)" / "run 'one' $x & y; z"
    plan = tmp_path / "a (b).yaml"
    plan.write_text(f"cells: {{a: {{teacher: {settings.teacher}, settings: {{text: {settings.text}}}}}}}")

    def interrupted(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rational_sae.upgrading.job.run", interrupted)
    monkeypatch.setattr("rational_sae.sweep.sweep", interrupted)
    monkeypatch.setattr("rational_sae.upgrading.run.checkpoint.Checkpoints.newest_step", lambda _self: 3)
    first = {"upgrade": [settings.teacher, "--text", settings.text], "demo": [], "sweep": [plan]}[command]
    arguments = [command, *map(str, first), "--out", str(out), *options]
    found = CliRunner().invoke(app, arguments, env={"COLUMNS": "40"})
    assert found.exit_code == 130, found.output
    printed = found.stderr.partition("go on with: ")[2].strip()
    assert "\n" not in printed
    assert subprocess.run(["bash", "-nc", printed], check=False).returncode == 0
    again = shlex.split(printed)
    repeated = {
        "upgrade": ["--cache", "a b", "--checkpoint-steps", "5", "--trust-remote-code"],
        "demo": ["--family", "relu", "--seed", "7"],
        "sweep": [str(plan), "--workers", "2", "--cache", "it's"],
    }[command]
    assert again[:2] == ["rsae", command]
    assert sorted(again[2:]) == sorted([*repeated, "--out", str(out), "--resume"])


def foreign(*options: str) -> dict[str, Any]:
    # In a process of its own: it forks, which does not go together with the threads that other tests have started.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(FOREIGN), *options], capture_output=True, text=True, check=False, env=env
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_foreign_files_stay_the_same_whatever_is_killed() -> None:
    found = foreign("--times", "80")
    assert found["changed"] == []
    assert found["codes"]["-9"] >= 10
    assert found["codes"]["0"] >= 10
    assert set(found["codes"]) <= {"0", "1", "-9"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 6))
def test_foreign_files_stay_the_same_in_many_more_trees(seed: int) -> None:
    found = foreign("--times", "300", "--seed", str(seed))
    assert found["changed"] == []
    assert set(found["codes"]) <= {"0", "1", "-9"}
