"""The benchmark measures what it says: real steps, of one density, each beside what it is compared with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rational_sae.bench import Shape, bench
from rational_sae.bench.ours import our_jobs
from rational_sae.bench.peak import RESET, peak_bytes
from rational_sae.bench.peers import installed_peers
from rational_sae.bench.problem import Problem, make_problem
from rational_sae.bench.run import RATIOS, allowed_bytes

SMALL = Shape(d_in=24, d_sae=192, batch=64, l0=8)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(SMALL)


@pytest.mark.parametrize("kind", ["hard", "two looks", "threshold", "relu", "topk"])
def test_every_gate_has_the_l0_asked_for(problem: Problem, kind: str) -> None:
    z = problem.sae(kind).encode(problem.x[: SMALL.batch])
    assert float((z != 0).sum(-1).float().mean()) == pytest.approx(SMALL.l0, rel=0.01)


def test_ours_are_whole_steps_that_change_the_weights_and_agree_on_them() -> None:
    problem = make_problem(SMALL)
    weights = {}
    for name, job in our_jobs(problem).items():
        if name not in ("dense", "sparse", "two_looks", "relu", "relu_sparse"):
            continue
        step: Any = job
        candidate = next(c.cell_contents for c in step.__closure__ if hasattr(c.cell_contents, "curve"))
        before = candidate.sae.W_enc.detach().clone()
        step()
        assert candidate.curve.step == [1]
        assert not torch.equal(candidate.sae.W_enc, before)
        weights[name] = candidate.sae.W_enc.detach()
    for plain, quick in (("dense", "sparse"), ("relu", "relu_sparse")):
        assert float((weights[plain] - weights[quick]).norm()) < 1e-5 * float(weights[plain].norm())


def test_both_encodings_have_the_same_support(problem: Problem) -> None:
    jobs: dict[str, Callable[[], Any]] = our_jobs(problem)
    assert torch.equal(jobs["encode"]() != 0, jobs["encode_teacher"]() != 0)


def test_saelens_takes_its_own_training_step(problem: Problem) -> None:
    pytest.importorskip("sae_lens")
    for name in ("saelens_standard", "saelens_topk"):
        result: Any = installed_peers()[name](problem)()
        assert result.loss.isfinite()


def test_a_tool_that_fails_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no driver\nand more")

    monkeypatch.setattr("rational_sae.bench.run.installed_peers", lambda: {"saelens_topk": lambda _problem: broken})
    found = bench([SMALL], repeats=1)
    assert found["failed"] == {"saelens_topk": "RuntimeError: no driver"}
    assert "sparse_over_saelens_topk" not in found["ratios"]


def test_sparsify_takes_its_own_training_step(problem: Problem) -> None:
    pytest.importorskip("sparsify")
    installed_peers()["sparsify_topk"](problem)()


def test_the_report_holds_medians_memory_and_ratios_of_every_shape() -> None:
    found = bench([SMALL, Shape(16, 64, 32, l0=4)], repeats=2)
    assert [shape["d_in"] for shape in found["shapes"]] == [24, 16]
    assert found["ratios"] == found["shapes"][0]["ratios"]
    ours = {"two_looks_over_sparse", "two_looks_over_encoder_product", "encode_two_looks_over_encode"}
    ours |= {"dense_over_relu", "sparse_over_encoder_product", "encode_over_teacher", "gate_over_products"}
    assert ours <= set(found["ratios"]) <= set(RATIOS)
    for shape in found["shapes"]:
        assert all(value > 0 for value in (shape["ratios"] | shape["medians"]).values())
        assert shape["memory"].keys() == shape["medians"].keys() | {"allowed"}
    assert allowed_bytes(SMALL) == 4 * (2 * 24 * 192 + 24 + 192 + 3 * 64 * 192)
    json.dumps(found, allow_nan=False)


def test_the_command_prints_json_alone() -> None:
    command = [sys.executable, "-m", "rational_sae", "bench", "--d-in", "24", "--d-sae", "192", "--batch", "64"]
    run = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, check=True)
    assert {"ratios", "medians", "memory", "environment"} <= json.loads(run.stdout).keys()
    assert "sparse_over_encoder_product" in run.stderr


@pytest.mark.skipif(not RESET.exists(), reason="only Linux tells the peak of a process again and again")
def test_peak_memory_is_what_a_job_holds_at_once() -> None:
    size = 64 << 20

    def job() -> None:
        first = torch.ones(size // 4)
        second = first + 1
        del first
        second += second.sum()

    peak = peak_bytes(job, torch.device("cpu"))
    assert peak is not None
    assert 1.9 * size < peak < 2.5 * size
