"""The model card of an SAE: README.md with the hub's metadata header, from the SAE's own files and a job's report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rational_sae.check.words import FAMILIES
from rational_sae.data.embedded import MODELS
from rational_sae.report import difference_rows, table_rows
from rational_sae.report.rows import NOT_BETTER, UNTRAINED, untrained
from rational_sae.report.schema import nouns
from rational_sae.sae.model import SAE
from rational_sae.support.safe_text import name_of, printable

TAGS = ["sparse-autoencoder", "mechanistic-interpretability", "rational-sae"]

COLUMNS = ("l0", "fvu", "fvu_at_l0", "delta_ce", "loss_recovered", "alive_fraction")
DIFFERENCES = ("fvu_at_l0", "delta_ce_at_l0")

HUB_LICENCES = (
    *("apache-2.0", "mit", "bsd-3-clause", "gpl-3.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("gemma", "llama2", "llama3", "llama3.1", "llama3.2", "openrail"),
)
"""Identifiers that the hub knows, of those that SAEs are published under; any other is given by name."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
"""OWNER/NAME, or NAME alone."""

PAGE = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)
"""What follows Neuronpedia's address."""

ADDRESS = re.compile(r"://|www\.|@", re.IGNORECASE)
"""In a word that some readers of Markdown make a link of."""

MARKUP = re.compile(r"[&<>`*\[\]|\\~$!#]|(?<!\w)_|_(?!\w)")

PLAIN = re.compile(r"[A-Za-z](\w|[ .,/:()=+-])*", re.ASCII)
"""Text that is no markup in any place where a card puts it; no link either, without "://" and "www."."""


def model_card(sae: SAE, report: Mapping[str, Any] | None = None) -> str:
    """Markdown with a YAML header. report: the contents of report.json, if an upgrade made the SAE.

    Local folders are named without where they lie.
    """
    lines = ["---", yaml.safe_dump(_header(sae), sort_keys=False).strip(), "---", ""]
    lines += [f"# {_title(sae)}", ""]
    if report:
        lines += [_sentence(report["verdict"]), ""]
    lines += _facts(sae, report)
    if report:
        lines += _figures(report)
    lines += _labels(sae)
    lines += _use(sae)
    lines += ["## Licence", "", _licence_sentence(sae), ""]
    return "\n".join(lines)


def _header(sae: SAE) -> dict[str, Any]:
    header: dict[str, Any] = {"library_name": "saelens", "tags": TAGS}
    licence = _licence(sae)
    if licence and licence.lower() in HUB_LICENCES:
        header["license"] = licence.lower()
    elif licence:
        header |= {"license": "other", "license_name": name_of(licence)}
    base = sae.metadata.model_name
    if base and base not in MODELS and HUB_NAME.fullmatch(base) and _plain_name(base) == base:
        header["base_model"] = base
    return header


def _name(text: Any) -> str:
    """A name or another word of an SAE's own in Markdown: as it is if it is plain, else as code, where nothing is
    markup, a link or an end of a table's cell."""
    text = name_of(str(text))
    return text if PLAIN.fullmatch(text) and not ADDRESS.search(text) else _code(text)


def _code(text: str) -> str:
    """A name as code, which ends where a longer run of backticks than any inside does."""
    text = name_of(text).replace("|", "\\|")  # a table's cells are looked for first, inside code too
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _sentence(text: Any) -> str:
    """Words of ours that may quote somebody's, in Markdown: an address is written as code, and of all else what could
    be markup as a character's number."""
    words = printable(str(text)).split()
    return " ".join(_code(word) if ADDRESS.search(word) else MARKUP.sub(_number, word) for word in words)


def _number(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def _title(sae: SAE) -> str:
    name = FAMILIES.get(sae.metadata.family, sae.metadata.family.capitalize())
    where = f" of {_name(_plain_name(sae.metadata.model_name))}" if sae.metadata.model_name else ""
    at = f", {_name(sae.metadata.hook_name)}" if sae.metadata.hook_name else ""
    return f"{_name(name)} sparse autoencoder{where}{at}"


def _facts(sae: SAE, report: Mapping[str, Any] | None) -> list[str]:
    facts: dict[str, Any] = {
        "Model": _name(_plain_name(sae.metadata.model_name)) if sae.metadata.model_name else "not stated",
        "Hook": _name(sae.metadata.hook_name) if sae.metadata.hook_name else "not stated",
        "Width": f"{sae.d_in} → {sae.d_sae} latents" + (f" → {sae.d_out}" if sae.transcodes else ""),
        "Gate": sae.gate.title(),
    }
    if sae.looks is not None:
        steps = ", ".join(f"{float(look.alpha.detach()):.3f}" for look in sae.looks)
        facts["Looks"] = f"{len(sae.looks)}: the encoder sees again what an estimate of the codes leaves (α {steps})"
    if report:
        teacher, data, settings = report["teacher"], report["data"], report["settings"]
        read = data.get("text") or data.get("vectors")
        facts |= {
            "Teacher": f"{_name(_plain_name(settings['teacher']))}, {_name(teacher['family'])}",
            "Fine-tuned": f"{settings['steps']} steps of {settings['batch_tokens']} {nouns(report)[0]} "
            f"({data['train_tokens_distinct']} distinct) of {_name(_plain_name(read))}, "
            f"seed {settings['seed']}",
            "Made with": f"rational-sae {report['environment']['rational-sae']}",
        }
    if distilled := _distilled(sae):
        facts["Distilled"] = distilled
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items()), ""]


