"""What magnitude alone can gain, before any training: the best shape in closed form, on held-out tokens."""

from __future__ import annotations

from rational_sae.check.verify import verify
from rational_sae.data.reading import Reading, check_eval_tokens
from rational_sae.evaluation import Results, evaluate_loaded
from rational_sae.formats import load
from rational_sae.gates.hard import HardGate
from rational_sae.support.progress import Progress, Silent
from rational_sae.upgrading.settings import DEFAULT_TYPE
from rational_sae.upgrading.start.calibrate import calibrate
from rational_sae.upgrading.start.closed_form import rescaled, solve_shape_
from rational_sae.upgrading.start.initialise import canonical, rational_start


def headroom(
    sae: str,
    reading: Reading | None = None,
    *,
    eval_tokens: int = 16384,
    degrees: tuple[int, int] = DEFAULT_TYPE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Rows `teacher`, `teacher_rescaled` (the best output scale) and `shape` (the best shared shape, same support).

    Coefficients are fitted on the calibration split and measured on the test split. Encoder, decoder, support and
    poles stay as they are: gains of selection lie outside, so 0 is no verdict on an upgrade. Raises
    RationalSAEError with a one-line reason if an input cannot be used.
    """
    check_eval_tokens(eval_tokens)
    progress = progress or Silent()
    progress.stage("load SAE and model")
    teacher = load(sae)
    reader = (reading or Reading()).open(teacher)
    teacher.to(reader.host.device)
    progress.stage("solve")
    x = reader.sample("calibration", eval_tokens)
    verify(teacher, x)
    unit, units = canonical(teacher, teacher.seen(x))
    scaled = teacher.seen(x) * units.input
    start = rational_start(unit, scaled, degrees, HardGate)
    calibrate(start.init, unit, scaled, seed=seed)
    solve_shape_(start.init, unit, scaled)
    shaped = units.undo_(unit.with_gate(start.init))
    rows = {"teacher": teacher, "teacher_rescaled": rescaled(teacher, x), "shape": shaped}
    compare = [("teacher_rescaled", "teacher"), ("shape", "teacher"), ("shape", "teacher_rescaled")]
    return evaluate_loaded(reader, rows, compare, eval_tokens=eval_tokens, seed=seed, progress=progress)
