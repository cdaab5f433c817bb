"""Three kills on the embedded model, of the command as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TEACHER = Path(__file__).parents[3] / "demo" / "teachers" / "topk"
OPTIONS = ["--steps", "24", "--train-tokens", "8192", "--eval-tokens", "1024", "--batch-tokens", "512"]


def command(out: Path) -> list[str]:
    options = ["--text", "news", "--out", str(out), "--resume", "--checkpoint-steps", "2", *OPTIONS]
    return [sys.executable, "-m", "rational_sae", "upgrade", str(TEACHER), *options]


def files(out: Path) -> dict[str, str]:
    # Digests: an assertion that compares megabytes of bytes takes hours, and all memory, to say how they differ.
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("report.json", "report.html")
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_kills_on_the_embedded_model_change_no_bit(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(whole), check=True, capture_output=True)
    rng, kills = random.Random(0), 0
    for step in sorted(rng.sample(range(2, 23), 3)):
        process = subprocess.Popen(command(broken), stderr=subprocess.DEVNULL)
        log = broken / "log.jsonl"
        while process.poll() is None:
            if log.exists() and f'"step": {step},' in log.read_text():
                time.sleep(rng.uniform(0, 0.3))
                os.kill(process.pid, signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
        assert not (broken / "report.json").exists()
    assert kills == 3
    subprocess.run(command(broken), check=True, capture_output=True)
    assert files(broken) == files(whole)
    first, second = (json.loads((out / "report.json").read_text()) for out in (whole, broken))
    assert {key for key in first if first[key] != second[key]} <= {"timing"}
