"""What the model predicts when x̂ stands in place of x: KL(clean ‖ with the SAE) and its gradient at x̂.

The forward goes on at the hook, and only x̂ gets a gradient. Clean probabilities are computed once for all rows.
Beyond the model itself, memory holds the probabilities of a few sequences (MOST_CLEAN bytes, or one sequence's),
the activations of one row's forward over those, and logits of AT_ONCE positions at a time. Where the device multiplies
bfloat16 faster, a float32 model's part behind the hook is also held in that: half of those weights' size.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Hook, Host
from rational_sae.data.tokens import Sequences
from rational_sae.errors import SettingsError
from rational_sae.kernels.selection import bfloat16_gains
from rational_sae.support import distributed

AT_ONCE = 128
"""Positions whose logits, and their gradient, are held at once: [AT_ONCE, vocabulary] float32."""

MOST_CLEAN = 1 << 27
"""Bytes of clean probabilities held at once, where one sequence needs no more."""

MOST_OF_ONE = 1 << 31
"""Bytes of clean probabilities that one sequence may need."""

LONGEST_EAGER = 256
"""Tokens of a sequence up to which attention in bfloat16 on a CPU is written out: a row then takes .86 of the time (of
SmolLM2 at 128 tokens), and its weights stay small."""

VALIDATION_TOKENS = 2048
"""Of the validation split, on which every row's KL is validated (heuristic: a tenth of the training time)."""


@dataclass(frozen=True)
class Pull:
    """Where predictions pull an SAE: of one batch."""

    kl: float
    """Mean over the batch's kept positions, in nats; this process's share of it."""
    gradient: Tensor
    """[n, d_in]: of that mean with respect to x̂ of this process's kept positions."""
    rows: slice
    """Which of the batch's vectors those are."""


@dataclass(frozen=True)
class Passage:
    """A batch of sequences, read."""

    x: Tensor
    """[n, d_in] kept positions of all processes, in canonical units."""
    rows: slice
    """Of x, this process's."""
    input_ids: Tensor
    """[batch, context] int64, this process's sequences."""
    keep: Tensor
    """[batch, context] bool."""
    stream: Tensor
    """[batch, context, d_in] in the model's dtype: what passes at the hook."""
    entering: Tensor | None
    """[batch, context, d_model]: what enters the hook's block, where the hook is a spot in one (`Host.entering`)."""

    @property
    def own(self) -> Tensor:
        """[m, d_in] of x, this process's."""
        return self.x[self.rows]


class Clean(NamedTuple):
    """The clean model's predictions."""

    p: Tensor
    """[m, vocabulary] float32 probabilities."""
    entropy: float
    """Summed over the m positions, in nats."""


class _StopForwardError(Exception):
    """Raised inside a forward to leave it behind the last block."""


