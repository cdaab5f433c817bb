"""The sections of report.html, a file each, listed once.

A panel is what it draws from a report and a template for it. Importing this package imports Altair, so the page does
when it is drawn.
"""

from rational_sae.report.panels.absorption import ABSORPTION
from rational_sae.report.panels.also import ALSO
from rational_sae.report.panels.differences import DIFFERENCES
from rational_sae.report.panels.features import FEATURES
from rational_sae.report.panels.firing import FIRING
from rational_sae.report.panels.fitted import FITTED
from rational_sae.report.panels.forest import FOREST
from rational_sae.report.panels.gate import GATE
from rational_sae.report.panels.made import MADE
from rational_sae.report.panels.panel import Content, Panel
from rational_sae.report.panels.probing import PROBING
from rational_sae.report.panels.results import RESULTS
from rational_sae.report.panels.sparsity import SPARSITY
from rational_sae.report.panels.suite import SUITE
from rational_sae.report.panels.training import TRAINING

PANELS: list[Panel] = [
    FOREST,
    RESULTS,
    DIFFERENCES,
    ALSO,
    SPARSITY,
    PROBING,
    SUITE,
    GATE,
    TRAINING,
    FIRING,
    ABSORPTION,
    FEATURES,
    FITTED,
    MADE,
]
"""In the order of the page; the glossary of what they show follows them."""

__all__ = ["PANELS", "Content", "Panel"]
