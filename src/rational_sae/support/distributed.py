"""Data parallelism: several processes do one job, each its part of every batch.

`accelerate launch -m rational_sae upgrade …` (or `torchrun`) starts them; the first, the leader, alone writes. All see
the same batches in the same order, so each can decide alone what depends on a whole batch, and only sums cross over:
gradients, loss and L0. This is not torch's DistributedDataParallel, because its hooks reduce gradients while
`backward` runs, and average them: here a step first needs the loss of all parts, to skip it together when one is not
finite; parts may differ by a token; and five SAEs with gates of their own step in turn. With one process every function
returns at once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rational_sae.errors import ProcessLostError

LONGEST_WAIT = timedelta(minutes=30)
"""For the others, before the job is ended. The leader's slowest lonely piece of work is writing a checkpoint."""

Item = TypeVar("Item")


class LeaderGoesOn(BaseException):
    """Raised in every process but the first once what is left is the leader's alone. No failure."""


def start() -> None:
    """Join the other processes, if a launcher started several. Idempotent."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    gpu = torch.cuda.is_available()
    dist.init_process_group(back_ends(gpu=gpu), timeout=LONGEST_WAIT)
    own = int(os.environ.get("LOCAL_RANK", "0"))
    if gpu and own < torch.cuda.device_count():
        torch.cuda.set_device(own)  # what "cuda" means in this process


def back_ends(*, gpu: bool) -> str:
    """Who carries what between processes: vectors, flags and JSON lie on the CPU, gradients and sums of a step on the
    GPU where there is one."""
    return "cpu:gloo,cuda:nccl" if gpu and dist.is_nccl_available() else "gloo"


def stop() -> None:
    """Leave the other processes."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if world() > 1 else 0


def leads() -> bool:
    """Whether this process writes: the first, or the only one."""
    return rank() == 0


def leader_goes_on() -> None:
    """End the others here. Raises LeaderGoesOn in them."""
    if not leads():
        raise LeaderGoesOn


def part(x: Tensor) -> tuple[Tensor, float]:
    """This process's rows of a batch and their share of it. x: [n, ...], the same in every process, n ≥ world."""
    if world() == 1:
        return x, 1.0
    own = x.tensor_split(world())[rank()]
    return own, len(own) / len(x)


def totals(*values: Tensor) -> list[float]:
    """Scalars summed over processes."""
    if world() == 1:
        return [float(value.detach()) for value in values]
    found = torch.stack([value.detach().double() for value in values])
    with _together():
        dist.all_reduce(found)
    return found.tolist()


def add_gradients_(parameters: Iterable[Tensor]) -> None:
    """Sum gradients over processes, in place: the same bits in all. One that a process lacks counts as 0."""
    if world() == 1:
        return
    waiting = []
    with _together():
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = parameter.grad.contiguous()
            waiting.append(dist.all_reduce(parameter.grad, async_op=True))
        for work in waiting:
            work.wait()


def agreed(mine: bool) -> bool:
    """Whether any process says so."""
    return mine if world() == 1 else totals(torch.tensor(float(mine)))[0] > 0


def all_agree(mine: Tensor) -> Tensor:
    """Where every process says so. mine: bool, of the same shape in all."""
    if world() == 1:
        return mine
    against = (~mine).float().cpu()
    with _together():
        dist.all_reduce(against)
    return (against == 0).to(mine.device)


def leaders(tensor: Tensor) -> Tensor:
    """The leader's values. tensor: of the same shape in every process; it is overwritten."""
    if world() == 1:
        return tensor
    flat = tensor.detach().contiguous()
    with _together():
        dist.broadcast(flat, 0)
    return tensor.detach().copy_(flat)


def leaders_json(value: Any) -> Any:
    """The leader's value, of JSON's types. Nothing is pickled."""
    if world() == 1:
        return value
    content = torch.frombuffer(bytearray(json.dumps(value if leads() else None).encode()), dtype=torch.uint8)
    size = leaders(torch.tensor(len(content)))
    return json.loads(leaders(content if leads() else torch.empty(int(size), dtype=torch.uint8)).numpy().tobytes())


def leaders_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The leader's tensors by name, on the CPU; what the others give is ignored."""
    if world() == 1:
        return tensors
    about = leaders_json([[name, str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()])
    empty = {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, dtype, shape in about}
    own = {name: tensors[name].detach().cpu().clone() for name in empty} if leads() else empty
    return {name: leaders(tensor) for name, tensor in own.items()}


def spread(items: Iterable[Item], work: Callable[[Item], Tensor]) -> Iterator[tuple[Item, Tensor]]:
    """Every item with its result, in order and in every process; each process works on its share of the items.

    work: item → [n, d], d the same for all.
    """
    if world() == 1:
        yield from ((item, work(item)) for item in items)
        return
    for group in _groups(items, world()):
        mine = work(group[rank()]) if rank() < len(group) else None
        lengths = torch.zeros(2, world(), dtype=torch.int64)
        if mine is not None:
            lengths[:, rank()] = torch.tensor(mine.shape)
        with _together():
            dist.all_reduce(lengths)
        for number, item in enumerate(group):
            empty = torch.empty(*lengths[:, number].tolist())
            found = mine.cpu().contiguous() if mine is not None and number == rank() else empty
            with _together():
                dist.broadcast(found, number)
            yield item, found


def _groups(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """What itertools.batched gives, which Python 3.11 lacks."""
    rest = iter(items)
    while group := tuple(itertools.islice(rest, size)):
        yield group


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Turn a broken connection into one line."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"process {rank()} of {world()} lost another one ({' '.join(str(error).split())[:120]})",
            "see what that one said; the same command with --resume goes on from the latest checkpoint",
        ) from error
