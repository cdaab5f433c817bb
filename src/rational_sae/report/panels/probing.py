"""Sparse probing: the mean over tasks, and a table a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rational_sae.report.panels.panel import Content, Panel, Table, facts, tables
from rational_sae.report.table import difference_rows, probing_rows, table_rows

TEMPLATE = """\
<p>Test accuracy of a linear probe on the k latents that separate the classes best, and on all of them. Higher is \
better.</p>
{% if mean %}
{{ show.results(mean, "Mean over tasks, 95 % intervals underneath") }}
{% endif %}
{% if differences %}
{{ show.differences(differences, "Paired differences, 95 % intervals") }}
{% endif %}
{% for task in tasks %}
<details{% if loop.index <= 3 %} open{% endif %}><summary>{{ task.name }}{% if task.note %} \
<span class="aside">{{ task.note }}</span>{% endif %}</summary>
{{ show.results(task.table, "Accuracy on this task, 95 % intervals underneath") }}
</details>
{% endfor %}
{% if protocol %}
<details><summary>Protocol</summary>
{{ show.facts_table("How the probes were trained", protocol) }}
</details>
{% endif %}
"""


@dataclass(frozen=True)
class TaskTable:
    """The probes of one task."""

    name: str
    note: str
    table: Table


def content(report: Mapping[str, Any]) -> Content | None:
    mean, tasks = tables(table_rows(report)).get("probing"), _tasks(report)
    if not mean and not tasks:
        return None
    values = {
        "mean": mean,
        "differences": tables(difference_rows(report)).get("probing"),
        "tasks": tasks,
        "protocol": facts((report.get("probing") or {}).get("protocol")),
    }
    return Content(values, lines=[line for task in tasks for line in task.table[1]])


def _tasks(report: Mapping[str, Any]) -> list[TaskTable]:
    tasks = (report.get("probing") or {}).get("tasks") or {}
    return [
        TaskTable(name, _task_note(tasks[name]), (list(rows[0].cells), rows))
        for name, rows in probing_rows(report).items()
        if rows
    ]


def _task_note(task: Mapping[str, Any]) -> str:
    """ "4 classes, 800 train and 200 test examples", as far as it is known."""
    sizes = [f"{task[part]:,} {part}" for part in ("train", "test") if task.get(part) is not None]
    classes = [f"{len(task['classes'])} classes"] if task.get("classes") else []
    return ", ".join([*classes, " and ".join(sizes) + " examples"] if sizes else classes)


PROBING = Panel("probing", "Sparse probing", TEMPLATE, content)
