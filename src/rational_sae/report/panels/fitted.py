"""What was fitted, and to which SAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel, facts

SECTIONS = {"teacher": "Teacher", "fit": "Rational fit"}

WORDS = {
    "source": "SAE that was given",
    "family": "gate",
    "d_in": "width of the vectors (d_in)",
    "d_sae": "latents (d_sae)",
    "hook": "place in the model",
    "fvu_calibration": "FVU on the calibration text",
    "l0_calibration": "L0 on the calibration text",
    "target": "function that was fitted",
    "type": "degrees P, Q of the rational",
    "error": "largest error of the fit",
    "alternations": "alternations, which certify that no other of the type is better",
    "min_denominator": "least value of the denominator on the interval",
    "calibration_rms_before": "error on real pre-activations as designed (root mean square)",
    "calibration_rms_after": "the same after calibration",
    "out_of_range": "share of active pre-activations right of the interval, where r goes on straight",
}
"""What the keys of report.json say."""
TOPK = "jumprelu: thresholds are where the TopK keeps its k latents on average"
"""A quota for each token is no function of one pre-activation."""

TEMPLATE = """\
{% for caption, entries in facts %}
{{ show.facts_table(caption, entries) }}
{% endfor %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    found = [
        (title, [(WORDS.get(name, name), text) for name, text in facts(_told(report, key))])
        for key, title in SECTIONS.items()
        if report.get(key)
    ]
    return Content({"facts": found}) if found else None


def _told(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The section, and why the target is another gate than the teacher's."""
    section, teacher = report[key], report.get("teacher") or {}
    topk = key == "fit" and teacher.get("family") == "topk" and section.get("target") == "jumprelu"
    return {**section, "target": TOPK} if topk else section


FITTED = Panel("fitted", "What was fitted", TEMPLATE, content)
