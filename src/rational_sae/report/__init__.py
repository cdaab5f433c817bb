"""report.json → report.html, a terminal table and figures, all with the same numbers.

    write_report(report, Path("out"))      # report.json and report.html
    print_table(read_report(Path("out")), Console())

Nothing is measured here: every number is read from the dictionary that `schema.Report` describes. Altair, Jinja
and rich are imported when a page, a figure or a table is asked for, so importing this package is cheap.
"""

from rational_sae.report.decision import decisions
from rational_sae.report.environment import environment
from rational_sae.report.evaluation import evaluation_report
from rational_sae.report.figures import save_figures, save_pareto
from rational_sae.report.files import read_report, read_sweep, write_page, write_report, write_sweep, write_sweep_page
from rational_sae.report.numbers import (
    format_difference,
    format_interval,
    format_share,
    format_value,
    relative_difference,
)
from rational_sae.report.page import render, render_sweep
from rational_sae.report.schema import SCHEMA, Report
from rational_sae.report.sweep_table import sweep_sheets
from rational_sae.report.table import difference_rows, table_rows
from rational_sae.report.terminal import print_answer, print_sweep, print_table

__all__ = [
    "SCHEMA",
    "Report",
    "decisions",
    "difference_rows",
    "environment",
    "evaluation_report",
    "format_difference",
    "format_interval",
    "format_share",
    "format_value",
    "print_answer",
    "print_sweep",
    "print_table",
    "read_report",
    "read_sweep",
    "relative_difference",
    "render",
    "render_sweep",
    "save_figures",
    "save_pareto",
    "sweep_sheets",
    "table_rows",
    "write_page",
    "write_report",
    "write_sweep",
    "write_sweep_page",
]
