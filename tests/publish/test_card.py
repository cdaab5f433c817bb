"""The model card: the header the hub reads, the report's own figures, the teacher's licence, and no local path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from gate_cases import GATES, WAVY, make, scale

from rational_sae.publish.card import model_card
from rational_sae.sae.looks import Look, Looks
from rational_sae.sae.model import Metadata


def header(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def report(teacher: str) -> dict[str, Any]:
    row = {"l0": 32.0, "fvu": 0.1769, "fvu_at_l0": 0.1769, "delta_ce": 0.215, "loss_recovered": 0.97}
    row |= {"delta_ce_at_l0": 0.215, "alive_fraction": 0.875}
    rsae = row | {"fvu": 0.1684, "fvu_at_l0": 0.1685}
    gain = {key: {"value": -0.0084, "interval": [-0.0091, -0.0077]} for key in ("fvu_at_l0", "delta_ce_at_l0")}
    return {
        "schema": 1,
        "title": "",
        "verdict": "At the teacher's L0 it is better.",
        "warnings": ["poor text"],
        "rows": {"teacher": row, "rsae": rsae, "control_native": row},
        "intervals": {"rsae": {"fvu": [0.1651, 0.1719]}},
        "differences": {"rsae - teacher": gain, "rsae - control_native": gain},
        "teacher": {"family": "topk"},
        "data": {
            "text": "/home/me/private/text.jsonl",
            "test_tokens": 6144,
            "test_documents": 40,
            "train_tokens_distinct": 131072,
            "excluded_positions": "special tokens",
        },
        "settings": {"teacher": teacher, "steps": 400, "batch_tokens": 1024, "seed": 0},
        "environment": {"rational-sae": "0.1.0"},
    }


def card_of(extra: dict[str, Any] | None = None, model: str | None = "google/gemma-2-2b", **options: Any) -> str:
    known = Metadata(model_name=model, hook_name="blocks.8.hook_resid_post", family="rational", extra=extra or {})
    return model_card(make(GATES["hard"](), metadata=known), **options)


def test_every_row_and_difference_is_there_with_its_interval(tmp_path: Path) -> None:
    card = card_of(report=report(str(tmp_path / "my-teacher")))
    assert "At the teacher's L0 it is better." in card
    assert "| `rsae` | 32.00 | 0.1684 [0.1651, 0.1719] | 0.1685 |" in card
    assert "| `control_native` |" in card
    assert "| rsae − control native | -0.0084 [-0.0091, -0.0077] |" in card
    assert "6144 held-out tokens of 40 documents" in card
    assert "Warning: poor text" in card
    assert "| Teacher | my-teacher, topk |" in card
    assert "rational of type (5, 4), hard" in card


def test_a_row_that_kept_its_start_is_called_untrained(tmp_path: Path) -> None:
    found = report(str(tmp_path / "my-teacher"))
    assert "ntrained" not in card_of(report=found)
    found["curves"] = {"validation": {"control_native": {"step": [0, 9], "kept_step": 0}}}
    card = card_of(report=found)
    assert "| `control_native` (untrained) | 32.00" in card
    assert "| rsae − control native (untrained) |" in card
    assert "Untrained: no step of its fine-tuning was better than its start." in card


def test_local_paths_stay_at_home(tmp_path: Path) -> None:
    card = card_of(model=str(tmp_path / "my-model"), report=report(str(tmp_path / "my-teacher")))
    assert str(tmp_path) not in card
    assert "/home/me" not in card
    assert "of my-model," in card
    assert "base_model" not in header(card)


@pytest.mark.parametrize(
    ("extra", "wanted", "words"),
    [
        ({"licence": "Apache-2.0"}, {"license": "apache-2.0"}, "Apache-2.0, carried over"),
        ({"license": "gemma"}, {"license": "gemma"}, "gemma, carried over"),
        ({"license": "Acme 7"}, {"license": "other", "license_name": "Acme 7"}, "Acme 7, carried over"),
        ({}, {}, "state none"),
    ],
)
def test_the_teachers_licence_is_carried_over(extra: dict[str, Any], wanted: dict[str, str], words: str) -> None:
    card = card_of(extra)
    assert {key: value for key, value in header(card).items() if key.startswith("license")} == wanted
    assert words in card


def test_the_header_names_the_model_where_it_is_one_of_the_hub() -> None:
    assert header(card_of())["base_model"] == "google/gemma-2-2b"
    assert header(card_of(model="gpt2"))["base_model"] == "gpt2"
    assert "base_model" not in header(card_of(model="smollm2"))
    assert "base_model" not in header(card_of(model=None))
    assert header(card_of())["library_name"] == "saelens"


def test_stale_labels_and_distillation_are_told() -> None:
    labels = {"rule": "stale: it turned", "stale": [1, 2, 3]}
    card = card_of({"labels": labels, "neuronpedia_id": "gpt2-small/8-res-jb"})
    assert "3 of 37 labels are probably stale (stale: it turned)" in card
    assert "https://neuronpedia.org/gpt2-small/8-res-jb" in card
    change = {"value": 0.002, "interval": [0.001, 0.003]}
    card = card_of({"distilled": {"from": "rational", "fvu": 0.17, "fvu_change": change}})
    assert "from a rational SAE: FVU 0.1700, +0.0020 [+0.0010, +0.0030]" in card


def test_a_card_of_any_family_says_how_to_load_it() -> None:
    card = model_card(make(GATES["relu"](), metadata=Metadata(family="relu")))
    assert "import rational_sae" not in card
    assert 'sae_lens.SAE.load_from_disk("sae")' in card
    assert "import rational_sae" in card_of()


def test_further_looks_are_told() -> None:
    looks = Looks([Look(WAVY, 0.25, cut=0.1)], 0.05, scale())
    assert "| Looks | 2: " in model_card(make(GATES["hard"](), looks=looks))
    assert "0.250" in model_card(make(GATES["hard"](), looks=looks))
    assert "| Looks |" not in model_card(make(GATES["hard"]()))
