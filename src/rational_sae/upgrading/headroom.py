"""What there is to win, on held-out tokens: by magnitude alone in closed form, by a second look, and through a
pursuit."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from rational_sae.check.verify import reconstruction, verify
from rational_sae.data.activations import Reader
from rational_sae.data.reading import Reading, check_eval_tokens, settle
from rational_sae.errors import SourceError
from rational_sae.evaluation import PursuedSAE, Results, Way, as_many_as, evaluate_loaded, require_same_place
from rational_sae.formats import load
from rational_sae.gates.hard import HardGate
from rational_sae.metrics.floor import WAY, WAY_OWN
from rational_sae.sae.match_l0 import solve_shift
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress, Silent
from rational_sae.upgrading.settings import DEFAULT_TYPE, Settings
from rational_sae.upgrading.start.calibrate import calibrate
from rational_sae.upgrading.start.closed_form import rescaled, solve_shape_
from rational_sae.upgrading.start.initialise import canonical, rational_start
from rational_sae.upgrading.start.looks import designed_looks
from rational_sae.upgrading.start.rows import design

LOOKS = "init_looks"
"""The row of two looks that nothing trained."""

FLOOR = "floor"
"""The row of codes by pursuit on the teacher's dictionary."""

TIMED_TOKENS = 256
"""Coded once before the measurement, to say how long the floors take."""


def floor_of(name: str) -> str:
    """The row of codes by pursuit on another SAE's dictionary."""
    return f"{FLOOR} of {name}"


def headroom(
    sae: str,
    reading: Reading | None = None,
    *,
    others: Sequence[str] = (),
    floor: bool = True,
    eval_tokens: int = 16384,
    degrees: tuple[int, int] = DEFAULT_TYPE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Rows `teacher`, `teacher_rescaled` (the best output scale), `shape` (the best shared shape, same support) and
    `init_looks` (two looks, untrained, at the teacher's L0): what there is before any training.

    Coefficients are fitted on the calibration split and measured on the test split. Encoder and decoder stay as they
    are, and poles and support too in the first three rows, so 0 there is no verdict on an upgrade.

    floor: whether the row `floor` is measured too, the teacher's dictionary with codes by gradient pursuit, at most as
    many a token as the teacher has; every other row then has `way`, its share of the way there in FVU. It takes a
    dense product for each code of each token. others: upgraded SAEs of the same hook, rows by their paths, each with
    the floor of its own dictionary and `way_own`.

    Raises RationalSAEError with a one-line reason if an input cannot be used.

    >>> found = headroom("demo:topk", others=["runs/demo/sae"])  # doctest: +SKIP
    >>> found.rows["runs/demo/sae"]["way"]  # doctest: +SKIP
    """
    check_eval_tokens(eval_tokens)
    for name in {"teacher", "teacher_rescaled", "shape", LOOKS, FLOOR} & set(others):
        raise SourceError(f"{name} is the name of a row here", f"write ./{name}")
    progress = progress or Silent()
    progress.stage("load SAEs and model" if others else "load SAE and model")
    teacher = load(sae)
    if teacher.transcodes:
        raise SourceError("headroom is of SAEs, and this is a transcoder", "upgrade it, or give an SAE")
    given = reading is not None and reading.hook is not None
    reader = (reading or Reading()).open(teacher)
    teacher.to(reader.host.device)
    upgraded = {name: _beside(name, reader, given=given) for name in others}
    progress.stage("solve")
    x = reader.sample("calibration", eval_tokens)
    verify(teacher, x)
    rows = {"teacher": teacher, **_in_closed_form(teacher, x, degrees, seed)}
    rows |= {LOOKS: _untrained_looks(teacher, x, degrees, seed)} | upgraded
    compare = [("teacher_rescaled", "teacher"), ("shape", "teacher"), ("shape", "teacher_rescaled")]
    compare += [(LOOKS, "teacher")]
    compare += [(name, "teacher") for name in upgraded]
    ways: list[Way] = []
    stage = "measure"
    if floor:
        quota = as_many_as(teacher)
        floors = {FLOOR: PursuedSAE(teacher, quota)}
        floors |= {floor_of(name): PursuedSAE(one, quota) for name, one in upgraded.items()}
        ways = [Way(name, FLOOR, WAY) for name in rows if name != "teacher"]
        ways += [Way(name, floor_of(name), WAY_OWN) for name in upgraded]
        progress.stage("time a pursuit")
        seconds = _seconds_a_token(floors[FLOOR], x) * eval_tokens * len(floors)
        stage = f"measure, about {max(1.0, seconds):.0f} s of it for codes by pursuit"
        rows |= floors
    return evaluate_loaded(
        reader,
        rows,
        compare,
        eval_tokens=eval_tokens,
        ways=ways,
        seed=seed,
        progress=progress,
        stage=stage,
        everywhere=(),
    )


def _beside(name: str, reader: Reader, *, given: bool) -> SAE:
    """An SAE of the reader's hook, beside its model."""
    loaded = load(name)
    require_same_place(name, loaded, reader, given=given)
    loaded.to(reader.host.device)
    settle(loaded, reader.host, reader.hook)
    return loaded


def _in_closed_form(teacher: SAE, x: Tensor, degrees: tuple[int, int], seed: int) -> dict[str, SAE]:
    """The best output scale and the best shape over x: [n, d_in]."""
    unit, units = canonical(teacher, teacher.seen(x))
    scaled = units.of(teacher.seen(x))
    start = rational_start(unit, scaled, degrees, HardGate)
    calibrate(start.init, unit, scaled, seed=seed)
    solve_shape_(start.init, unit, scaled)
    shaped = units.undo_(unit.with_gate(start.init))
    return {"teacher_rescaled": rescaled(teacher, x), "shape": shaped}


def _untrained_looks(teacher: SAE, x: Tensor, degrees: tuple[int, int], seed: int) -> SAE:
    """Two looks, calibrated on x: [n, d_in], with thresholds at the teacher's L0 there."""
    unit, units = canonical(teacher, teacher.seen(x))
    scaled = teacher.seen(x) * units.input
    settings = Settings(teacher=teacher.metadata.source, type=degrees, looks=2, seed=seed)
    l0 = reconstruction(unit, scaled)[1]
    start = design(unit, scaled, settings)[1].init
    found = designed_looks(unit.with_gate(start), scaled, settings.looks, l0, degrees)
    sae = unit.with_gate(start, found.looks)
    sae.gate.shift_(solve_shift(sae, scaled, l0))
    sae.project_()
    return units.undo_(sae)


def _seconds_a_token(floor: PursuedSAE, x: Tensor) -> float:
    """Of a pursuit over x: [n, d_in], by a few tokens of it."""
    few = x[:: -(-len(x) // TIMED_TOKENS)].to(floor.device)
    began = time.perf_counter()
    floor.encode(few).sum().item()  # .item() waits for an accelerator
    return (time.perf_counter() - began) / len(few)
