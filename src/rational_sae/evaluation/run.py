"""`evaluate`: any number of SAEs on the same held-out tokens."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from rational_sae.data.activations import Reader
from rational_sae.data.reading import Reading, check_eval_tokens, settle
from rational_sae.errors import SettingsError, SourceError
from rational_sae.evaluation.absorption import absorption, smoke_test
from rational_sae.evaluation.comparison import JOIN
from rational_sae.evaluation.measure import measure
from rational_sae.evaluation.metrics import Results, Way, results
from rational_sae.evaluation.probing import Protocol, probe, require_texts
from rational_sae.evaluation.random_sae import random_sae
from rational_sae.evaluation.suite.run import probe_suite
from rational_sae.evaluation.suite.tasks import SUITE, Size, SuiteTask, open_suite
from rational_sae.evaluation.tasks import Task, open_task
from rational_sae.formats import load
from rational_sae.report.rows import RANDOM
from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress, Silent
from rational_sae.support.safe_text import redact

EVAL_TOKENS = 16384
"""Test tokens, where nobody says otherwise."""

FIRST_LETTER = "first-letter"
"""The name by which feature absorption is asked for among probes."""


def evaluate(
    saes: Sequence[str] | Mapping[str, SAE],
    reading: Reading | None = None,
    *,
    eval_tokens: int = EVAL_TOKENS,
    probes: Sequence[str] = (),
    protocol: Protocol | None = None,
    size: Size | None = None,
    random: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Measure SAEs of one hook. saes: their folders, or SAEs in memory by name, which are moved beside the model and
    brought to how it is read; the first is what the others are compared with, at its L0 too.

    reading: the model, hook and text; by default what the first SAE's config says, on the embedded text. probes: tasks
    (see `open_task`), `sae-probes[:TASK]` (how much of it, size says), or `first-letter` for feature absorption.
    random: whether an SAE of random weights is probed too. The rows of the result are keyed by the names given.
    Raises RationalSAEError with a one-line reason if an input cannot be used.
    """
    check_eval_tokens(eval_tokens)
    progress = progress or Silent()
    opened = open_probes(probes, protocol, size, random=random)
    progress.stage("load SAEs and model")
    loaded = dict(saes) if isinstance(saes, Mapping) else {name: load(name) for name in saes}
    first = next(iter(loaded.values()))
    reading = reading or Reading()
    reader = reading.open(first)
    for name, sae in loaded.items():
        require_same_place(name, sae, reader, given=reading.hook is not None)
        sae.to(reader.host.device)
        settle(sae, reader.host, reader.hook)
    names = list(loaded)
    compare = [(name, names[0]) for name in names[1:]]
    found = evaluate_loaded(
        reader, loaded, compare, eval_tokens=eval_tokens, reference=names[0], seed=seed, progress=progress
    )
    found = with_second_text(
        found,
        reading.elsewhere(reader),
        loaded,
        compare,
        eval_tokens=eval_tokens,
        reference=names[0],
        seed=seed,
        progress=progress,
    )
    found = with_probes(found, reader, loaded, opened, seed=seed, progress=progress)
    noted = _read_otherwise(loaded, reader, bos_given=reading.bos != "auto")
    return replace(found, further=found.further | {"warnings": [*found.further["warnings"], *noted]})


def evaluate_loaded(
    reader: Reader,
    saes: dict[str, SAE],
    compare: list[tuple[str, str]],
    *,
    eval_tokens: int,
    reference: str = "teacher",
    ways: Sequence[Way] = (),
    seed: int,
    progress: Progress,
    stage: str = "measure",
    everywhere: Collection[str] | None = None,
) -> Results:
    """The same for SAEs in memory, on the reader's device. compare: pairs (row, baseline). stage: what people are told
    while it measures. everywhere: as in `measure`."""
    progress.stage("mean of the train split")
    mean = reader.sample("train", eval_tokens).mean(0)
    progress.stage(stage)
    sums = measure(
        reader,
        saes,
        eval_tokens,
        mean,
        reference=reference,
        everywhere=everywhere,
        progress=lambda _done, total: progress.advance(total=total),
    )
    found = results(sums, compare, ways=ways, seed=seed)
    stated = (one for sae in saes.values() for one in sae.metadata.warnings)
    return replace(found, further=found.further | {"warnings": [*dict.fromkeys(stated), *reader.warnings()]})


def with_second_text(
    found: Results,
    elsewhere: Reader | None,
    saes: dict[str, SAE],
    compare: list[tuple[str, str]],
    *,
    eval_tokens: int,
    reference: str = "teacher",
    seed: int,
    progress: Progress,
) -> Results:
    """The results with what the same SAEs do on the test split of a second text, under `also`; without one, as they
    are. elsewhere: a reader of it. L0 is held at the reference's on that text.

    Raises TextError if it has too few tokens.
    """
    if elsewhere is None:
        return found
    there = evaluate_loaded(
        elsewhere,
        saes,
        compare,
        eval_tokens=eval_tokens,
        reference=reference,
        seed=seed,
        progress=progress,
        stage="measure on the second text",
        everywhere=(),
    )
    also = {
        "text": redact(elsewhere.text.name),
        "rows": there.rows,
        "intervals": there.intervals,
        "differences": there.differences,
        "data": there.further["data"],
        "warnings": elsewhere.warnings(),
    }
    return replace(found, further=found.further | {"also": also})


