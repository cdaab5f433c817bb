"""Several processes do one job as one process does, and the loss of one of them is no more than an interruption."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import save_tiny_teacher, save_tiny_text

from rational_sae.report import read_report
from rational_sae.support import distributed
from rational_sae.upgrading.settings import Settings

STEPS = 120


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Path:
    root = tmp_path_factory.mktemp("parallel")
    text = save_tiny_text(root / "text.jsonl")
    teacher = save_tiny_teacher(root / "teacher", tiny_folders["llama"], text)
    # 127 tokens: the two parts of a batch differ by one. With half as many a batch is now and then at the edge of the
    # controller's band, and the last bit decides whether thresholds are moved back at once.
    one = Settings(
        teacher=str(teacher),
        text=str(text),
        type=(3, 2),
        steps=STEPS,
        batch_tokens=127,
        train_tokens=2000,
        eval_tokens=512,
        controls=("native", "jumprelu"),
    )
    path = root / "settings.yaml"
    path.write_text(yaml.safe_dump(one.to_store()))
    return path


def command(processes: int, settings: Path, out: Path, *options: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    job = ["-m", "rational_sae", "upgrade", "--settings", str(settings), "--out", str(out), *options]
    return [sys.executable, *(launcher if processes > 1 else []), *job]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(processes: int, settings: Path, out: Path, *options: str) -> None:
    done = subprocess.run(
        command(processes, settings, out, *options), capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def two(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "out"
    run(2, settings, out)
    return out


def test_two_processes_give_what_one_gives(settings: Path, two: Path, tmp_path: Path) -> None:
    run(1, settings, tmp_path / "one")
    alone, together = read_report(tmp_path / "one"), read_report(two)
    assert together["environment"]["processes"] == "2"
    assert together["data"]["sha256"] == alone["data"]["sha256"]
    assert together["data"]["train_tokens_distinct"] == alone["data"]["train_tokens_distinct"]
    for name, row in alone["rows"].items():
        assert together["rows"][name]["fvu"] == pytest.approx(row["fvu"], rel=2e-3), name
        assert together["rows"][name]["l0"] == pytest.approx(row["l0"], rel=5e-3), name
    for name, curve in alone["curves"]["train"].items():
        other = together["curves"]["train"][name]
        assert other["step"] == curve["step"]
        assert other["mse"][:20] == pytest.approx(curve["mse"][:20], rel=1e-4), name
        assert other["l0"][:20] == pytest.approx(curve["l0"][:20], rel=1e-3), name
        assert curve["mse"][-1] != curve["mse"][0]


@pytest.mark.slow
def test_a_killed_process_ends_the_job_with_a_clear_message_and_it_resumes_to_the_same_bits(
    settings: Path, two: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = subprocess.Popen(
        command(2, settings, out, "--checkpoint-steps", "10"), stderr=subprocess.PIPE, text=True, env=environment()
    )
    deadline = time.monotonic() + 300
    log = out / "log.jsonl"
    while not log.exists() or log.read_text().count("\n") < 3 * 15:
        assert job.poll() is None, job.stderr and job.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in psutil.Process(job.pid).children(recursive=True):
        if process.environ().get("RANK") == "1":
            process.kill()
            break
    else:
        pytest.fail("no second process")
    _, said = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "--resume goes on" in said
    assert not (out / "report.json").exists()
    run(2, settings, out, "--resume")
    for folder in ("sae", "control-native", "control-jumprelu"):
        resumed, straight = (load_file(of / folder / "sae_weights.safetensors") for of in (out, two))
        assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.slow
def test_what_one_process_refuses_ends_all(settings: Path, two: Path) -> None:
    done = subprocess.run(
        command(2, settings, two), capture_output=True, text=True, check=False, env=environment(), timeout=300
    )
    assert done.returncode != 0
    assert "is not empty" in done.stderr


def test_alone_nothing_is_split_or_waited_for() -> None:
    x = torch.arange(6.0).view(3, 2)
    assert distributed.world() == 1
    assert distributed.leads()
    assert distributed.part(x) == (x, 1.0)
    assert distributed.totals(torch.tensor(2.0)) == [2.0]
    assert distributed.leaders_json({"a": 1}) == {"a": 1}
    assert [item for item, _ in distributed.spread([1, 2, 3], lambda n: torch.zeros(n, 2))] == [1, 2, 3]
    distributed.leader_goes_on()


LEAVES = """
from pathlib import Path

import torch
from rational_sae.support import distributed

distributed.start()
distributed.totals(torch.ones(2).sum())
distributed.stop()
threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
assert not [name for name in threads if "gloo" in name], threads
print("alone")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux shows them")
def test_leaving_ends_the_threads_that_carried_tensors(tmp_path: Path) -> None:
    """One that lives on into the interpreter's end would abort the process after its work is done."""
    script = tmp_path / "leaves.py"
    script.write_text(LEAVES)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script)], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("alone") == 2
