"""Every statement of a config: in the table, and honoured, refused or named, alike in every command."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from format_cases import Shape, batch, cached, gemma_scope, gemma_scope_transcoder
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny import save_tiny, save_tiny_teacher, save_tiny_text
from typer.testing import CliRunner

from rational_sae.cli import app
from rational_sae.data.reading import Reading
from rational_sae.errors import HostError, SettingsError, SourceError
from rational_sae.formats import load, release
from rational_sae.formats.hub import wanted
from rational_sae.formats.statements import LONGEST_NAME, NAMED, TABLES, warnings_of
from rational_sae.sae.cfg import CENTRING, KWARGS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens
    from sae_lens.loading.pretrained_sae_loaders import LLM_METADATA_KEYS

D_IN, D_SAE = 12, 30


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny_sae(tmp_path / "sae")


def tiny_sae(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(d_in=D_IN, d_sae=D_SAE))
        sae.save_model(folder)
    return folder


def state(folder: Path, *, top: dict[str, Any] | None = None, drop: tuple[str, ...] = (), **metadata: Any) -> str:
    """Write statements into a stored config; top: outside of its metadata."""
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    config |= top or {}
    config["metadata"] |= metadata
    for key in drop:
        config.pop(key, None)
    path.write_text(json.dumps(config))
    return str(folder)


def old(folder: Path, **statements: Any) -> str:
    """A flat config, as SAELens up to version 5 wrote it."""
    config = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "model_name": "gpt2-small", **statements}
    (folder / "cfg.json").write_text(json.dumps(config))
    return str(folder)


# The table


def config_classes(package: str) -> set[str]:
    """Names of the fields of a package's config classes, read without importing it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    found: set[str] = set()
    for path in Path(spec.submodule_search_locations[0]).rglob("*.py"):
        if any(part in path.parts for part in ("synthetic", "evals.py")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "Config" in node.name and "Pretokenize" not in node.name:
                fields = (one for one in node.body if isinstance(one, ast.AnnAssign))
                found |= {one.target.id for one in fields if isinstance(one.target, ast.Name)}
    return found


def test_the_table_has_every_key_of_the_saelens_that_is_installed() -> None:
    no_sae = {"warm_up_steps", "value"}  # of a coefficient's schedule
    runs = {"saes", "_hook_names_per_sae", "_hook_head_indices_per_sae"}  # of several SAEs at once
    keys = (config_classes("sae_lens") | LLM_METADATA_KEYS) - no_sae - runs
    assert {"seqpos_slice", "normalize_activations", "hook_head_index"} <= keys
    assert not keys - TABLES["SAELens"].keys()


def test_the_table_has_every_key_of_the_sparsify_that_is_installed() -> None:
    assert not config_classes("sparsify") - TABLES["sparsify"].keys()


def test_the_table_has_every_key_that_saelens_used_to_write() -> None:
    """Some that its classes no longer have, of versions 1 to 5."""
    keys = "hook_point hook_point_layer hook_point_head_index start_pos_offset end_pos_offset finetuning_scaling_factor"
    keys += " tokens_per_buffer is_transcoder out_hook_point uses_scaling_factor activation_fn_str lp_norm variant"
    assert not set(keys.split()) - TABLES["SAELens"].keys()


def test_the_table_has_what_transformer_lens_can_be_told() -> None:
    """Arguments of from_pretrained that a config may hand on."""
    from transformer_lens import HookedTransformer

    own = set(inspect.signature(HookedTransformer.from_pretrained).parameters)
    not_stated = {"cls", "model_name", "hf_model", "tokenizer", "from_pretrained_kwargs", "hf_cfg"}
    assert not own - not_stated - TABLES[KWARGS].keys()


def test_every_entry_says_why() -> None:
    for table in TABLES.values():
        for key, one in table.items():
            assert one.kind in ("honoured", "refused", "warned", "harmless")
            assert key.isidentifier()
            assert len(one.why) > 5


# Warnings


def test_what_saelens_writes_today_warns_of_nothing(teacher: Path) -> None:
    assert load(str(teacher)).metadata.warnings == []
    stated = {"hook_head_index": None, "seqpos_slice": [None], "exclude_special_tokens": True, "l0": 3.0}
    stated |= {"model_class_name": "HookedTransformer", KWARGS: {CENTRING: False}, "prepend_bos": True}
    assert load(state(teacher, **stated)).metadata.warnings == []


def test_an_unknown_statement_is_named_and_the_line_is_bounded(teacher: Path) -> None:
    many = {f"new_statement_{i}": i for i in range(NAMED + 3)}
    found = load(state(teacher, top={"x" * 3000: 1}, **many)).metadata.warnings
    assert len(found) == 1
    assert "unknown" in found[0]
    assert "new_statement_0" in found[0]
    assert "and 4 more" in found[0]
    assert len(found[0]) < len(str(teacher)) + 100 + (NAMED + 1) * (LONGEST_NAME + 2)


def test_control_characters_of_a_key_are_spelled_out(tmp_path: Path) -> None:
    (line,) = warnings_of(tmp_path, "SAELens", {"\x1b[2Jnew\nkey": 1})
    assert "\x1b" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"exclude_special_tokens": [1, 2]}, "tokens of that list count here"),
        ({"use_chat_formatting": True}, "no chat template"),
        ({"model_kwargs": {"a": 1}}, "run without them"),
        ({"model_class_name": "HookedMamba"}, "may give other activations"),
        ({"model_class_name": ["HookedMamba"]}, "may give other activations"),
        ({KWARGS: {"load_in_8bit": True}}, "as its files have it"),
        ({KWARGS: {"a_new_argument": True}}, "a_new_argument"),
    ],
)
def test_values_that_are_not_followed_are_named(teacher: Path, stated: dict[str, Any], words: str) -> None:
    (found,) = load(state(teacher, **stated)).metadata.warnings
    assert words in found