def _read_otherwise(saes: dict[str, SAE], reader: Reader, *, bos_given: bool) -> list[str]:
    """What a reader of the table must know where not all SAEs are read as they say."""
    found, centred = [], [name for name, sae in saes.items() if sae.centred]
    if centred and len(centred) < len(saes):
        found.append(
            f"the FVU of {', '.join(centred)} is of x minus its mean over d_in, which is what they read; that of the"
            " others is of x"
        )
    first = next(iter(saes.values())).metadata
    for name, sae in saes.items():
        known = sae.metadata
        if not bos_given and known.prepend_bos not in (None, reader.tokeniser.bos):
            found.append(f"{name} states prepend_bos {known.prepend_bos}, and was read otherwise")
        if known.seqpos_slice != first.seqpos_slice:
            found.append(f"{name} states other positions (seqpos_slice) than those that all were read at")
    return found


@dataclass(frozen=True)
class Probes:
    """What is asked of single latents, read and checked before any model is."""

    tasks: list[Task]
    suite: list[SuiteTask]
    first_letter: bool
    protocol: Protocol
    size: Size
    """How much of the suite is read."""
    random: bool
    """Whether an SAE of random weights is probed beside the others."""


def open_probes(
    names: Sequence[str], protocol: Protocol | None = None, size: Size | None = None, *, random: bool = False
) -> Probes:
    """Probes by name: tasks (see `open_task`), `sae-probes[:TASK]`, or `first-letter` for feature absorption.

    Raises TextError if a task cannot be read or has too few texts, SettingsError if random weights have no probe.
    """
    if random and not names:
        raise SettingsError("random weights are a baseline of probes, and none was asked for", "give --probe TASK too")
    size = size or Size()
    in_suite = [name for name in names if name.partition(":")[0] == SUITE]
    tasks = [open_task(name) for name in names if name != FIRST_LETTER and name not in in_suite]
    for task in tasks:
        require_texts(task)
    suite = open_suite(in_suite, size) if in_suite else []
    return Probes(tasks, suite, FIRST_LETTER in names, protocol or Protocol(), size, random)


def with_probes(
    found: Results, reader: Reader, saes: dict[str, SAE], probes: Probes, *, seed: int = 0, progress: Progress
) -> Results:
    """The results with what the probes give beside them."""
    pairs = [(row, base) for row, _, base in (name.rpartition(JOIN) for name in found.differences)]
    if probes.random:
        first = next(iter(saes))
        saes = saes | {RANDOM: random_sae(reader, saes[first], found.rows[first]["l0_eps"], seed=seed)}
        pairs += [(row, RANDOM) for row in saes if row != RANDOM]
    if probes.tasks or probes.suite:
        found = copy.deepcopy(found)
    if probes.tasks:
        probing = probe(reader, saes, probes.tasks, probes.protocol, progress=progress)
        probing.add_to(found.rows, found.intervals, found.differences)
        found = replace(found, further=found.further | {"probing": probing.report()})
    if probes.suite:
        suite = probe_suite(reader, saes, probes.suite, probes.size, progress=progress)
        suite.add_to(found.rows, found.intervals, found.differences)
        found = replace(found, further=found.further | {"suite": suite.report(pairs)})
    if probes.first_letter:
        letters = absorption(reader, saes, seed=seed, progress=progress)
        parameters = sum(one.numel() for one in reader.host.model.parameters())
        for name, row in letters.items():
            row["smoke_test"] = smoke_test(parameters, saes[name].d_sae)
        found = replace(found, further=found.further | {"absorption": letters})
    return found


def require_same_place(name: str, sae: SAE, reader: Reader, *, given: bool) -> None:
    """Raise SourceError if an SAE is of another width than the reader's model, or of another hook.

    given: whether the user named the hook.
    """
    if sae.transcodes != (reader.hook.out is not None):
        raise SourceError(
            f"{name} is {'a transcoder' if sae.transcodes else 'no transcoder'}, unlike the first",
            "evaluate SAEs of one hook together",
        )
    if sae.d_in != reader.d_in or sae.row_width != reader.width:
        raise SourceError(
            f"{name} reads width {sae.d_in}, {reader.host.name} has width {reader.d_in} at {reader.hook.name}",
            "evaluate SAEs of one model and hook together",
        )
    own, out = sae.metadata.hook_name, sae.metadata.hook_name_out
    host, given_out = reader.host, reader.hook.out
    elsewhere = own and not given and not host.hook(own).same_place(replace(reader.hook, out=None))
    if elsewhere or (given_out is not None and out and not host.hook(out).same_place(given_out)):
        raise SourceError(
            f"{name} was trained at {own}, the first SAE at {reader.hook.name}",
            "evaluate SAEs of one hook together, or give --hook",
        )
