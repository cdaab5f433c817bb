"""Rows that are trained: made ready before, and brought back to the teacher's units after."""

from __future__ import annotations

import copy

from rational_sae.data.activations import Reader
from rational_sae.evaluation.logits import kept_tokens
from rational_sae.sae.model import SAE
from rational_sae.upgrading.labels import label_flags, promoted
from rational_sae.upgrading.prepare import Prepared
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.start.closed_form import rescaled
from rational_sae.upgrading.train.candidate import Candidate


def as_candidates(saes: dict[str, SAE], prepared: Prepared, settings: Settings) -> dict[str, Candidate]:
    """Rows made ready for `train`, each with its own factor on the learning rates."""
    return {
        name: Candidate(name, sae, settings, prepared.x, prepared.target_l0, settings.rates.get(name, 1.0))
        for name, sae in saes.items()
    }


def finished_rows(prepared: Prepared, candidates: dict[str, Candidate], reader: Reader) -> dict[str, SAE]:
    """Every row of the report as an SAE in the teacher's units; trained ones with what became of their labels."""
    teacher, sae, units = prepared.teacher, prepared.sae, prepared.units
    rows = {"teacher": teacher, "teacher_rescaled": rescaled(teacher, units.back(prepared.x))}
    rows["init"] = units.undo_(sae.with_gate(copy.deepcopy(prepared.start.init)))
    if prepared.hard is not prepared.start:
        rows["init_hard"] = units.undo_(sae.with_gate(copy.deepcopy(prepared.hard.init)))
    if prepared.looks is not None:
        start, looks = copy.deepcopy(prepared.hard.init), copy.deepcopy(prepared.looks.rational)
        rows["init_looks"] = units.undo_(sae.with_gate(start, looks))
    before = promoted(reader, teacher)
    for name, candidate in candidates.items():
        rows[name] = units.undo_(candidate.finish_at_l0(prepared.validation))
        after = None if before is None else promoted(reader, rows[name])
        kept = None if before is None or after is None else kept_tokens(before, after)
        rows[name].metadata.extra["labels"] = label_flags(rows[name], teacher, kept)
    return rows
