"""Train the demo's three teachers with SAELens' own trainer, on the train split alone.

    python demo/train_teachers.py --out demo/teachers

Takes about an hour on two cores: 15 minutes of harvest, then three trainings. `--harvest FILE` keeps the
harvested activations (bfloat16, 1.5 GB) so that a second run skips the first part.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import sae_lens
import torch
from sae_lens import SAETrainer
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from safetensors.torch import load_file, save_file

from rational_sae.activations import Reader
from rational_sae.hosts import load_host, wants_bos
from rational_sae.text import open_text
from rational_sae.tokens import Tokeniser

MODEL, HOOK, TEXT, CONTEXT = "smollm2", "model.layers.11", "news", 128
D_IN, D_SAE = 576, 2304
TOKENS, BATCH, PASSES, SEED = 1_310_720, 1024, 3, 0
STEPS = TOKENS // BATCH * PASSES


def harvest(keep: Path | None) -> torch.Tensor:
    """x: [TOKENS, D_IN] bfloat16 residual vectors of the train split."""
    if keep and keep.exists():
        return load_file(keep)["x"]
    host = load_host(MODEL)
    tokeniser = Tokeniser(host.tokenizer, CONTEXT, bos=wants_bos(host, "auto"))
    reader = Reader(host, host.hook(HOOK), open_text(TEXT), tokeniser)
    parts, total = [], 0
    # Only the first position is left out here: these teachers have seen the rare later attention sinks as well.
    for batch in tokeniser.batches(reader.text, "train", TOKENS, seed=SEED):
        x = host.residual(batch.input_ids, reader.hook)[batch.keep]
        parts.append(x.bfloat16())
        total += len(x)
        print(f"\rharvest {total:,} / {TOKENS:,} tokens", end="", flush=True)
    x = torch.cat(parts)
    if keep:
        save_file({"x": x}, keep)
    return x


def batches(x: torch.Tensor) -> Iterator[torch.Tensor]:
    order = torch.Generator().manual_seed(SEED)
    while True:
        for chosen in torch.randperm(len(x), generator=order).split(BATCH):
            if len(chosen) == BATCH:
                yield x[chosen].float()


def training_sae(family: str):
    """The field's usual settings; sparsity coefficients chosen for L0 between 30 and 60 at this hook."""
    metadata = SAEMetadata(model_name=MODEL, hook_name=HOOK, context_size=CONTEXT, prepend_bos=False, dataset_path=TEXT)
    common = {
        "d_in": D_IN,
        "d_sae": D_SAE,
        "normalize_activations": "expected_average_only_in",
        "metadata": metadata,
    }
    if family == "relu":
        return StandardTrainingSAE(StandardTrainingSAEConfig(**common, l1_coefficient=2.0, l1_warm_up_steps=500))
    if family == "jumprelu":
        return JumpReLUTrainingSAE(
            JumpReLUTrainingSAEConfig(**common, l0_coefficient=4.0, jumprelu_bandwidth=0.2, l0_warm_up_steps=500)
        )
    return TopKTrainingSAE(TopKTrainingSAEConfig(**common, k=32))


def train(family: str, x: torch.Tensor, out: Path) -> None:
    torch.manual_seed(SEED)
    sae = training_sae(family)
    config = SAETrainerConfig(
        total_training_samples=STEPS * BATCH,
        train_batch_size_samples=BATCH,
        lr=4e-4,
        lr_end=4e-5,
        lr_warm_up_steps=200,
        lr_decay_steps=STEPS // 5,
        dead_feature_window=300,
        n_batches_for_norm_estimate=50,
        logger=LoggingConfig(log_to_wandb=False),
    )
    SAETrainer(config, sae, batches(x)).fit()
    provenance = {
        "trained_by": f"SAELens {sae_lens.__version__}, demo/train_teachers.py",
        "training_tokens": TOKENS,
        "training_passes": PASSES,
        "training_split": "train",
        "seed": SEED,
        "licence": "Apache-2.0",
    }
    for name, value in provenance.items():
        setattr(sae.cfg.metadata, name, value)
    sae.to(torch.bfloat16)
    sae.cfg.dtype = "bfloat16"
    sae.save_inference_model(out / family)
    config_path = out / family / "cfg.json"
    config_path.write_text(json.dumps(json.loads(config_path.read_text()), indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo/teachers"))
    parser.add_argument("--harvest", type=Path, help="keep or reuse the harvested activations in this file")
    parser.add_argument("--family", nargs="+", default=["topk", "jumprelu", "relu"])
    args = parser.parse_args()
    x = harvest(args.harvest)
    for family in args.family:
        train(family, x, args.out)


if __name__ == "__main__":
    main()
