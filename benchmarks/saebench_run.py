"""Run by `saebench.py` inside SAEBench's environment, in the prepared folder. Writes results.json there.

Two public seams are used. TransformerLens 3.9 has no SmolLM2 in its list of names; a name that is added to the list and
is also a folder here is read from the folder. SAEBench takes SAEs as objects, with names.
"""

from __future__ import annotations

import json
from pathlib import Path

import sae_bench.evals.core.main as core
import sae_bench.evals.sparse_probing.main as sparse_probing
from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
from sae_lens import SAE
from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES

import rational_sae.saelens  # noqa: F401  # makes SAELens know the architecture "rational"

TASK = "fancyzhx/ag_news"


def main() -> None:
    settings = json.loads(Path("settings.json").read_text())
    OFFICIAL_MODEL_NAMES.append(settings["model"])
    saes = [(name, _load(folder, settings)) for name, folder in settings["saes"].items()]
    results = {"core": _core(saes, settings), "sparse_probing": _probing(saes, settings)}
    Path("results.json").write_text(json.dumps(results, indent=2))


def _load(folder: str, settings: dict) -> SAE:
    sae = SAE.load_from_disk(folder)
    try:
        sae.fold_W_dec_norm()  # SAEBench does it with SAEs that it loads itself, and expects it of objects
    except NotImplementedError:
        print(f"{folder}: decoder norms are left as they are")
    sae.cfg.metadata.model_name = settings["model"]
    sae.cfg.metadata.hook_name = f"blocks.{settings['boundary'] - 1}.hook_resid_post"
    return sae


def _core(saes: list[tuple[str, SAE]], settings: dict) -> dict[str, dict]:
    found = core.multiple_evals(
        saes,
        n_eval_reconstruction_batches=settings["batches"],
        n_eval_sparsity_variance_batches=settings["batches"],
        eval_batch_size_prompts=4,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
        dataset="text",
        context_size=settings["context"],
        output_folder="core",
        device="cpu",
        force_rerun=True,
    )
    if len(found) != len(saes):
        raise SystemExit("SAEBench's core evaluation left SAEs out; its log above says why")
    return {one["sae_set"]: one["metrics"] for one in found}


def _probing(saes: list[tuple[str, SAE]], settings: dict) -> dict[str, dict]:
    config = SparseProbingEvalConfig(
        model_name=settings["model"],
        dataset_names=[TASK],
        probe_train_set_size=settings["probe_train"],
        probe_test_set_size=settings["probe_train"] // 4,
        context_length=settings["probe_context"],
        llm_batch_size=16,
        llm_dtype="float32",
    )
    found = sparse_probing.run_eval(
        config, saes, device="cpu", output_path="sparse_probing", force_rerun=True, artifacts_path="artifacts"
    )
    return {name.removesuffix("_custom_sae"): one["eval_result_metrics"] for name, one in found.items()}


if __name__ == "__main__":
    main()
