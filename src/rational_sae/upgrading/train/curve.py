"""What is logged of one candidate."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Curve:
    """One entry for each step that was taken, and those that were not."""

    step: list[int] = field(default_factory=list)
    mse: list[float] = field(default_factory=list)
    l0: list[float] = field(default_factory=list)
    sparsity_weight: list[float] = field(default_factory=list)
    kl: list[float | None] = field(default_factory=list)
    """None for steps without it."""
    skipped: list[int] = field(default_factory=list)
    """Steps that were not taken."""
    reason: list[str] = field(default_factory=list)
    """What of each was NaN or infinite: activations, loss or gradients."""

    def __post_init__(self) -> None:
        self.kl = self.kl or [None] * len(self.step)  # curves of earlier versions have none

    def skip(self, number: int, reason: str) -> None:
        """Note a step that was not taken."""
        self.skipped.append(number)
        self.reason.append(reason)

    def add(self, number: int, error: float, l0: float, weight: float, kl: float | None = None) -> None:
        """Note a step. error: the mean ‖x − x̂‖²; weight: λ of the sparsity penalty; kl: in nats."""
        self.step.append(number)
        self.mse.append(error)
        self.l0.append(l0)
        self.sparsity_weight.append(weight)
        self.kl.append(kl)

    def at(self, place: int) -> dict[str, float]:
        """What is logged of an entry, by name."""
        kl = self.kl[place]
        values = {"mse": self.mse[place], "l0": self.l0[place], "sparsity_weight": self.sparsity_weight[place]}
        return values if kl is None else values | {"kl": kl}
