"""A whole job on another device than the CPU gives what it gives there, and mixes the two nowhere on the way.

The device is a stand-in (`other_device.py`); results are equal to the bit, because both compute on the CPU. Where the
code takes ways of its own on a CPU (selection by NumPy), these are compared with the general ones here too.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dying import DiedError, run
from other_device import OtherTensor, Seen, other_device
from random_sae import D_SAE, WAVY, gate_of_mode, make, sample
from tiny import TINY_WORDS, save_tiny_teacher, save_tiny_text, tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from typer.testing import CliRunner

import rational_sae.upgrading.train.revive as revive
from rational_sae.check.inspection import inspect_sae
from rational_sae.cli import app
from rational_sae.data.language_model import Host
from rational_sae.data.reading import Reading, usable_device
from rational_sae.errors import SettingsError
from rational_sae.evaluation import Protocol, Results, evaluate
from rational_sae.evaluation.absorption import absorption
from rational_sae.evaluation.words import Words
from rational_sae.formats import load
from rational_sae.formats.save import save, save_plain
from rational_sae.gates.base import Gate
from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.safe_pade import SafePadeGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.token_scaled import TokenScale
from rational_sae.gates.topk import TopKGate
from rational_sae.publish.distil import distil, exactly
from rational_sae.report import read_report
from rational_sae.sae import sparse
from rational_sae.sae.model import SAE, Metadata
from rational_sae.steering import ablated, intervene
from rational_sae.support import distributed
from rational_sae.support.progress import Silent
from rational_sae.sweep import Plan, sweep
from rational_sae.upgrading.headroom import headroom
from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.result import Upgrade
from rational_sae.upgrading.run.summary import report_of
from rational_sae.upgrading.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens

    import rational_sae.saelens  # noqa: F401  # SAELens learns the architecture

SOURCE = Path(__file__).parents[1] / "src" / "rational_sae"
FAMILIES = ("relu", "jumprelu", "topk")
DEAD = 192
"""Latents that never fire, beside the 64 of a tiny teacher: steps are sparse then, and there is something to revive."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Path:
    """A folder with a text, a task and a teacher of each family."""
    root = tmp_path_factory.mktemp("device")
    text = save_tiny_text(root / "text.jsonl", 500)
    for family in FAMILIES:
        sae = load(str(save_tiny_teacher(root / "small", tiny_folders["llama"], text, family=family)))
        dead = torch.nn.functional.normalize(torch.randn(DEAD, sae.d_in, generator=torch.Generator().manual_seed(0)))
        with torch.no_grad():
            W_dec, b_enc = torch.cat([sae.W_dec, dead]), torch.cat([sae.b_enc, torch.full((DEAD,), -100.0)])
            gate = sae.gate
            if isinstance(gate, ThresholdGate):
                gate = ThresholdGate(torch.cat([gate.threshold, gate.threshold[:1].expand(DEAD)]))
            save(SAE(W_dec.T, b_enc, W_dec, sae.b_dec, gate, metadata=sae.metadata), root / family)
    # A word of letters first, which the tokenizer does not know: texts that differ in digits alone count as copies.
    rows = [
        {
            "text": " ".join(["ab"[label] * (i + 1), *(TINY_WORDS[(7 * i + j) % 30 + 30 * label] for j in range(12))]),
            "label": label,
        }
        for i in range(120)
        for label in (0, 1)
    ]
    (root / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one device does and the other does not, switched off: a model's fused attention, selection in bfloat16."""
    monkeypatch.setattr(sparse, "bfloat16_gains", lambda _device: False)
    monkeypatch.setattr(revive, "EXPECTED_FIRINGS", 10.0)  # enough to see latents revived in a few steps
    with sdpa_kernel(SDPBackend.MATH):
        yield


def settings(inputs: Path, family: str, device: str, **options: Any) -> Settings:
    sizes = {"type": (3, 2), "steps": 12, "batch_tokens": 128, "train_tokens": 1000, "eval_tokens": 256}
    names = {"teacher": str(inputs / family), "text": str(inputs / "text.jsonl"), "device": device}
    return Settings.model_validate({**names, **sizes, **options})


def weights(saes: dict[str, SAE]) -> dict[str, torch.Tensor]:
    found = {name: {**sae.state_dict(), "b": sae.b_dec} for name, sae in saes.items()}
    return {f"{name}.{key}": value.cpu() for name, own in found.items() for key, value in own.items()}


def plain(report: dict[str, Any]) -> Any:
    """What of a report the device may not change, with NaN equal to itself."""
    kept = {name: value for name, value in report.items() if name not in ("timing", "settings", "environment")}
    return json.loads(json.dumps(kept), parse_constant=str)


def both(job: Callable[[str], Any]) -> tuple[Any, Any, Seen]:
    """What a job gives on the CPU and on the other device, which must not have drawn random numbers of its own."""
    here = job("cpu")
    with other_device() as seen:
        there = job("other")
    assert not seen.drawn
    assert seen.operations
    return here, there, seen


def require_same(here: Upgrade, there: Upgrade) -> None:
    wanted, found = weights(here.saes), weights(there.saes)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    assert plain(report_of(here)) == plain(report_of(there))


def test_the_stand_in_refuses_what_a_gpu_refuses() -> None:
    with other_device() as seen:
        x, plain = torch.ones(3, device=seen.device), torch.ones(3)
        for wrong in (
            lambda: x + plain,
            lambda: plain.add_(x),
            lambda: torch.cat([x, plain]),
            lambda: plain[torch.zeros(2, dtype=torch.int64, device=seen.device)],
            lambda: x.index_add_(0, torch.zeros(3, dtype=torch.int64), x),
            lambda: x.index_put_((torch.tensor([0, 1]),), plain[:2]),
            lambda: torch.multinomial(x, 1, generator=torch.Generator()),
            lambda: torch.randn(3, device=seen.device, generator=torch.Generator()),
        ):
            with pytest.raises(RuntimeError, match="Expected"):
                wrong()
        for unreadable in (x.numpy, lambda: np.asarray(x), lambda: torch.from_numpy(np.zeros(3)).numpy() + x.numpy()):
            with pytest.raises(TypeError, match="numpy"):
                unreadable()
        assert not seen.drawn
        torch.randn(3, device=seen.device)
        assert seen.drawn == {"aten::randn"}
        # and allows what it allows
        assert (x * torch.tensor(2.0))[torch.tensor([0, 1])].tolist() == [2.0, 2.0]
        assert plain.copy_(x.mul_(3)).tolist() == [3.0] * 3
        assert x.cpu().numpy().tolist() == [3.0] * 3


def test_an_optimizer_and_a_module_move_to_the_stand_in_as_to_a_gpu() -> None:
    def trained(device: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        layer, x = torch.nn.Linear(3, 2), torch.randn(5, 3)
        weight = layer.weight
        layer.to(device)
        assert layer.weight is weight
        optimizer = torch.optim.Adam(layer.parameters(), fused=True)
        for _ in range(3):
            layer(x.to(device)).pow(2).sum().backward()
            optimizer.step()
        assert {value.device.type for value in optimizer.state[weight].values()} == {device}
        return {name: value.cpu() for name, value in layer.state_dict().items()}

    here, there, _ = both(trained)
    assert all(torch.equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_upgrade_beside_all_controls(inputs: Path, family: str) -> None:
    controls = ("native", "jumprelu", "identity")
    here, there, seen = both(lambda device: upgrade(settings(inputs, family, device, controls=controls)))
    require_same(here, there)
    assert there.candidates["rsae"].sparse, "the sparse products ran"
    assert len(there.candidates["rsae"].silence.revived) > 0
    assert seen.operations["aten::_fused_adam_"] > 0
    assert all(isinstance(value, OtherTensor) for value in there.saes["rsae"].state_dict().values())


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "the paper's recipe": ("relu", {"recipe": "paper", "steps": 6}),
    "a smooth gate, with probes": ("relu", {"gate": "smooth", "probes": ("task.jsonl",), "probe_train": 160}),
    "a gate of k, decoders fitted again": ("topk", {"gate": "topk", "refit_decoder": True}),
    "a shape from the reconstruction": ("topk", {"calibrate": "reconstruction"}),
    "a norm of the codes as the penalty": ("jumprelu", {"penalty": "l1"}),
    "a model in bfloat16": ("jumprelu", {"precision": "bfloat16", "sink": "keep", "steps": 4}),
    "several windows": ("relu", {"train_tokens": None, "calibrate": "none"}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_upgrade_with_other_options(inputs: Path, name: str) -> None:
    family, options = OPTIONS[name]
    options = {"steps": 6, "controls": ("native",)} | options
    if "probes" in options:
        options |= {"probes": [str(inputs / task) for task in options["probes"]]}
    here, there, _ = both(lambda device: upgrade(settings(inputs, family, device, **options)))
    require_same(here, there)


def test_a_job_that_stops_goes_on_from_its_checkpoint_to_the_same_files(inputs: Path, tmp_path: Path) -> None:
    def job(device: str) -> dict[str, Any]:
        asked, out = settings(inputs, "jumprelu", device), tmp_path / device
        if device == "cpu":
            return run(asked, out)
        with pytest.raises(DiedError):
            run(asked, out, dies_at=6)
        return run(asked, out, resume=True)

    here, there, _ = both(job)
    assert plain(here) == plain(there) == plain(read_report(tmp_path / "other"))
    for part in ("sae/sae_weights.safetensors", "sae/cfg.json", "control-native/sae_weights.safetensors", "log.jsonl"):
        assert (tmp_path / "other" / part).read_bytes() == (tmp_path / "cpu" / part).read_bytes()


def test_a_cell_and_a_pilot_of_a_sweep(inputs: Path, tmp_path: Path) -> None:
    def job(device: str) -> dict[str, Any]:
        asked = settings(inputs, "jumprelu", device, steps=4, controls=("native",)).model_dump(exclude_unset=True)
        cell = {"teacher": asked.pop("teacher"), "pilot": True}
        plan = Plan.model_validate({"defaults": asked, "rates": [0.5, 1.0], "cells": {"one": cell}})
        return sweep(plan, tmp_path / device, Silent())

    here, there, _ = both(job)
    assert there["failed"] == {}
    assert there["cells"]["one"]["rows"] == here["cells"]["one"]["rows"]


def figures(found: Results) -> Any:
    return plain(found.report())


def test_evaluate_with_a_cache_and_a_probe(inputs: Path, tmp_path: Path) -> None:
    def job(device: str) -> Any:
        reading = Reading(text=str(inputs / "text.jsonl"), device=device, cache=tmp_path / device)
        names = [str(inputs / family) for family in FAMILIES]
        task = [str(inputs / "task.jsonl")]
        return [
            figures(evaluate(names, reading, eval_tokens=256, probes=task, protocol=Protocol(160))) for _ in range(2)
        ]

    here, there, _ = both(job)
    assert there == here
    assert there[0] == there[1], "read from the cache the second time"


@pytest.mark.parametrize("family", FAMILIES)
def test_headroom_inspect_and_distil(inputs: Path, family: str) -> None:
    def job(device: str) -> Any:
        reading = Reading(text=str(inputs / "text.jsonl"), device=device)
        name = str(inputs / family)
        found = distil(name, reading, eval_tokens=256)
        facts = inspect_sae(name, reading)
        results = [figures(headroom(name, reading, eval_tokens=256))]
        results += [figures(found.results)] if found.results else []
        return facts, results, weights({"distilled": found.sae})

    here, there, _ = both(job)
    assert there[:2] == here[:2]
    assert all(torch.equal(there[2][name], here[2][name]) for name in here[2])


def gates() -> dict[str, Gate]:
    scale = 4.0 + torch.rand(D_SAE, generator=torch.Generator().manual_seed(3))

    def rational(mode: Any, **options: Any) -> RationalGate:
        return gate_of_mode(mode, WAVY, scale, 0.2 * scale, **options)

    return {
        "relu": ReLUGate(),
        "topk": TopKGate(4),
        "threshold": ThresholdGate(0.2 * scale),
        "hard": rational("hard"),
        "hard, by token": rational("hard", token=TokenScale(k=5, power=0.6, level=-1.0)),
        "rational topk": rational("topk", k=4),
        "smooth": rational("smooth"),
        "safe Padé": SafePadeGate.of(rational("smooth")),
    }


@pytest.mark.parametrize("name", list(gates()))
def test_codes_gradients_and_files_of_every_gate(name: str, tmp_path: Path) -> None:
    def job(device: str) -> Any:
        sae, x = make(gates()[name], normalisation="layer_norm").to(device), sample()[:200].to(device)
        x_hat, z, l0 = sae.outputs(x)
        ((x - x_hat).pow(2).sum() + (l0 if l0.requires_grad else 0.0)).backward()
        gradients = {f"gradient of {key}": p.grad for key, p in sae.named_parameters() if p.grad is not None}
        found = {"x_hat": x_hat, "z": z, "l0": l0, **gradients}
        for number, write in enumerate((save, save_plain)):
            write(sae, tmp_path / device / str(number))
        plainly = exactly(sae)
        if plainly is not None:
            save(plainly, tmp_path / device / "exactly")
        sae.to(torch.bfloat16)
        with torch.no_grad():
            found["in bfloat16"] = sae(x)
        return {key: value.detach().cpu() for key, value in found.items()}

    here, there, _ = both(job)
    assert there.keys() == here.keys()
    assert [key for key in here if not torch.equal(there[key], here[key])] == []
    files = sorted(path.relative_to(tmp_path / "cpu") for path in (tmp_path / "cpu").rglob("*") if path.is_file())
    assert len(files) >= 3
    for path in files:
        assert (tmp_path / "other" / path).read_bytes() == (tmp_path / "cpu" / path).read_bytes()


def test_a_gate_that_is_made_beside_weights_of_a_device_lies_there_with_all_its_parts() -> None:
    with other_device() as seen:
        for name, gate in gates().items():
            sae = make(ReLUGate()).to(seen.device).with_gate(gate)
            parts = [*sae.gate.parameters(), *sae.gate.buffers()]
            if isinstance(sae.gate, ThresholdGate | RationalGate):
                parts += [sae.gate.transition.profile, sae.gate.transition.half_width]
            assert {part.device for part in parts} <= {seen.device}, name


def test_the_class_for_saelens(tmp_path: Path) -> None:
    save(make(gates()["hard"]), tmp_path / "sae")

    @torch.no_grad()
    def job(device: str) -> tuple[torch.Tensor, torch.Tensor]:
        found, x = sae_lens.SAE.load_from_disk(str(tmp_path / "sae")).to(device), sample()[:50].to(device)
        z = found.encode(x)
        return z.cpu(), found.decode(z).cpu()

    here, there, _ = both(job)
    assert torch.equal(here[0], there[0])
    assert torch.equal(here[1], there[1])


def test_steering() -> None:
    ids = torch.arange(4, 24).view(2, 10)

    @torch.no_grad()
    def job(device: str) -> torch.Tensor:
        model = tiny_model("llama").to(device)
        generator = torch.Generator().manual_seed(0)
        shapes = [(32, 64), (64,), (64, 32), (32,)]
        drawn = [0.3 * torch.randn(shape, generator=generator) for shape in shapes]
        gate = HardGate(WAVY, torch.ones(64), 0.1 * torch.ones(64))
        sae = SAE(*drawn, gate=gate, metadata=Metadata(hook_name="model.layers.1")).to(device)
        with intervene(Host("tiny", model, None), sae, lambda z: ablated(z, [3, 7])):
            return model(input_ids=ids.to(device), use_cache=False).logits.cpu()

    here, there, _ = both(job)
    assert torch.equal(there, here)


def test_absorption() -> None:
    letters, each = 12, 40
    label = np.repeat([chr(97 + i) for i in range(letters)], each)
    x = torch.eye(letters).repeat_interleave(each, 0)
    x += 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    sae = SAE(
        2 * torch.eye(letters), torch.full((letters,), -0.4), torch.eye(letters), torch.zeros(letters), ReLUGate()
    )

    def job(device: str) -> Any:
        words = Words(x.to(device), label, np.tile(np.arange(each), letters) % 4 == 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rational_sae.evaluation.absorption.read_words", lambda *_args, **_options: words)
            return absorption(None, {"sae": sae.to(device)})  # type: ignore[arg-type]

    here, there, _ = both(job)
    assert there == here


def test_auto_is_cuda_where_there_is_one_and_what_cannot_be_used_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert usable_device("cpu") == "cpu"
    with other_device():
        assert usable_device("other") == "other"
    for name in ("nonsense", "cpu:", "meta", "mps", ""):
        with pytest.raises(SettingsError, match="cannot be used") as refused:
            usable_device(name)
        assert "\n" not in str(refused.value)
    if not torch.cuda.is_available():
        assert usable_device("auto") == "cpu"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        with pytest.raises(SettingsError, match="the device cuda cannot be used"):
            usable_device("auto")


@pytest.mark.parametrize("command", ["upgrade", "evaluate", "headroom", "inspect", "export"])
def test_every_command_that_reads_a_model_takes_a_device(inputs: Path, tmp_path: Path, command: str) -> None:
    further = {"upgrade": ["--out", tmp_path / "out"], "export": ["--as", "jumprelu", "--out", tmp_path / "out"]}
    text = inputs / "text.jsonl"
    arguments = [command, inputs / "topk", "--text", text, "--device", "cuda:999", *further.get(command, [])]
    done = subprocess.run(
        [sys.executable, "-m", "rational_sae", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "the device cuda:999 cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_command_runs_on_the_device_that_it_is_given(inputs: Path) -> None:
    text, name = str(inputs / "text.jsonl"), str(inputs / "relu")
    with other_device() as seen:
        done = CliRunner().invoke(
            app, ["evaluate", name, "--text", text, "--eval-tokens", "256", "--device", "other", "--json", "-"]
        )
        assert done.exit_code == 0, done.output
    assert seen.operations["aten::mm"] + seen.operations["aten::addmm"] > 0


PROCESS = """
import os
import sys
sys.path.insert(0, sys.argv[1])
import torch
from other_device import other_device
from rational_sae.support import distributed

distributed.start()
rank = distributed.rank()
assert distributed.world() == 2
with other_device() as seen:
    there = {"device": seen.device}
    x = torch.arange(4.0, **there)[:, None]
    own, share = distributed.part(x)
    assert distributed.totals(own.sum(), torch.tensor(share, **there)) == [6.0, 1.0]
    assert distributed.agreed(rank == 1) and not distributed.agreed(False)
    first, second = torch.ones(3, **there).requires_grad_(), torch.ones(2, **there).requires_grad_()
    first.grad = torch.full((3,), float(1 + rank), **there)
    distributed.add_gradients_([first, second])
    assert first.grad.tolist() == [3.0] * 3 and second.grad.tolist() == [0.0] * 2
    assert distributed.all_agree(torch.tensor([True, rank == 0], **there)).tolist() == [True, False]
    assert distributed.leaders(torch.full((2,), float(rank), **there)).tolist() == [0.0] * 2
    found = distributed.leaders_tensors({"a": torch.full((2,), 1.0 + rank, **there)} if rank == 0 else {})
    assert found["a"].tolist() == [1.0, 1.0] and found["a"].device.type == "cpu"
    spread = dict(distributed.spread(range(3), lambda n: torch.full((n + 1, 2), float(n), **there)))
    assert {n: x.tolist() for n, x in spread.items()} == {n: [[float(n)] * 2] * (n + 1) for n in range(3)}
distributed.stop()
print("right", flush=True)
os._exit(0)  # a dispatch mode makes torch keep the group, whose threads abort a process that ends around them
"""


def test_what_crosses_between_processes_comes_from_the_device_and_goes_back_there(tmp_path: Path) -> None:
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("right") == 2


def test_with_gpus_what_lies_on_the_cpu_has_a_way_between_processes_too() -> None:
    """NCCL carries tensors of a GPU alone."""
    assert distributed.back_ends(gpu=False) == "gloo"
    with_gpus = distributed.back_ends(gpu=True)
    assert with_gpus == ("cpu:gloo,cuda:nccl" if torch.distributed.is_nccl_available() else "gloo")


READS_THE_CPU = {
    "data/activations.py": "token ids, as the tokenizer gave them",
    "support/distributed.py": "bytes of JSON",
    "evaluation/firing.py": "sums of `measure`, kept on the CPU",
    "evaluation/metrics.py": "sums of `measure`, kept on the CPU",
    "evaluation/pooling.py": "numbers of texts, as the tokenizer gave them",
    "evaluation/probe.py": "permutations drawn on the CPU",
    "evaluation/probing.py": "permutations drawn on the CPU",
    "kernels/selection.py": "after a look at the device",
    "sweep/engines/ray_engine.py": "what `activations_of` brought to the CPU",
    "rational/baselines.py": "a function of NumPy's own",
    "data/vectors.py": "a file's, or brought to the CPU when given",
    "data/sequences.py": "token ids and what is kept of them, as the tokenizer gave them",
    "gates/transition.py": "a grid made there",
    "upgrading/start/calibrate.py": "a function of NumPy's least squares",
}
"""Files that give a tensor to NumPy without `.cpu()` before, and why it can be none of an accelerator."""


def test_numpy_is_given_tensors_of_the_cpu_alone() -> None:
    """Every other `.numpy()` has a `.cpu()` before it in the same expression. For a new one: write it so, or name it
    above."""
    found = set[str]()
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_read = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "numpy"
            if is_read and not _has_cpu(node):
                found.add(str(path.relative_to(SOURCE)))
    assert found == READS_THE_CPU.keys()


def _has_cpu(call: ast.Call) -> bool:
    """Whether a chain of calls passes `.cpu()`."""
    node: ast.expr = call
    while isinstance(node, ast.Call | ast.Attribute):
        if isinstance(node, ast.Attribute) and node.attr == "cpu":
            return True
        node = node.func if isinstance(node, ast.Call) else node.value
    return False
