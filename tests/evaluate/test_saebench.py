"""SAEBench itself, in an environment of its own: its probe code against ours on the same codes and labels."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from saebench_env import interpreter

from rational_sae.activations import Reader
from rational_sae.errors import RationalSAEError
from rational_sae.evaluate.pooling import pooled
from rational_sae.evaluate.probe import ALL, accuracy, balanced
from rational_sae.evaluate.tasks import open_task
from rational_sae.hosts import Host
from rational_sae.sources import load
from rational_sae.text import Text
from rational_sae.tokens import Tokeniser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TEACHER = Path(__file__).parents[2] / "demo" / "teachers" / "topk"
KS, SEED, TRAIN, TEST = (1, 2, 5, 20, ALL), 42, 80, 20
HALF_A_POINT = 0.005

THEIRS = """
import json, sys
import numpy as np, torch
from sae_bench.evals.sparse_probing.probe_training import train_probe_on_activations
arrays = np.load("codes.npz")
def part(name):
    return {key.split("/")[1]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith(name + "/")}
found = {}
for k in json.loads(sys.argv[1]):
    torch.manual_seed(int(sys.argv[2]))
    found[k] = train_probe_on_activations(part("train"), part("test"), select_top_k=k or None, use_sklearn=True)[1]
json.dump({k: {c: float(v) for c, v in one.items()} for k, one in found.items()}, open("theirs.json", "w"))
"""


@pytest.fixture(scope="module")
def saebench() -> Path:
    """The environment's interpreter; made on first use."""
    try:
        return interpreter()
    except RationalSAEError as error:
        pytest.skip(str(error))


def test_accuracies_equal_those_of_saebenchs_own_probe_code(
    saebench: Path, host: Host, news: Text, tmp_path: Path
) -> None:
    sae = load(str(TEACHER))
    reader = Reader(host, host.hook("model.layers.11"), news, Tokeniser(host.tokenizer, 128))
    texts = {name: own[: TRAIN + TEST] for name, own in open_task("question-type").texts.items()}
    found = pooled(reader, {"sae": sae}, [text for own in texts.values() for text in own])
    codes = found.rows["sae"]
    size = TRAIN + TEST
    places = {name: np.arange(i * size, (i + 1) * size) for i, name in enumerate(texts)}
    train = {name: own[:TRAIN] for name, own in places.items()}
    test = {name: own[TRAIN:] for name, own in places.items()}
    arrays = {
        f"{part}/{name}": codes[rows].toarray()
        for part, members in (("train", train), ("test", test))
        for name, rows in members.items()
    }
    np.savez(tmp_path / "codes.npz", **arrays)  # type: ignore[arg-type]
    subprocess.run([saebench, "-c", THEIRS, json.dumps(KS), str(SEED)], cwd=tmp_path, check=True, capture_output=True)
    theirs = json.loads((tmp_path / "theirs.json").read_text())
    generator = torch.Generator().manual_seed(SEED)
    for name in texts:
        rows, labels = balanced(train, name, generator)
        test_rows, test_labels = balanced(test, name, generator)
        for k in KS:
            ours = accuracy(codes[rows], labels, codes[test_rows], test_labels, k)[0]
            assert ours == pytest.approx(theirs[str(k)][name], abs=HALF_A_POINT), (name, k)
    assert 0.6 < np.mean(list(theirs[str(ALL)].values())) < 1.0, "the task is neither hopeless nor trivial"
