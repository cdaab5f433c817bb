"""A sweep in several processes, or on Ray, gives the table of one process, and loses nothing with a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from tiny import save_tiny_teacher, save_tiny_text

from rational_sae.formats import load
from rational_sae.report import read_sweep
from rational_sae.support.progress import Silent
from rational_sae.sweep import read_plan, sweep
from rational_sae.sweep.engines.shared import activations_of, harvest_from
from rational_sae.upgrading.harvest import harvest

STEPS = 150
CELLS = ("a", "b", "c")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Path:
    root = tmp_path_factory.mktemp("engines")
    text = save_tiny_text(root / "text.jsonl")
    hooks = dict(zip(CELLS, ("model.layers.0", "model.layers.1", "model.layers.1"), strict=True))
    plan = {
        "defaults": {
            "text": str(text),
            "type": [3, 2],
            "steps": STEPS,
            "batch_tokens": 64,
            "train_tokens": 1500,
            "eval_tokens": 512,
            "controls": ["native"],
        },
        "rates": [1.0, 2.0],
        "cells": {
            name: {"teacher": str(save_tiny_teacher(root / name, tiny_folders["llama"], text, hook))}
            for name, hook in hooks.items()
        }
        | {"gone": {"teacher": str(root / "nothing")}},
    }
    plan["cells"]["b"]["pilot"] = True
    path = root / "grid.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


@pytest.fixture(scope="module")
def table(grid: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By one process with one thread: sums depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return untimed(sweep(read_plan(grid), tmp_path_factory.mktemp("here") / "out", Silent()))
    finally:
        torch.set_num_threads(threads)


def untimed(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "cells": {name: {**cell, "seconds": 0} for name, cell in found["cells"].items()}}


def begin(grid: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rational_sae", "sweep", str(grid), "--out", str(out), *options]
    # Ray's workers are niced by default, and would starve where other work goes on.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "RAY_worker_niceness": "0"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def kill_a_worker(job: subprocess.Popen[str], out: Path, words: str) -> None:
    """Once a cell is under way and another is finished, kill the process that holds it."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert job.poll() is None, job.stderr and job.stderr.read()
        for log in out.glob("cells/*/log.jsonl"):
            if log.with_name("report.json").exists() or log.stat().st_size < 2000:
                continue
            for process in psutil.Process(job.pid).children(recursive=True):
                try:
                    holds = any(file.path == str(log) for file in process.open_files())
                    if holds and words in " ".join(process.cmdline()):
                        process.kill()
                        return
                except psutil.Error:
                    continue
        time.sleep(0.02)
    pytest.fail("no worker was seen")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"), [(("--workers", "2"), ""), (("--engine", "ray", "--workers", "2"), "ray::")]
)
def test_an_engine_that_loses_a_worker_gives_the_same_table(
    options: tuple[str, ...], words: str, grid: Path, table: dict[str, Any], tmp_path: Path
) -> None:
    if "ray" in options:
        pytest.importorskip("ray")
    out = tmp_path / "out"
    job = begin(grid, out, *options, "--checkpoint-steps", "10")
    kill_a_worker(job, out, words)
    _, said = job.communicate(timeout=500)
    assert job.returncode == 1, said  # because one teacher is not there
    assert untimed(read_sweep(out)) == table
    assert set(table["cells"]) == set(CELLS)
    assert list(table["failed"]) == ["gone"]


def test_a_harvest_travels_as_arrays(grid: Path) -> None:
    settings = read_plan(grid).settings("a")
    teacher = load(settings.teacher)
    settings = settings.resolved(teacher)
    straight = harvest(settings, teacher)
    packed = activations_of(harvest(settings, teacher))
    travelled = harvest_from(packed, settings, teacher)
    assert torch.equal(travelled.calibration_x, straight.calibration_x)
    assert torch.equal(travelled.validation_x, straight.validation_x)
    for _, one, other in zip(range(60), straight.batches, travelled.batches, strict=False):
        assert torch.equal(one, other)
    assert torch.equal(travelled.batches.mean, straight.batches.mean)
    assert travelled.batches.distinct_tokens == straight.batches.distinct_tokens
    assert travelled.reader.digests == straight.reader.digests
