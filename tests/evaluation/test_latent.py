"""The card of one latent, against plain loops on a tiny model, and its lines in a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny import save_tiny, save_tiny_teacher, save_tiny_text
from torch.nn.functional import cosine_similarity

from rational_sae.data.reading import Reading
from rational_sae.errors import SettingsError
from rational_sae.evaluation.latent import latent_card
from rational_sae.formats import load
from rational_sae.report.latent_card import print_latent


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher and a text."""
    root = tmp_path_factory.mktemp("latent")
    model, text = save_tiny("llama", root / "model"), save_tiny_text(root / "text.jsonl")
    return save_tiny_teacher(root / "teacher", model, text), text


def lines_of(found: dict[str, object]) -> str:
    out = io.StringIO()
    print_latent(found, Console(file=out, width=100))
    return out.getvalue()


def test_the_card_says_what_plain_loops_say(inputs: tuple[Path, Path]) -> None:
    teacher, text = inputs
    found = latent_card(str(teacher), 3, Reading(text=str(text)), with_text=True, tokens=256)
    sae = load(str(teacher))
    reader = Reading(text=str(text)).open(sae)
    z = torch.cat([sae.encode(reader.at(batch)) for batch in reader.held_out("test", 256)]).detach()[:, 3]
    assert (found["tokens"], found["fired"]) == (len(z), int((z != 0).sum()))
    assert found["largest"] == pytest.approx(float(z.max()))
    assert found["mean"] == pytest.approx(float(z[z != 0].mean()))
    assert found["examples"][0]["values"][found["examples"][0]["peak"]] == pytest.approx(float(z.max()), rel=1e-3)
    cosines = cosine_similarity(sae.W_dec, sae.W_dec[3:4], dim=1).detach()
    cosines[3] = -2
    assert [int(place) for place, _ in found["nearest"]] == cosines.topk(5).indices.tolist()
    assert [value for _, value in found["promoted"]] == sorted((v for _, v in found["promoted"]), reverse=True)
    assert all(token.strip() for token, _ in found["promoted"])
    shown = lines_of(found)
    assert f"Fires     on {found['fired']} of {found['tokens']} tokens" in shown
    assert "largest h of a token" in shown
    assert f"Promotes  {found['promoted'][0][0]!r}" in shown


def test_the_teachers_latent_is_shown_beside_it(inputs: tuple[Path, Path]) -> None:
    teacher, text = inputs
    reading = Reading(text=str(text))
    found = latent_card(str(teacher), 3, reading, with_text=True, tokens=128, teacher=str(teacher))
    assert found["teacher"]["cos_decoder"] == pytest.approx(1)
    assert found["teacher"]["tokens_kept"] == 1
    assert found["teacher"]["fired"] == found["fired"]
    assert "tokens kept 100%" in lines_of(found)


def test_without_a_text_nothing_is_read_and_the_card_says_so(inputs: tuple[Path, Path]) -> None:
    found = latent_card(str(inputs[0]), 0, Reading(text="no such text"), with_text=False, tokens=128)
    assert "tokens" not in found
    assert "give --text" in lines_of(found)
    assert found["promoted"]


def test_a_latent_that_is_not_there_is_refused_with_the_numbers_that_are(inputs: tuple[Path, Path]) -> None:
    with pytest.raises(SettingsError, match=r"has 64 latents.*give a number from 0 to 63"):
        latent_card(str(inputs[0]), 64, Reading(), with_text=False, tokens=128)


def test_a_place_without_an_effect_on_logits_says_why(tmp_path: Path) -> None:
    model, text = save_tiny("llama", tmp_path / "model"), save_tiny_text(tmp_path / "text.jsonl")
    sae = save_tiny_teacher(tmp_path / "sae", model, text, hook="blocks.1.ln2.hook_normalized")
    shown = lines_of(latent_card(str(sae), 0, Reading(text=str(text)), with_text=True, tokens=128))
    assert "Logits    none: what is at blocks.1.ln2.hook_normalized is read by a part of the block" in shown
    assert "Fires     on" in shown
