"""report.json → report.html, a terminal table and figures, all with the same numbers.

    write_report(report, Path("out"))      # report.json and report.html
    print_table(read_report(Path("out")), Console())

Nothing is measured here: every number is read from the dictionary that `schema.Report` describes. Altair, Jinja
and rich are imported when a page, a figure or a table is asked for, so importing this package is cheap.
"""

from .figures import save_figures
from .files import read_report, write_report
from .numbers import format_difference, format_interval, format_value, relative_difference
from .page import render
from .schema import SCHEMA, Report
from .table import difference_rows, table_rows
from .terminal import print_table

__all__ = [
    "SCHEMA",
    "Report",
    "difference_rows",
    "format_difference",
    "format_interval",
    "format_value",
    "print_table",
    "read_report",
    "relative_difference",
    "render",
    "save_figures",
    "table_rows",
    "write_report",
]
