"""TensorBoard and Weights & Biases, for those who watch runs there. log.jsonl has the same numbers without either."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from rational_sae.errors import MissingExtraError
from rational_sae.upgrading.train.candidate import Candidate

Name = Literal["tensorboard", "wandb"]


class Tracker(Protocol):
    """Somebody else's log of a run."""

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `folder`. after: the step after which a run goes on; what was logged beyond it is dropped."""

    def __init__(self, folder: Path, after: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=after + 1)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of the project "rational-sae"; WANDB_MODE=offline keeps it in `folder`/wandb."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(project="rational-sae", dir=str(folder), config=settings, reinit="create_new")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


def require(name: Name) -> None:
    """Raise MissingExtraError if a tracker is not installed: asked before any work is done."""
    if find_spec(name) is None:
        raise MissingExtraError(name, extra=name)


def tracker(name: Name, out: Path, after: int, settings: dict[str, Any]) -> TensorBoard | WandB:
    """One that writes below a job's folder."""
    return TensorBoard(out / name, after) if name == "tensorboard" else WandB(out, settings)


def tracked(candidates: dict[str, Candidate], step: int) -> dict[str, float]:
    """What trackers are told of a step: of each row, what log.jsonl has, and what was validated at it."""
    values: dict[str, float] = {}
    for name, candidate in candidates.items():
        curve, validation = candidate.curve, candidate.validation
        if curve.step and curve.step[-1] == step:
            values |= {f"{name}/{key}": value for key, value in curve.at(-1).items()}
        if validation["step"] and validation["step"][-1] == step:
            values |= {f"{name}/validation_{key}": validation[key][-1] for key in ("fvu", "kl") if validation.get(key)}
    return values
