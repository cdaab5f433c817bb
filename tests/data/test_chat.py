"""Dialogues: which tokens count, and what is refused, against a template small enough to be read by eye."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny, tiny_tokenizer

from rational_sae.data.chat import dialogue_of, rendered, require_template
from rational_sae.data.text import open_text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import HostError, RationalSAEError, TextError

TEMPLATE = (
    "{% for m in messages %}<bos> {{ {'user': 'w1', 'assistant': 'w2', 'system': 'w3'}[m.role] }} "
    "{{ m.content }} <eos> {% endfor %}{% if add_generation_prompt %}<bos> w2 {% endif %}"
)
"""w1, w2 and w3 stand for the names of roles."""

DIALOGUE = [
    {"role": "user", "content": "w10 w11"},
    {"role": "assistant", "content": "w20 w21 w22"},
    {"role": "user", "content": "w12"},
    {"role": "assistant", "content": "w23"},
]


def chatty() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_dialogues(path: Path, count: int = 400) -> Path:
    """Distinct dialogues of two turns, of forty words of the tiny vocabulary."""
    import random

    rng = random.Random(0)

    def words(n: int) -> str:
        return " ".join(f"w{rng.randrange(60)}" for _ in range(n))

    rows = [[{"role": "user", "content": words(10)}, {"role": "assistant", "content": words(30)}] for _ in range(count)]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def test_the_assistants_tokens_count_or_all_do() -> None:
    tokenizer, document = chatty(), dialogue_of({"messages": DIALOGUE}, "here")
    ids, counted = rendered(tokenizer, document, "assistant")
    words = tokenizer.convert_ids_to_tokens(ids)
    assert [word for word, yes in zip(words, counted, strict=True) if yes] == [
        "w20",
        "w21",
        "w22",
        "<eos>",
        "w23",
        "<eos>",
    ]
    assert words[:4] == ["<bos>", "w1", "w10", "w11"]
    assert rendered(tokenizer, document, "all") == (ids, [True] * len(ids))


def test_a_batch_keeps_what_counts_and_splits_by_dialogue(tmp_path: Path) -> None:
    text = open_text(str(save_dialogues(tmp_path / "chat.jsonl")), chat=True)
    whole = {split: list(text.pieces(split)) for split in ("train", "calibration", "validation", "test")}
    assert sum(map(len, whole.values())) == 400, "no dialogue is in two splits, or in none"
    assert all(len(json.loads(piece)) == 2 for pieces in whole.values() for _, piece in pieces)
    tokeniser = Tokeniser(chatty(), 128, bos=True)
    batch = next(tokeniser.batches(text, "test", 10_000))
    assert (batch.input_ids >= 0).all()
    assert batch.keep.sum(1).tolist() == [30] * len(batch.keep), "the assistant's words, and no special token"
    assert (batch.input_ids[:, 0] == 1).all()
    assert (batch.input_ids[:, 1] != 1).all(), "the template's BOS stands once"
    everything = next(Tokeniser(chatty(), 128, bos=True, chat_tokens="all").batches(text, "test", 10_000))
    assert everything.keep.sum(1).tolist() == [42] * len(batch.keep), "and ten words of the user, and two roles"


def test_the_embedded_models_template_tells_who_speaks(host: Any) -> None:
    messages = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Good day to you"}]
    ids, counted = rendered(host.tokenizer, dialogue_of({"messages": messages}, "here"), "assistant")
    said = host.tokenizer.decode([token for token, yes in zip(ids, counted, strict=True) if yes])
    assert said == "Good day to you<|im_end|>\n"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x"}, 'no field "messages"'),
        ({"messages": "x"}, "a string, not a list"),
        ({"messages": [{"role": "user"}]}, "message 1 has no role and content"),
        ({"messages": [{"role": "human", "content": "x"}]}, "the role 'human'; roles are: system, user, assistant"),
    ],
)
def test_rows_that_are_no_dialogues_are_refused(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(TextError, match=words) as error:
        open_text(str(path), chat=True)
    assert "line 1" in str(error.value)


def test_messages_without_the_option_are_refused_with_it(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="--chat reads messages"):
        open_text(str(save_dialogues(tmp_path / "chat.jsonl", 3)))


def test_a_tokenizer_without_a_template_and_a_template_that_looks_back_are_refused() -> None:
    with pytest.raises(HostError, match="no chat template; give the instruct model"):
        require_template(tiny_tokenizer(), "tiny")
    backward = chatty()
    backward.chat_template = "{{ messages | length }} " + TEMPLATE
    with pytest.raises(TextError, match=r"turn by turn.*--chat-tokens all"):
        rendered(backward, dialogue_of({"messages": DIALOGUE}, "here"), "assistant")
    raising = chatty()
    raising.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(TextError, match="roles must alternate"):
        rendered(raising, dialogue_of({"messages": DIALOGUE}, "here"), "all")


def save_chatty(folder: Path) -> Path:
    """The tiny Llama with a chat template."""
    save_tiny("llama", folder)
    chatty().save_pretrained(folder)
    return folder


def test_a_second_text_is_measured_beside_the_first(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    from tiny import save_tiny_teacher, save_tiny_text

    import rational_sae
    from rational_sae.report import render
    from rational_sae.report.second_text import second_text_line

    text, chat = save_tiny_text(tmp_path / "text.jsonl"), save_dialogues(tmp_path / "chat.jsonl")
    saes: dict[str, Any] = {
        name: save_tiny_teacher(tmp_path / name, tiny_folders["llama"], text, family=name) for name in ("topk", "relu")
    }
    asked: dict[str, Any] = {"eval_tokens": 200, "model": str(save_chatty(tmp_path / "model"))}
    one = rational_sae.evaluate(saes, chat, chat=True, **asked)
    both = rational_sae.evaluate(saes, chat, chat=True, also=str(save_dialogues(tmp_path / "again.jsonl")), **asked)
    assert both.rows == one.rows
    found = both.report()
    again = {key: one.rows["relu"][key] for key in found["also"]["rows"]["relu"]}
    assert found["also"]["rows"]["relu"] == pytest.approx(again), "the same dialogues under another name"
    assert found["also"]["differences"]["relu - topk"]["fvu"]["interval"]
    line = second_text_line(found)
    assert "again.jsonl" in line
    assert "relu against topk" in line
    page = render(found)
    assert "On a second text" in page
    with pytest.raises(RationalSAEError, match="the second text is the first"):
        rational_sae.evaluate(saes, chat, chat=True, also=str(chat), **asked)
    with pytest.raises(RationalSAEError, match="no chat template"):
        rational_sae.evaluate(saes, chat, chat=True, eval_tokens=200)


def test_an_upgrade_reports_what_dialogues_make_of_every_row(tmp_path: Path) -> None:
    from tiny import tiny_job

    from rational_sae.report.second_text import second_text_line
    from rational_sae.upgrading.job import run
    from rational_sae.upgrading.run.summary import report_of

    job = tiny_job(tmp_path, save_chatty(tmp_path / "model"))
    chat = [str(save_dialogues(tmp_path / f"{name}.jsonl")) for name in ("chat", "also")]
    report = report_of(run(job.model_copy(update={"text": chat[0], "chat": True, "also": chat[1]})))
    assert report["data"]["text"] == chat[0]
    assert report["also"]["rows"].keys() == report["rows"].keys()
    assert report["also"]["rows"]["rsae"]["fvu"] == pytest.approx(report["rows"]["rsae"]["fvu"])
    assert "documents), rsae against teacher" in second_text_line(report)
