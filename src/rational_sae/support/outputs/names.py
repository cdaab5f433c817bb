"""What this program writes, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Union

Tree = Mapping[str, Union["Tree", bytes, None]]
"""Names in a folder: None is a file, bytes one that holds them, a tree a folder. `#` stands for digits, `?` for a
letter or a digit. Earlier names are taken away last and put in place last."""

PARTIAL = ".rsae-partial"
"""What is being written."""
EARLIER = ".rsae-earlier"
"""The result that is being replaced, until the new one is whole."""

CONFIG, WEIGHTS, PLAIN, CARD = "cfg.json", "sae_weights.safetensors", "sae.safetensors", "README.md"
REPORT, PAGE, SETTINGS, LOG = "report.json", "report.html", "settings.yaml", "log.jsonl"
CHECKPOINT, LOCK = "checkpoint", "lock"
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors.safetensors"
SWEEP_TABLE, SWEEP_PAGE, PILOTS, CELLS = "sweep.json", "sweep.html", "pilots", "cells"
TENSORS_BEGUN = ".tmp??????"
"""What safetensors writes first. Ours only in a folder that this program made to write into."""
THEORY = "theory.json"
THEORY_PICTURES = tuple(f"theory-{name}.png" for name in ("sign", "relu", "gates", "converse"))

TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")
"""What `write_whole` writes first."""
PAGE_MARK = '<meta name="generator" content="rational-sae">'
CARD_MARK = "<!-- written by rational-sae -->"
"""What tells our card from a README.md that somebody wrote."""
WEIGHTS_MARK = {"written_by": "rational-sae"}
"""In the header of an SAE's weights: cfg.json and sae_weights.safetensors are other tools' names too."""

SAE_FILES: Tree = {CONFIG: None, PLAIN: None, WEIGHTS: None, CARD: CARD_MARK.encode()}
SAE_NAMES: Tree = {**SAE_FILES, PARTIAL: {**SAE_FILES, TENSORS_BEGUN: None}, EARLIER: SAE_FILES}
STEP_NAMES: Tree = {MANIFEST: None, STATE: None, TENSORS: None}
STEP_BEGUN_NAMES: Tree = {**STEP_NAMES, TENSORS_BEGUN: None}
DAMAGED_NAMES: Tree = {"damaged-step-#": STEP_NAMES, "damaged-step-#.#": STEP_NAMES}
CHECKPOINT_NAMES: Tree = {LOCK: None, "step-#": STEP_NAMES, ".partial-#": STEP_BEGUN_NAMES, **DAMAGED_NAMES}
ROWS = ("sae", "one-look", "identity", "control-native", "control-jumprelu", "teacher-adapted")
RESULT_NAMES: Tree = {REPORT: None, PAGE: None, SETTINGS: None, LOG: None, **dict.fromkeys(ROWS, SAE_NAMES)}
THEORY_NAMES: Tree = {THEORY: None, **dict.fromkeys(THEORY_PICTURES)}
