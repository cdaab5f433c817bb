"""Which latents have been silent, and which of them got a new direction: the bookkeeping of revival."""

from __future__ import annotations

import torch
from torch import Tensor

from rational_sae.sae.model import SAE
from rational_sae.sae.sparse import Reconstruction
from rational_sae.support import distributed
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.train.revive import LATEST, revive_, revive_every


class Silence:
    """Latents of one SAE, watched early in training."""

    def __init__(self, sae: SAE, settings: Settings, target_l0: float, *, revives: bool) -> None:
        """revives: whether silent latents get new directions at all."""
        self.sae, self.target_l0, self.seed = sae, target_l0, settings.seed
        self.silent = torch.ones(sae.d_sae, dtype=torch.bool, device=sae.device)
        """[d_sae]: has not fired since the latest revival."""
        self.revived = torch.empty(0, dtype=torch.int64)
        """[m]: latents that were given a new direction so far."""
        every = revive_every(settings.steps, settings.batch_tokens, sae.d_sae, target_l0)
        self.every = every if revives else None
        """Steps between revivals; None where nothing is revived."""
        self.latest = LATEST * settings.steps

    def watches(self, number: int) -> bool:
        """Whether it matters what fires at this step."""
        return self.every is not None and number <= self.latest

    def heard(self, fired: Tensor) -> None:
        """fired: an index of latents that fire in a batch, from `firing`."""
        self.silent[fired] = False

    def due(self, number: int) -> bool:
        """Whether latents are revived after this step."""
        return self.every is not None and self.watches(number) and number % self.every == 0

    def revive(self, x: Tensor) -> Tensor:
        """Give latents that were silent since the last time a new direction. x: [n, d_in] calibration activations.
        Returns those that got one, [m] int64."""
        self.silent = distributed.all_agree(self.silent)
        dead = self.silent.nonzero()[:, 0]
        self.silent.fill_(True)
        new = revive_(self.sae, dead, x, self.target_l0, self.seed + len(self.revived))
        self.revived = torch.cat([self.revived, new.cpu()]).unique()
        return new


def firing(found: Reconstruction) -> Tensor:
    """An index of the latents that fire in a batch."""
    fires = found.code != 0
    return fires.any(0) if fires.dim() > 1 else found.latent[fires]