@pytest.mark.parametrize("value", ["expected_average_only_in", "covariance_whitening", True])
def test_a_normalisation_without_its_numbers_is_named(tmp_path: Path, value: Any) -> None:
    folder = tiny_sae(tmp_path)
    name = (
        old(folder, normalize_activations=value)
        if value is True
        else state(folder, top={"normalize_activations": value})
    )
    sae = load(name)
    assert sae.normalisation == "none"
    assert any("its weights may expect" in one for one in sae.metadata.warnings)


def test_it_is_not_named_again_of_what_was_written_here(teacher: Path, tmp_path: Path) -> None:
    from rational_sae.formats.save import save

    save(load(state(teacher, top={"normalize_activations": "expected_average_only_in"})), tmp_path / "again")
    assert load(str(tmp_path / "again")).metadata.warnings == []


# Refusals


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"hook_head_index": 3}, "one attention head"),
        ({"hook_name": "blocks.1.hook_mlp_in", "hook_name_out": "blocks.1.hook_mlp_out"}, "transcoder"),
        ({"hook_names": ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"]}, "crosscoder"),
        ({"seqpos_slice": [0, 1, 2, 3]}, "seqpos_slice"),
        ({"seqpos_slice": "all"}, "seqpos_slice"),
        ({"seqpos_slice": [0, 9, 0]}, "seqpos_slice"),
        ({KWARGS: {CENTRING: "yes"}}, CENTRING),
        ({KWARGS: [1]}, KWARGS),
    ],
)
def test_statements_that_mean_something_else_are_refused(teacher: Path, stated: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError, match=words) as error:
        load(state(teacher, **stated))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"is_transcoder": True, "out_hook_point": "blocks.1.hook_mlp_out"}, "transcoder"),
        ({"hook_point_head_index": 2}, "one attention head"),
        ({"d_out": 2 * D_IN}, "transcoder"),
        ({"start_pos_offset": "3"}, "seqpos_slice"),
    ],
)
def test_old_statements_that_mean_something_else_are_refused(
    tmp_path: Path, stated: dict[str, Any], words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        load(old(tiny_sae(tmp_path), hook_point="blocks.1.hook_resid_pre", **stated))


def test_other_weights_of_the_model_need_it_to_be_named(teacher: Path) -> None:
    sae = load(
        state(
            teacher,
            model_name="EleutherAI/pythia-70m",
            hook_name="blocks.1.hook_resid_pre",
            **{KWARGS: {"revision": "step1000"}},
        )
    )
    with pytest.raises(SourceError, match=r"revision step1000.*--model"):
        Reading().resolved(sae)
    assert Reading(model="elsewhere").resolved(sae).model == "elsewhere"


def test_a_hook_elsewhere_is_refused_before_a_model_is_loaded(teacher: Path) -> None:
    sae = load(state(teacher, model_name="nobody/nothing", hook_name="blocks.3.attn.hook_pattern"))
    with pytest.raises(HostError, match="hook_pattern") as error:
        Reading().open(sae)
    assert "give the model" not in str(error.value)


# What is honoured


def test_a_fine_tuned_scaling_factor_is_folded(tmp_path: Path) -> None:
    folder = tiny_sae(tmp_path)
    tensors = load_file(folder / "sae_weights.safetensors")
    factor = torch.linspace(0.5, 2.0, D_SAE)
    save_file(tensors | {"scaling_factor": factor}, folder / "sae_weights.safetensors")
    x = torch.randn(50, D_IN, generator=torch.Generator().manual_seed(0))
    sae = load(old(folder, hook_name="blocks.1.hook_resid_pre", finetuning_scaling_factor=True))
    with torch.no_grad():
        z = torch.relu((x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"])
        assert torch.allclose(sae.encode(x), z, atol=1e-6)
        assert torch.allclose(sae(x), (z * factor) @ tensors["W_dec"] + tensors["b_dec"], atol=1e-5)
    with pytest.raises(SourceError, match="finetuning_scaling_factor"):
        load(old(folder, hook_name="blocks.1.hook_resid_pre"))


def test_a_hook_with_a_place_for_its_layer(tmp_path: Path) -> None:
    found = load(old(tiny_sae(tmp_path), hook_point="blocks.{layer}.hook_resid_pre", hook_point_layer=7)).metadata
    assert found.hook_name == "blocks.7.hook_resid_pre"
    assert found.warnings == []


@pytest.mark.parametrize(
    ("stated", "context", "wanted"),
    [
        ([None], 64, None),
        ([0, None], 64, None),
        ([10, 20], 64, (10, 20, 1)),
        ([-8, None], 64, (56, 64, 1)),
        ([None, -60], 32, (0, 4, 1)),
        ([1, None, 7], 64, (1, 64, 7)),
    ],
)
def test_positions_of_the_context_that_it_was_trained_on(
    teacher: Path, stated: list[Any], context: int, wanted: Any
) -> None:
    known = {"model_name": "m", "hook_name": "blocks.1.hook_resid_pre", "context_size": 64, "seqpos_slice": stated}
    assert Reading(context=context).resolved(load(state(teacher, **known))).positions == wanted


def test_old_offsets_are_positions(tmp_path: Path) -> None:
    folder = tiny_sae(tmp_path)
    assert load(old(folder, start_pos_offset=3, end_pos_offset=5)).metadata.seqpos_slice == (3, -5)
    assert load(old(folder, start_pos_offset=3, end_pos_offset=0)).metadata.seqpos_slice == (3, None)
    assert load(old(folder, start_pos_offset=0, end_pos_offset=0)).metadata.seqpos_slice is None


def test_positions_beyond_the_context_are_refused(teacher: Path) -> None:
    known = {
        "model_name": "m",
        "hook_name": "blocks.1.hook_resid_pre",
        "context_size": 1024,
        "seqpos_slice": [512, None],
    }
    sae = load(state(teacher, **known))
    with pytest.raises(SettingsError, match="--context 513"):
        Reading().resolved(sae)
    assert Reading(context=600).resolved(sae).positions == (512, 1024, 1)


# Every command alike, on a real tiny model


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    top = tmp_path_factory.mktemp("statements")
    model, text = save_tiny("gpt2", top / "gpt2"), save_tiny_text(top / "text.jsonl", 800)
    folder = save_tiny_teacher(top / "sae", model, text, hook="transformer.h.1")
    state(folder, seqpos_slice=[4, 12], a_new_statement=True)
    return {"sae": str(folder), "text": str(text)}


def test_only_the_stated_positions_count(job: dict[str, str]) -> None:
    reader = Reading(text=job["text"]).open(load(job["sae"]))
    batch = next(reader.tokeniser.batches(reader.text, "train", 10_000))
    assert batch.keep[:, 4:12].all()
    assert not batch.keep[:, :4].any()
    assert not batch.keep[:, 12:].any()


def test_every_command_says_the_same(job: dict[str, str], tmp_path: Path) -> None:
    small = ["--eval-tokens", "300"]
    commands = {
        "inspect": [job["sae"]],
        "inspect with a text": [job["sae"], "--text", job["text"]],
        "evaluate": [job["sae"], "--text", job["text"], *small],
        "headroom": [job["sae"], "--text", job["text"], *small],
        "export": [job["sae"], "--as", "safetensors", "--out", str(tmp_path / "plain")],
        "export as jumprelu": [
            job["sae"],
            "--as",
            "jumprelu",
            "--text",
            job["text"],
            "--out",
            str(tmp_path / "j"),
            *small,
        ],
        "upgrade": [
            job["sae"],
            "--text",
            job["text"],
            "--out",
            str(tmp_path / "up"),
            "--steps",
            "3",
            "--batch-tokens",
            "64",
            "--control",
            "none",
            *small,
        ],
    }
    (line,) = load(job["sae"]).metadata.warnings
    assert "a_new_statement" in line
    for name, options in commands.items():
        result = CliRunner().invoke(app, [name.split()[0], *options], env={"COLUMNS": "2000"})
        assert result.exit_code == 0, (name, result.output)
        assert line in result.output.replace("\n", " "), name
    report = json.loads((tmp_path / "up" / "report.json").read_text())
    assert line in report["warnings"]
    assert report["settings"]["positions"] == [4, 12, 1]


def test_evaluate_says_whose_statements_were_not_followed(job: dict[str, str], tmp_path: Path) -> None:
    from rational_sae.evaluation import evaluate

    other = tmp_path / "other"
    other.mkdir()
    for file in Path(job["sae"]).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    state(other, seqpos_slice=None, prepend_bos=True)
    found = evaluate([job["sae"], str(other)], Reading(text=job["text"]), eval_tokens=300).further["warnings"]
    assert any(str(other) in one and "positions" in one for one in found)
    assert any(str(other) in one and "prepend_bos" in one for one in found)
    json.dumps(found)


# Gemma Scope and dictionary_learning


def scope_2(folder: Path, **config: Any) -> None:
    gemma_scope("safetensors")(folder, Shape())
    stated = {"architecture": "jump_relu", "model_name": "google/gemma-3-270m-pt", "width": 37, "l0": 10, "type": "sae"}
    (folder / "config.json").write_text(json.dumps(stated | {"affine_connection": False} | config))


def test_an_sae_of_gemma_scope_2_goes_out_where_it_comes_in(tmp_path: Path) -> None:
    place = "model.layers.5.output"
    scope_2(tmp_path, hf_hook_point_in=place, hf_hook_point_out=place)
    (tmp_path / "examples.safetensors").symlink_to("/proc/self/mem")  # whose first bytes cannot be read
    sae = load(str(tmp_path))
    assert (sae.metadata.hook_name, sae.metadata.model_name) == ("model.layers.5", "google/gemma-3-270m-pt")
    assert sae.metadata.warnings == []


INTO, OUT = (f"model.layers.5.{side}_feedforward_layernorm.output" for side in ("pre", "post"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hf_hook_point_in": INTO, "hf_hook_point_out": OUT}, "type 'sae', but it reads"),
        ({"hf_hook_point_in": INTO, "hf_hook_point_out": INTO, "type": "transcoder"}, "type 'transcoder', but"),
        ({"hf_hook_point_in": INTO, "hf_hook_point_out": INTO, "type": "crosscoder"}, "type 'crosscoder' is not"),
        ({"hf_hook_point_in": INTO, "hf_hook_point_out": OUT, "type": "clt"}, "cross-layer"),
        ({"hf_hook_point_in": INTO, "hf_hook_point_out": OUT, "type": "transcoder", "affine_connection": True},
         "affine_connection is True, but the file lacks"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_or_has_several_places_is_refused(
    tmp_path: Path, config: dict[str, str], words: str
) -> None:
    scope_2(tmp_path, **config)
    with pytest.raises(SourceError, match=words):
        load(str(tmp_path))


def test_a_skip_connection_that_the_config_denies_is_refused(tmp_path: Path) -> None:
    gemma_scope_transcoder(skip=True)(tmp_path, Shape())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"affine_connection": False}))
    with pytest.raises(SourceError, match="affine_connection is False, but the file holds"):
        load(tmp_path)


def test_a_file_of_several_layers_is_refused(tmp_path: Path) -> None:
    gemma_scope_transcoder(skip=False)(tmp_path, Shape())
    path = tmp_path / "params.safetensors"
    kept = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(kept | {"w_dec": torch.zeros(37, 3, 15)}, path)
    with pytest.raises(SourceError, match="cross-layer"):
        load(tmp_path)


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_of_gemma_scope_2_says_its_places(tmp_path: Path, skip: bool) -> None:
    gemma_scope_transcoder(skip=skip)(tmp_path, Shape())
    sae = load(tmp_path)
    known = sae.metadata
    assert sae.transcodes
    assert (sae.W_skip is not None) == skip
    assert known.hook_name == "model.layers.8.pre_feedforward_layernorm.output"
    assert known.hook_name_out == "model.layers.8.post_feedforward_layernorm.output"
    assert (known.model_name, known.prepend_bos, known.warnings) == ("google/gemma-3-1b-pt", True, [])


def test_examples_are_not_fetched_as_weights() -> None:
    files = [f"resid_post/layer_5/{name}" for name in ("params.safetensors", "examples.safetensors", "config.json")]
    assert "resid_post/layer_5/examples.safetensors" not in wanted(
        files, "resid_post/layer_5", "google/gemma-scope-2-270m-pt"
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_release_for_the_chat_model_is_of_the_chat_model(cache: Path) -> None:
    """SAELens' table says gemma-2-9b for this release; its loader reads the model from the repository's name."""
    row = release.table()["gemma-scope-9b-it-res"]["saes"][0]
    gemma_scope("npz")(cached(cache, "google/gemma-scope-9b-it-res") / row["path"], Shape())
    found = load(f"saelens:gemma-scope-9b-it-res/{row['id']}").metadata
    assert found.model_name == "gemma-2-9b-it"
    assert found.hook_name == f"blocks.{row['id'].split('/')[0].removeprefix('layer_')}.hook_resid_post"
    assert load(f"hub:google/gemma-scope-9b-it-res/{row['path']}").metadata.model_name == "gemma-2-9b-it"


def test_what_saelens_saves_of_one_reads_the_same_place(tmp_path: Path) -> None:
    """Its hook_name is hook_mlp_in, in front of the norm; the module beside it is the owner's."""
    module = f"blocks.8.hook_mlp_in {INTO} blocks.8.hook_mlp_out {OUT}".replace("layers.5", "layers.8").split()
    config = sae_lens.saes.transcoder.JumpReLUTranscoderConfig(
        d_in=D_IN, d_out=D_IN, d_sae=D_SAE, apply_b_dec_to_input=False
    )
    theirs = sae_lens.saes.transcoder.JumpReLUTranscoder(config)
    keys = ("hook_name", "hf_hook_name", "hook_name_out", "hf_hook_name_out")
    for key, name in zip(keys, module, strict=True):
        setattr(theirs.cfg.metadata, key, name)
    theirs.save_model(tmp_path)
    known = load(tmp_path).metadata
    assert (known.hook_name, known.hook_name_out) == (module[1], "blocks.8.hook_mlp_out")
    assert known.warnings == []


@torch.no_grad()
def test_transcoders_of_gemma_2_are_told_by_their_repository(cache: Path) -> None:
    """Their files are those of SAEs, in the hub's cache and in a clone alike."""
    path = "layer_5/width_16k/average_l0_87"
    folder = cached(cache, "google/gemma-scope-2b-pt-transcoders") / path
    theirs = gemma_scope("npz")(folder, Shape())
    clone = cache.parent / "gemma-scope-2b-pt-transcoders" / path
    shutil.copytree(folder, clone)
    names = (f"hub:google/gemma-scope-2b-pt-transcoders/{path}", f"saelens:gemma-scope-2b-pt-transcoders/{path}")
    for name in (*names, clone):
        sae, x = load(name), batch(Shape())
        assert sae.transcodes
        assert sae.metadata.model_name == (None if name == clone else "gemma-2-2b")
        assert sae.metadata.hook_name == "blocks.5.ln2.hook_normalized"
        assert sae.metadata.hook_name_out == "blocks.5.hook_mlp_out"
        torch.testing.assert_close(sae(x), theirs.decode(theirs.encode(x), x), rtol=1e-5, atol=1e-4)


def test_transcoders_of_gemma_3_without_a_config_are_told_by_their_folder(cache: Path) -> None:
    path = "transcoder_all/layer_3_width_16k_l0_big"
    gemma_scope("safetensors")(cached(cache, "google/gemma-scope-2-1b-pt") / path, Shape())
    sae = load(f"hub:google/gemma-scope-2-1b-pt/{path}")
    assert sae.transcodes
    assert sae.metadata.model_name == "google/gemma-3-1b-pt"
    assert (sae.metadata.hook_name, sae.metadata.hook_name_out) == ("blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out")


def test_gemma_scope_2_without_a_config_is_named_by_its_folder(cache: Path) -> None:
    path = "resid_post/layer_5_width_16k_l0_small"
    gemma_scope("safetensors")(cached(cache, "google/gemma-scope-2-1b-pt") / path, Shape())
    found = load(f"hub:google/gemma-scope-2-1b-pt/{path}").metadata
    assert (found.model_name, found.hook_name) == ("google/gemma-3-1b-pt", "blocks.5.hook_resid_post")


@pytest.mark.parametrize(
    ("submodule", "buffer", "folder", "wanted"),
    [
        ("resid_post_layer_3", {}, "x", "blocks.3.hook_resid_post"),
        (None, {}, "x", "blocks.3.hook_resid_post"),
        ("resid_layer_3", {"io": "out"}, "x", "blocks.3.hook_resid_post"),
        ("resid_layer_3", {"io": "in"}, "x", "blocks.3.hook_resid_pre"),
        ("resid_layer_3", {}, "x", "resid_layer_3"),
        ("mlp_layer_3", {"io": "out"}, "x", "mlp_layer_3"),
        ("mlp_layer_3", {"io": "in"}, "x", "mlp_in_layer_3"),
        (None, {}, "mlp_out_layer3", "mlp_out_layer3"),
        (None, {}, "resid_out_layer3", "blocks.3.hook_resid_post"),
    ],
)
def test_where_dictionary_learning_reads(
    tmp_path: Path, submodule: str | None, buffer: dict[str, str], folder: str, wanted: str
) -> None:
    home = tmp_path / folder / "10_32768"
    home.mkdir(parents=True)
    W = torch.eye(8)
    torch.save(
        {"bias": torch.zeros(8), "encoder.weight": W, "encoder.bias": torch.zeros(8), "decoder.weight": W},
        home / "ae.pt",
    )
    trainer = {
        "dict_class": "AutoEncoder",
        "layer": 3,
        "lm_name": "m",
        "submodule_name": submodule,
        "trainer_class": "T",
    }
    (home / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": buffer | {"ctx_len": 128}}))
    found = load(str(home)).metadata
    assert found.hook_name == wanted
    assert found.warnings == []


@pytest.mark.parametrize("family", ["relu", "jumprelu", "topk"])
def test_the_demos_teachers_state_nothing_unknown(family: str) -> None:
    teachers = Path(__file__).parents[2] / "demo" / "teachers"
    assert load(str(teachers / family)).metadata.warnings == []