def _distilled(sae: SAE) -> str:
    """What `distil` left in the metadata, which an SAE of somebody else's may have otherwise: then nothing."""
    found: Any = sae.metadata.extra.get("distilled")
    try:
        change, (low, high) = found["fvu_change"]["value"], found["fvu_change"]["interval"]
        return f"from a {_name(found['from'])} SAE: FVU {found['fvu']:.4f}, {change:+.4f} [{low:+.4f}, {high:+.4f}]"
    except (TypeError, KeyError, ValueError):
        return ""


def _figures(report: Mapping[str, Any]) -> Iterator[str]:
    data, (of, owners) = report["data"], nouns(report)
    left_out = data.get("excluded_positions")
    yield from ("## Figures", "")
    yield (
        f"On {data['test_tokens']} held-out {of} of {data['test_documents']} {owners}, the same for every row; "
        f"brackets are 95 % bootstrap intervals over {owners}. "
        f"{f'Left out: {_sentence(left_out)}. ' if left_out else ''}"
        "`rsae` is this SAE; `control_*` and `identity` are the teacher trained as long with other gates."
    )
    kept = untrained(report)

    def said(row: str) -> str:
        return f" ({UNTRAINED})" if row in kept else ""

    if kept:
        yield from ("", f"{UNTRAINED.capitalize()}: {NOT_BETTER}.")
    rows, differences = table_rows(report), difference_rows(report)
    columns = [key for key in COLUMNS if any(key in row.cells for row in rows)]
    yield from ("", "| row | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|")
    for row in rows:
        cells = (row.cells[key] for key in columns)
        yield (
            f"| {_code(row.name)}{said(row.name)} | "
            + " | ".join(f"{one.text} {one.interval}".strip() for one in cells)
            + " |"
        )
    yield from ("", "Paired differences:", "")
    compared = [key for key in DIFFERENCES if any(key in row.cells for row in differences)]
    yield from ("| | " + " | ".join(compared) + " |", "|---" * (len(compared) + 1) + "|")
    for row in differences:
        cells = (row.cells[key] for key in compared)
        yield f"| {_sentence(row.label)} | " + " | ".join(f"{one.text} {one.interval}".strip() for one in cells) + " |"
    for warning in report.get("warnings") or ():
        yield from ("", f"Warning: {_sentence(warning)}")
    yield ""


def _labels(sae: SAE) -> list[str]:
    labels, page = sae.metadata.extra.get("labels"), sae.metadata.extra.get("neuronpedia_id")
    if not isinstance(labels, dict) or not isinstance(labels.get("stale"), list):
        return []
    known = isinstance(page, str) and PAGE.fullmatch(page)
    where = f" The teacher's latents are explained at https://neuronpedia.org/{page}." if known else ""
    return [
        "## Labels",
        "",
        f"Latents keep the teacher's index. {len(labels['stale'])} of {sae.d_sae} labels are probably stale "
        f"({_sentence(labels.get('rule'))}); `metadata.labels.stale` in cfg.json lists them.{where}",
        "",
    ]


def _use(sae: SAE) -> list[str]:
    custom = (
        "import rational_sae.saelens  # SAELens learns the architecture\n"
        if sae.gate.architecture == "rational"
        else ""
    )
    return [
        "## Use",
        "",
        "```python",
        f'{custom}import sae_lens\n\nsae = sae_lens.SAE.load_from_disk("sae")',
        "```",
        "",
        'From the hub: `sae_lens.SAE.from_pretrained("OWNER/NAME", "sae")`.',
        "",
    ]


def _licence(sae: SAE) -> str | None:
    extra = sae.metadata.extra
    found = extra.get("license") or extra.get("licence")
    return str(found) if found else None


def _licence_sentence(sae: SAE) -> str:
    licence = _licence(sae)
    if licence:
        return f"{_name(licence)}, carried over from the teacher."
    return "The teacher's files state none. Ask its authors before you pass this on."


def _plain_name(name: str) -> str:
    """A hub's or an embedded name as it is; of a local path its last part only."""
    try:
        path = Path(name).expanduser()
        local = path.is_absolute() or name.startswith((".", "~")) or path.exists() or name.count("/") > 1
        return path.resolve().name if local and ":" not in name else name
    except (OSError, RuntimeError, ValueError):  # no path of this system, so it leads nowhere here
        return name.rpartition("/")[2]
