"""Train teachers with SAELens' own trainer, on the train split alone.

    python demo/train_teachers.py configs/teachers-demo.yaml --out demo/teachers
    python demo/train_teachers.py configs/teachers-grid.yaml --out runs/grid-teachers

The first takes about an hour on two cores: 15 minutes of harvest, then three trainings; the second about two.
`--harvest DIR` keeps the harvested activations (bfloat16, about 1 GB a hook), so that a second run skips that part.
A teacher that is there already is left alone, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import sae_lens
import torch
import yaml
from pydantic import BaseModel, ConfigDict
from sae_lens import SAETrainer
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from safetensors.torch import load_file, save_file

from rational_sae.data.activations import SINK_NORM
from rational_sae.data.language_model import Hook, load_host, wants_bos
from rational_sae.data.text import open_text
from rational_sae.data.tokens import Tokeniser

BATCH, SEED, CONTEXT, WARM_UP = 1024, 0, 128, 500
NORM_BATCHES, MEAN_TOKENS = 50, 20_000
STEER_FROM, STEER_EVERY, STEER_POWER, STEER_RANGE = 550, 20, 0.1, 4.0
"""From the end of warm-up until the learning rate decays, the coefficient of sparsity is multiplied by
(L0 / target)^STEER_POWER every so many steps, never further than a factor of STEER_RANGE from where it began: L0
answers hundreds of steps late, so a stronger or an unbounded correction winds up."""


class Teacher(BaseModel):
    """One SAE to train."""

    model_config = ConfigDict(extra="forbid")

    family: str
    """relu, jumprelu or topk."""
    hook: str
    coefficient: float | None = None
    """Weight of L1 (relu) or L0 (jumprelu); steered to `l0` if that is given."""
    l0: int | None = None
    """k of a topk; of the others the L0 to steer to, unless a JumpReLU's own loss aims at it (`quadratic`)."""
    threshold: float | None = None
    """Where the thresholds of a JumpReLU start, in place of the plan's."""
    passes: int | None = None
    """Passes over the tokens, in place of the plan's."""
    lr: float | None = None
    """Learning rate, in place of the plan's."""


class Plan(BaseModel):
    """All teachers of one model, which share a harvest."""

    model_config = ConfigDict(extra="forbid")

    model: str
    text: str
    d_sae: int
    tokens: int
    passes: int
    lr: float = 4e-4
    jumprelu: dict[str, Any] = {"jumprelu_bandwidth": 0.2}
    """SAELens' options of a JumpReLU. Adam moves a threshold by at most `lr` a step, so a short training must start
    near the thresholds that it needs: with decoder rows of norm 1 these are about 2."""
    lm_dtype: str
    centre: bool = False
    """Whether b_dec starts at the mean of the activations, where it is far from 0: Adam moves it by `lr` a step."""
    sinks: Literal["keep", "exclude"] = "keep"
    """Whether these teachers see attention sinks past the first position; few tokens, but most of the variance."""
    teachers: dict[str, Teacher]

    def passes_of(self, teacher: Teacher) -> int:
        return teacher.passes or self.passes

    def steps(self, teacher: Teacher) -> int:
        return self.tokens // BATCH * self.passes_of(teacher)


def harvest(plan: Plan, keep: Path | None) -> dict[str, torch.Tensor]:
    """For each hook x: [tokens, d_in] bfloat16, vectors of the train split, from one pass to the deepest block."""
    hooks = sorted({teacher.hook for teacher in plan.teachers.values()})
    kept = keep and keep / f"{plan.model}.safetensors"
    if kept and kept.exists():
        return load_file(kept)
    host = load_host(plan.model, dtype=getattr(torch, plan.lm_dtype))
    tokeniser = Tokeniser(host.tokenizer, CONTEXT, bos=wants_bos(host, "auto"))
    places = {name: host.hook(name) for name in hooks}
    behind_all = Hook("behind all", max(place.boundary + (place.spot is not None) for place in places.values()))
    text = open_text(plan.text)
    caught: dict[str, torch.Tensor] = {}
    watching = contextlib.ExitStack()
    for name, place in places.items():

        def catch(x: torch.Tensor, name: str = name) -> torch.Tensor:
            caught[name] = x
            return x

        watching.enter_context(host.edited(place, catch))
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in hooks}
    total = 0
    # The first position alone is left out here; `without_sinks` says what becomes of the rare later attention sinks.
    for batch in tokeniser.batches(text, "train", plan.tokens, seed=SEED):
        host.residual(batch.input_ids, behind_all)
        for name in hooks:
            parts[name].append(caught[name][batch.keep].bfloat16())
        total += int(batch.keep.sum())
        print(f"\rharvest {plan.model}: {total:,} / {plan.tokens:,} tokens", end="", flush=True)
    print()
    watching.close()
    found = {name: torch.cat(part) for name, part in parts.items()}
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file(found, kept)
    return found


def without_sinks(x: torch.Tensor) -> torch.Tensor:
    """x: [tokens, d_in] without the rows that `rsae upgrade` leaves out too."""
    norm = torch.cat([part.float().norm(dim=-1) for part in x.split(1 << 16)])
    return x[norm <= SINK_NORM * norm.median()]