class Predictions:
    """The upper part of a reader's model, for SAEs in canonical units."""

    def __init__(self, reader: Reader, unit: float) -> None:
        """unit: what x is multiplied by to be in canonical units.

        Raises SettingsError if one sequence's predictions do not fit in MOST_OF_ONE bytes, and HostError if nothing can
        be put in place of what is read at the hook.
        """
        self.reader, self.unit = reader, unit
        self.last = Hook("the last block's output", len(reader.host.blocks))
        host, context = reader.host, reader.tokeniser.context
        some = torch.zeros(1, 1, dtype=torch.int64)
        x, entering = host.residual(some, reader.hook), host.entering(some, reader.hook)
        vocabulary = host.logits_from(some, reader.hook, x, entering).shape[-1]
        needed = 4 * context * vocabulary
        if needed > MOST_OF_ONE:
            raise SettingsError(
                f"the predictions of one sequence of {context} tokens over {vocabulary} words take {needed >> 20} MiB, "
                f"more than the {MOST_OF_ONE >> 20} that are held at once for objective mse+kl",
                f"give --context {MOST_OF_ONE // (4 * vocabulary)} or less, or --objective mse",
            )
        quicker = bfloat16_gains(host.device.type) and host.model.dtype == torch.float32
        self.host = in_bfloat16(host, reader.hook) if quicker else host
        """What runs behind the hook."""
        if quicker and host.device.type == "cpu" and context <= LONGEST_EAGER:
            self.host.model.set_attn_implementation("eager")
        self.together = max(1, MOST_CLEAN // needed)
        """Sequences whose clean probabilities are held at once."""

    def read(self, batch: Sequences) -> Passage:
        """Run the model up to the hook; processes share the sequences. batch: a sequence for each process at least."""
        world = distributed.world()
        ids, keeps, documents = (part.tensor_split(world) for part in (batch.input_ids, batch.keep, batch.document))
        own: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []

        def at(part: Sequences) -> Tensor:
            stream = self.reader.stream(part.input_ids)
            keep = self.reader.kept(stream, part)
            entering = self.reader.host.entering(part.input_ids, self.reader.hook)
            own.append((part.input_ids, keep, stream, entering))
            return stream[keep].float()

        parts = (Sequences(*part) for part in zip(ids, keeps, documents, strict=True))
        found = [x for _, x in distributed.spread(parts, at)]
        start = sum(map(len, found[: distributed.rank()]))
        rows = slice(start, start + len(found[distributed.rank()]))
        return Passage(torch.cat(found).to(self.reader.host.device) * self.unit, rows, *own[0])

    def validation(self) -> Passage:
        """The sequences on which every row's KL is validated."""
        batches = list(self.reader.held_out("validation", VALIDATION_TOKENS))
        longest = max(batch.input_ids.shape[1] for batch in batches)

        def padded(part: Tensor) -> Tensor:
            return torch.nn.functional.pad(part, (0, longest - part.shape[1]))

        ids, keep = (torch.cat([padded(getattr(batch, name)) for batch in batches]) for name in ("input_ids", "keep"))
        return self.read(Sequences(ids, keep, torch.cat([batch.document for batch in batches])))

    def pulls(self, passage: Passage, x_hats: Sequence[Tensor]) -> list[Pull]:
        """One for each reconstruction [m, d_in] of `passage.own`, in canonical units."""
        kl = [0.0] * len(x_hats)
        gradients = [torch.zeros_like(x_hat) for x_hat in x_hats]
        for part, where, clean in self._parts(passage):
            for number, x_hat in enumerate(x_hats):
                value, gradient = self._pull(part, clean, x_hat[where])
                kl[number] += value / len(passage.x)
                gradients[number][where] = gradient / len(passage.x)
        return [Pull(value, gradient, passage.rows) for value, gradient in zip(kl, gradients, strict=True)]

    @torch.no_grad()
    def kl(self, passage: Passage, x_hats: Sequence[Tensor]) -> list[float]:
        """Mean KL over the kept positions of all processes, for each reconstruction [m, d_in] of `passage.own`."""
        sums = torch.zeros(len(x_hats), dtype=torch.float64)
        for part, where, clean in self._parts(passage):
            for number, x_hat in enumerate(x_hats):
                end = self._behind(part, self._edited(part, x_hat[where]))
                for some, p in zip(end.split(AT_ONCE), clean.p.split(AT_ONCE), strict=True):
                    sums[number] -= _expected(p, self._logits(some).float().log_softmax(-1))
                sums[number] -= clean.entropy
        return [one / len(passage.x) for one in distributed.totals(*sums)]

    def _parts(self, passage: Passage) -> Iterator[tuple[Passage, slice, Clean]]:
        """A few sequences at a time, where their vectors are among the process's own, and their clean predictions."""
        done = 0
        for start in range(0, len(passage.input_ids), self.together):
            rows = slice(start, start + self.together)
            keep, entering = passage.keep[rows], None if passage.entering is None else passage.entering[rows]
            where = slice(done, done + int(keep.sum()))
            part = Passage(
                passage.own[where], slice(None), passage.input_ids[rows], keep, passage.stream[rows], entering
            )
            done = where.stop
            if len(part.x):
                yield part, where, self._clean(part)

    @torch.no_grad()
    def _clean(self, part: Passage) -> Clean:
        end = self._behind(part, part.stream)
        first = self._logits(end[:1])
        found, entropy = first.new_empty(len(end), first.shape[-1], dtype=torch.float32), 0.0
        for some, p in zip(end.split(AT_ONCE), found.split(AT_ONCE), strict=True):
            log_p = self._logits(some).float().log_softmax(-1)
            entropy -= _expected(torch.exp(log_p, out=p), log_p)
        return Clean(found, entropy)

    def _pull(self, part: Passage, clean: Clean, x_hat: Tensor) -> tuple[float, Tensor]:
        """Summed KL over kept positions, and its gradient with respect to x̂: [m, d_in]."""
        with torch.enable_grad():
            leaf = x_hat.detach().requires_grad_()
            end = self._behind(part, self._edited(part, leaf))
            total, back = -clean.entropy, []
            for some, p in zip(end.detach().split(AT_ONCE), clean.p.split(AT_ONCE), strict=True):
                some = some.requires_grad_()
                logits = self._logits(some)
                log_q = logits.detach().float().log_softmax(-1)
                total -= _expected(p, log_q)
                along = log_q.exp_().sub_(p).to(logits.dtype)  # of KL, with respect to the logits
                back += torch.autograd.grad(logits, some, along)
                del logits, log_q, along
            (gradient,) = torch.autograd.grad(end, leaf, torch.cat(back))
        return total, gradient

    def _edited(self, part: Passage, x_hat: Tensor) -> Tensor:
        """What passes at the hook with x̂ in place of x: [batch, context, d_in] in the model's dtype."""
        return part.stream.index_put((part.keep,), (x_hat / self.unit).to(part.stream.dtype))

    def _behind(self, part: Passage, stream: Tensor) -> Tensor:
        """The last block's output at kept positions: [m, d_model] in the model's dtype."""
        caught: list[Tensor] = []

        def catch(end: Tensor) -> Tensor:
            caught.append(end)
            raise _StopForwardError

        host, hook = self.host, self.reader.hook
        if hook.spot is None and hook.boundary == self.last.boundary:
            return stream[part.keep]
        entering = None if part.entering is None else part.entering.to(host.model.dtype)
        with host.edited(self.last, catch), contextlib.suppress(_StopForwardError):
            host.logits_from(part.input_ids, hook, stream, entering)
        return caught[0][part.keep]

    def _logits(self, end: Tensor) -> Tensor:
        """What the model makes of the last block's output, a position at a time: [m, vocabulary] of [m, d_model]."""
        alone = torch.zeros(len(end), 1, dtype=torch.int64)  # no block reads these tokens
        return self.host.logits_from(alone, self.last, end[:, None])[:, 0]


def in_bfloat16(host: Host, hook: Hook) -> Host:
    """The same model with the weights behind the hook in bfloat16; blocks before it are shared, for they are skipped.

    On the embedded SmolLM2, block 12, the gradient at x̂ had a cosine of .999 to that of float32, and KL was .06 %
    larger.
    """
    skipped = set(host.blocks[: hook.boundary])
    model = copy.deepcopy(host.model, {id(block): block for block in skipped})
    shared = {module for block in skipped for module in block.modules()}
    for module in model.modules():
        if module not in shared:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    light = copy.copy(host)  # with what it knows of its blocks
    light.model = model
    return light


def _expected(p: Tensor, log_q: Tensor) -> float:
    """Σ p·log q, both [m, vocabulary] float32."""
    return float(torch.einsum("mv,mv->m", p, log_q).sum(dtype=torch.float64))
