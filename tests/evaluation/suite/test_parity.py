"""sae-probes itself, in SAEBench's environment, which holds it: its figures on our codes and labels, beside ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from peers import run_there
from saebench_env import interpreter

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import RationalSAEError
from rational_sae.evaluation.suite.codes import last_codes
from rational_sae.evaluation.suite.run import probe_suite
from rational_sae.evaluation.suite.tasks import Size, open_suite
from rational_sae.formats import load
from rational_sae.metrics.probes import AUC_OF

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TASKS = ("5_hist_fig_ismale", "65_high-school", "92_glue_sst2", "117_us_state_FL", "154_athlete_sport_football")
TEACHER = Path(__file__).parents[3] / "demo" / "teachers" / "topk"
HALF_A_POINT = 0.005

THEIRS = """
import json, sys
import numpy as np, torch
from sae_probes.run_sae_evals import get_sorted_indices, mean_act_normalization
from sae_probes.utils_data import get_train_test_indices
from sae_probes.utils_training import find_best_reg
arrays, found = np.load("codes.npz"), {}
for name in json.loads(sys.argv[1]):
    z, x, y = (torch.from_numpy(arrays[f"{name}/{part}"]) for part in ("z", "x", "y"))
    num_train = min(len(y) - 100, 1024)
    train, test = get_train_test_indices(y.numpy(), num_train, len(y) - num_train - 1, 0.5, 42)
    order = get_sorted_indices(z[train], y[train], mean_act_normalization)
    results = {}
    for k in json.loads(sys.argv[2]):
        best = order[:k]
        results[str(k)] = find_best_reg(z[train][:, best], y[train], z[test][:, best], y[test], penalty="l1", seed=42)
    results["all"] = find_best_reg(x[train], y[train], x[test], y[test], penalty="l2", seed=42)
    found[name] = {k: [one.metrics.test_auc, one.metrics.test_acc] for k, one in results.items()}
json.dump(found, open("theirs.json", "w"))
"""


def test_five_tasks_have_the_packages_own_figures_on_the_same_codes(host: Host, news: Text, tmp_path: Path) -> None:
    try:
        python = interpreter()
    except RationalSAEError as error:
        pytest.skip(str(error))
    sae, size = load(str(TEACHER)), Size()
    reader = Reader(host, host.hook("model.layers.11"), news, Tokeniser(host.tokenizer, 128))
    tasks = open_suite([f"sae-probes:{name}" for name in TASKS], size)
    arrays, ours = {}, {}
    for task in tasks:
        # Alone, so that both readings have the same batches: which last token is a sink, its batch's median norm says.
        ours |= probe_suite(reader, {"sae": sae}, [task], size).tasks
        further = () if task.elsewhere is None else task.elsewhere.texts
        texts = list(dict.fromkeys([*task.labelled.texts, *further]))
        ends = dict(zip(texts, reader.tokeniser.ends(texts), strict=True))
        codes = last_codes(reader, {"sae": sae}, {text: ids for text, ids in ends.items() if ids})
        # A name of one token does not count here, and its class then gives one text less.
        kept = task.labelled.only([i for i, text in enumerate(task.labelled.texts) if text in codes.place])
        kept = kept.first(len(kept.texts))
        arrays[f"{task.name}/z"] = codes.of("sae", kept.texts).toarray()
        arrays[f"{task.name}/x"] = codes.of("activations", kept.texts)
        arrays[f"{task.name}/y"] = kept.labels
    theirs = run_there(python, THEIRS, arrays, tmp_path, TASKS, list(AUC_OF.values()))
    apart: dict[str, list[float]] = {}
    for name in TASKS:
        scores = ours[name].scores["test"]
        own = {str(AUC_OF[key]): one for key, one in scores["sae"].items()} | {"all": scores["activations"]["auc_all"]}
        for key, one in own.items():
            auc, accuracy = theirs[name][key]
            apart.setdefault(key, []).append(one.auc - auc)
            apart.setdefault(f"{key} accuracy", []).append(one.accuracy - accuracy)
    for key, differences in apart.items():
        assert max(map(abs, differences)) <= HALF_A_POINT, (key, differences)
    assert len(apart) == 2 * (len(AUC_OF) + 1)