class Batches:
    """Endless shuffled batches; on the way it steers the trainer's coefficient to the L0 that was asked for."""

    def __init__(self, x: torch.Tensor, l0: int | None, steps: int) -> None:
        self.x, self.l0, self.steps = x, l0, steps
        self.trainer: SAETrainer | None = None
        self.factor = 1.0

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = torch.Generator().manual_seed(SEED)
        number = 0
        while True:
            for chosen in torch.randperm(len(self.x), generator=order).split(BATCH):
                if len(chosen) < BATCH:
                    continue
                x = self.x[chosen].float()
                number += 1
                if STEER_FROM <= number <= self.steps * 4 // 5 and number % STEER_EVERY == 0:
                    self._steer(x)
                yield x

    @torch.no_grad()
    def _steer(self, x: torch.Tensor) -> None:
        if self.l0 is None or self.trainer is None:
            return
        scaled = self.trainer.activation_scaler(x)
        l0 = float((self.trainer.sae.encode(scaled) != 0).sum(-1).float().mean())
        wanted = self.factor * (max(l0, 1.0) / self.l0) ** STEER_POWER
        wanted = min(max(wanted, 1 / STEER_RANGE), STEER_RANGE)
        for name, scheduler in self.trainer.coefficient_schedulers.items():
            if name in ("l1", "l0"):
                scheduler.final_value *= wanted / self.factor
        self.factor = wanted
        if self.trainer.n_training_steps % 100 < STEER_EVERY:
            print(f"\nL0 {l0:.1f} of {self.l0}, coefficient times {self.factor:.2f}", flush=True)


def aims(plan: Plan, teacher: Teacher) -> bool:
    """Whether the training loss itself holds L0 (Gemma Scope 2's quadratic penalty)."""
    return teacher.family == "jumprelu" and plan.jumprelu.get("jumprelu_sparsity_loss_mode") == "quadratic"


def training_sae(plan: Plan, teacher: Teacher, d_in: int, bos: bool):
    """The field's usual settings."""
    metadata = SAEMetadata(
        model_name=plan.model,
        hook_name=teacher.hook,
        context_size=CONTEXT,
        prepend_bos=bos,
        dataset_path=plan.text,
    )
    common = {
        "d_in": d_in,
        "d_sae": plan.d_sae,
        "normalize_activations": "expected_average_only_in",
        "metadata": metadata,
    }
    if teacher.family == "relu":
        config = StandardTrainingSAEConfig(**common, l1_coefficient=teacher.coefficient, l1_warm_up_steps=WARM_UP)
        return StandardTrainingSAE(config)
    if teacher.family == "jumprelu":
        options = dict(plan.jumprelu)
        if teacher.threshold is not None:
            options["jumprelu_init_threshold"] = teacher.threshold
        if aims(plan, teacher):
            options["target_l0"] = teacher.l0
        config = JumpReLUTrainingSAEConfig(
            **common,
            l0_coefficient=teacher.coefficient,
            l0_warm_up_steps=WARM_UP,
            **options,
        )
        return JumpReLUTrainingSAE(config)
    return TopKTrainingSAE(TopKTrainingSAEConfig(**common, k=teacher.l0))


def train(plan: Plan, name: str, x: torch.Tensor, bos: bool, out: Path) -> None:
    teacher = plan.teachers[name]
    torch.manual_seed(SEED)
    steps = plan.steps(teacher)
    sae = training_sae(plan, teacher, x.shape[1], bos)
    config = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=teacher.lr or plan.lr,
        lr_end=4e-5,
        lr_warm_up_steps=200,
        lr_decay_steps=steps // 5,
        dead_feature_window=300,
        n_batches_for_norm_estimate=NORM_BATCHES,
        logger=LoggingConfig(log_to_wandb=False),
    )
    steered = teacher.family != "topk" and not aims(plan, teacher)
    batches = Batches(x, teacher.l0 if steered else None, steps)
    batches.trainer = SAETrainer(config, sae, iter(batches))
    if plan.centre:
        batches.trainer.activation_scaler.estimate_scaling_factor(x.shape[1], iter(batches), NORM_BATCHES)
        with torch.no_grad():
            sae.b_dec.copy_(batches.trainer.activation_scaler(x[:: len(x) // MEAN_TOKENS].float()).mean(0))
    batches.trainer.fit()
    provenance = {
        "trained_by": f"SAELens {sae_lens.__version__}, demo/train_teachers.py",
        "training_tokens": plan.tokens,
        "training_passes": plan.passes_of(teacher),
        "training_split": "train",
        "seed": SEED,
        "licence": "Apache-2.0",
    }
    for key, value in provenance.items():
        setattr(sae.cfg.metadata, key, value)
    sae.to(torch.bfloat16)
    sae.cfg.dtype = "bfloat16"
    partial = out / f"{name}.partial"
    sae.save_inference_model(partial)
    config_path = partial / "cfg.json"
    config_path.write_text(json.dumps(json.loads(config_path.read_text()), indent=2) + "\n")
    partial.rename(out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="YAML: a list of plans, one a model")
    parser.add_argument("--out", type=Path, default=Path("demo/teachers"))
    parser.add_argument("--harvest", type=Path, help="keep or reuse the harvested activations in this folder")
    parser.add_argument("--only", nargs="+", help="names of teachers; the others are left out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for plan in [Plan.model_validate(one) for one in yaml.safe_load(args.plans.read_text())]:
        wanted = [n for n in plan.teachers if (not args.only or n in args.only) and not (args.out / n).exists()]
        if not wanted:
            continue
        x = harvest(plan, args.harvest)
        if plan.sinks == "exclude":
            x = {hook: without_sinks(rows) for hook, rows in x.items()}
        bos = "gemma" in plan.model
        for name in wanted:
            train(plan, name, x[plan.teachers[name].hook], bos, args.out)


if __name__ == "__main__":
    main()
