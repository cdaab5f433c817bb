"""The activation cache: the same bits with it and without, whatever happens to its files and whoever else uses it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from dying import DiedError, run
from safetensors.torch import load_file, save_file
from tiny import TINY_WORDS, save_tiny_teacher, save_tiny_text

from rational_sae.data.activations import Reader
from rational_sae.data.cache import ActivationCache
from rational_sae.data.language_model import Host, load_host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.errors import HostError, OutputError
from rational_sae.support.locks import locked
from rational_sae.upgrading.settings import Settings

CONTEXT, TOKENS = 20, 1500
SHARD_BYTES = 8 * CONTEXT * 32 * 4
HOOK = "model.layers.1"


def reader_of(host: Host, text: Text, folder: Path | None, *, hook: str = HOOK, **tokeniser: Any) -> Reader:
    cache = None if folder is None else ActivationCache(folder, host, host.hook(hook))
    options = {"context": CONTEXT, **tokeniser}
    return Reader(host, host.hook(hook), text, Tokeniser(host.tokenizer, **options), cache=cache)


@pytest.fixture
def plain(tiny_hosts: dict[str, Host], tiny_text: Text) -> Reader:
    return reader_of(tiny_hosts["llama"], tiny_text, None)


def cached(plain: Reader, folder: Path, max_gb: float = 1.0) -> Reader:
    return replace(plain, digests={}, cache=ActivationCache(folder, plain.host, plain.hook, max_gb))


def harvest(reader: Reader, tokens: int = TOKENS) -> torch.Tensor:
    return torch.cat(list(reader.vectors("train", tokens, seed=0)))


def counts(reader: Reader) -> tuple[int, int]:
    """Hits, and forwards of the model."""
    assert reader.cache is not None
    return reader.cache.hits, reader.cache.misses


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("activations/*/*.safetensors"))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in shards(folder))


def test_the_second_pass_runs_no_forward_and_gives_the_same_bits(plain: Reader, tmp_path: Path) -> None:
    expected = harvest(plain)
    first, second = cached(plain, tmp_path), cached(plain, tmp_path)
    assert torch.equal(harvest(first), expected)
    hits, misses = counts(first)
    assert hits == 0
    assert misses == len(shards(tmp_path)) >= 8
    assert torch.equal(harvest(second), expected)
    assert counts(second) == (misses, 0)
    assert first.digests == second.digests == plain.digests
    assert {x.dtype for path in shards(tmp_path) for x in load_file(path).values()} == {torch.float32}


def test_every_part_of_the_key_is_told_apart(
    tiny_folders: dict[str, Path], tiny_text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def host(dtype: torch.dtype = torch.float32) -> Host:
        return load_host(str(tiny_folders["llama"]), dtype=dtype)

    def uncached_forwards(host: Host, text: Text = tiny_text, **options: Any) -> int:
        reader = reader_of(host, text, tmp_path, **options)
        assert torch.equal(harvest(reader), harvest(replace(reader, cache=None)))
        return counts(reader)[1]

    every = uncached_forwards(host())
    assert every > 0
    assert uncached_forwards(host()) == 0
    assert uncached_forwards(host(), hook="blocks.1.hook_resid_post") == 0  # the same place by another name
    assert uncached_forwards(host(), sink="keep") <= 1  # the last batch ends earlier
    other_weights = host()
    other_weights.model.model.layers[0].self_attn.q_proj.weight[0, 0] += 1e-3
    assert uncached_forwards(other_weights) == every
    other_config = host()
    other_config.model.config.rms_norm_eps *= 2
    assert uncached_forwards(other_config) == every
    assert uncached_forwards(host(), hook="model.layers.0") == every
    assert uncached_forwards(host(torch.bfloat16)) == every
    assert uncached_forwards(host(), context=CONTEXT - 1) > 0
    assert uncached_forwards(host(), bos=True) > 0
    other_text = Text("other", lambda: (f"{document} w0" for document in tiny_text.read()))
    assert uncached_forwards(host(), other_text) == every
    other_tokenizer = host()
    vocabulary = other_tokenizer.tokenizer.get_vocab()
    one, two = (vocabulary[word] for word in TINY_WORDS[:2])
    swap = {one: two, two: one}
    inner = other_tokenizer.tokenizer

    class Swapped:
        all_special_ids, pad_token_id, eos_token_id = inner.all_special_ids, inner.pad_token_id, inner.eos_token_id

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            found = inner(*args, **kwargs)
            found["input_ids"] = [swap.get(token, token) for token in found["input_ids"]]
            return found

    other_tokenizer.tokenizer = Swapped()
    assert uncached_forwards(other_tokenizer) > 0
    monkeypatch.setattr("torch.get_num_threads", lambda: 77)
    assert uncached_forwards(host()) == every


def test_a_model_in_bfloat16_is_kept_without_loss(
    tiny_folders: dict[str, Path], tiny_text: Text, tmp_path: Path
) -> None:
    host = load_host(str(tiny_folders["llama"]), dtype=torch.bfloat16)
    expected = harvest(reader_of(host, tiny_text, None))
    first, second = (reader_of(host, tiny_text, tmp_path) for _ in range(2))
    assert torch.equal(harvest(first), expected)
    assert torch.equal(harvest(second), expected)
    assert counts(second)[1] == 0
    assert {x.dtype for path in shards(tmp_path) for x in load_file(path).values()} == {torch.bfloat16}


def test_nothing_is_kept_in_float16(plain: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = cached(plain, tmp_path)
    residual = plain.host.residual
    monkeypatch.setattr(plain.host, "residual", lambda *args: residual(*args).half())
    harvest(reader)
    assert shards(tmp_path) == []


def test_nan_is_passed_on_and_not_kept(plain: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = harvest(plain)
    residual = plain.host.residual
    monkeypatch.setattr(plain.host, "residual", lambda *args: residual(*args) * torch.nan)
    assert bool(harvest(cached(plain, tmp_path)).isnan().all())
    monkeypatch.undo()
    again = cached(plain, tmp_path)
    assert torch.equal(harvest(again), expected)
    assert counts(again)[0] == 0


def test_a_partial_harvest_goes_on(plain: Reader, tmp_path: Path) -> None:
    assert len(list(islice(cached(plain, tmp_path).vectors("train", TOKENS, seed=0), 3))) == 3
    again = cached(plain, tmp_path)
    assert torch.equal(harvest(again), harvest(plain))
    hits, misses = counts(again)
    assert hits == 3
    assert hits + misses == len(shards(tmp_path))


def damage(path: Path, how: str, other: Path) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[-5] ^= 1
    elif how == "flipped in the header":
        content[content.index(b"sha256") + 12] ^= 1
    elif how == "cut":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    elif how == "not a shard":
        content[:] = b"\x80\x04K\x01."
    elif how == "no hash":
        return save_file({"x": load_file(path)["x"] + 1}, path)
    elif how == "another's":
        content[:] = other.read_bytes()
    path.write_bytes(content)


@pytest.mark.parametrize(
    "how", ["flipped", "flipped in the header", "cut", "empty", "not a shard", "no hash", "another's"]
)
def test_a_damaged_shard_is_noticed_and_harvested_again(plain: Reader, tmp_path: Path, how: str) -> None:
    expected = harvest(cached(plain, tmp_path))
    victim, other, *_ = shards(tmp_path)
    sound = victim.read_bytes()
    damage(victim, how, other)
    assert victim.read_bytes() != sound
    again = cached(plain, tmp_path)
    assert torch.equal(harvest(again), expected)
    assert counts(again)[1] == 1
    assert again.warnings() == ["1 damaged shards of the activation cache were harvested again"]
    assert victim.read_bytes() == sound


def test_the_size_limit_is_held_and_what_was_used_last_stays(plain: Reader, tmp_path: Path) -> None:
    expected = harvest(plain, 10**6)
    unlimited = cached(plain, tmp_path / "unlimited")
    harvest(unlimited, 10**6)
    limit = 30 * SHARD_BYTES
    assert size(tmp_path / "unlimited") > 2 * limit
    folder = tmp_path / "limited"
    foreign = folder / "activations" / "mine" / "notes.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("not a shard")
    reader = cached(plain, folder, limit / 1e9)
    batches = list(reader.tokeniser.batches(reader.text, "train", 10**6, seed=0))
    parts = []
    for batch in batches:
        parts.append(reader.at(batch))
        reader.at(batches[0])
        assert size(folder) <= limit
    assert torch.equal(torch.cat(parts), expected)
    assert counts(reader) == (len(batches), len(batches))  # the first batch, used all the time, never went
    assert len(shards(folder)) > 15
    assert foreign.exists()
    last = cached(plain, folder, limit / 1e9)
    last.at(batches[-1])
    last.at(batches[1])
    assert counts(last) == (1, 1)


def test_one_shard_larger_than_the_limit_is_not_kept(plain: Reader, tmp_path: Path) -> None:
    reader = cached(plain, tmp_path, SHARD_BYTES / 1e9)
    assert torch.equal(harvest(reader), harvest(plain))
    assert shards(tmp_path) == []


def test_what_a_killed_writer_left_is_cleared_but_not_a_living_ones(plain: Reader, tmp_path: Path) -> None:
    harvest(cached(plain, tmp_path))
    (first, second, *_) = shards(tmp_path)
    old, young = (path.with_name(f".{path.name}.123.tmp") for path in (first, second))
    old.write_bytes(b"part")
    young.write_bytes(b"part")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    first.unlink()
    harvest(cached(plain, tmp_path))
    assert not old.exists()
    assert young.exists()


def test_a_full_disk_ends_writing_and_not_the_job(
    plain: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    reader = cached(plain, tmp_path)
    monkeypatch.setattr("os.fsync", full)
    assert torch.equal(harvest(reader), harvest(plain))
    assert shards(tmp_path) == []
    assert reader.warnings() == ["the activation cache was not written to: No space left on device"]


def test_a_folder_that_cannot_be_made_is_refused(plain: Reader, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another --cache"):
        cached(plain, tmp_path / "file")


def test_a_model_with_code_of_its_own_is_refused(plain: Reader, tmp_path: Path) -> None:
    remote = type("Remote", (), {"__module__": "transformers_modules.somebody.model"})
    with pytest.raises(HostError, match="runs code of its own"):
        ActivationCache(tmp_path, replace(plain.host, model=remote()), plain.hook)


def test_eviction_by_another_process_keeps_nobody_waiting(plain: Reader, tmp_path: Path) -> None:
    (tmp_path / "activations").mkdir()
    with locked(tmp_path / "activations" / "lock", "it"):
        harvest(cached(plain, tmp_path))
    assert len(shards(tmp_path)) >= 8


WORKER = """
import hashlib, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from rational_sae.data.activations import Reader
from rational_sae.data.cache import ActivationCache
from rational_sae.data.language_model import load_host
from rational_sae.data.text import open_text
from rational_sae.data.tokens import Tokeniser
model, text, folder, max_gb, passes = sys.argv[1:]
host = load_host(model)
hook = host.hook("model.layers.1")
cache = ActivationCache(Path(folder), host, hook, float(max_gb)) if folder else None
reader = Reader(host, hook, open_text(text), Tokeniser(host.tokenizer, 20), cache=cache)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(passes)):
    x = torch.cat(list(reader.vectors("train", 10**6, seed=0)))
    print(hashlib.sha256(x.numpy().tobytes()).hexdigest(), flush=True)
print(cache.warnings() if cache else [], flush=True)
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate("go\n", timeout=120)
    assert process.returncode == 0
    return [line for line in out.splitlines() if line != "ready"]


@pytest.mark.slow
def test_processes_that_read_write_and_evict_at_once_and_one_that_is_killed(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    text, folder = save_tiny_text(tmp_path / "text.jsonl"), tmp_path / "cache"
    given = (tiny_folders["llama"], text)
    small = 20 * SHARD_BYTES / 1e9
    processes = [
        start(*given, "", 1, 1),
        *(start(*given, folder, gb, 2) for gb in (1, small)),
        start(*given, folder, 1, 99),
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        *others, victim = processes
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert victim.stdout is not None
        victim.stdout.readline()
        victim.send_signal(signal.SIGKILL)
        (plain, _), *found = [finish(process) for process in others]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert found == [[plain] * 2 + ["[]"]] * 2
    again = start(*given, folder, 1, 1)
    assert finish(again) == [plain, "[]"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_folders: dict[str, Path]) -> Settings:
    root = tmp_path_factory.mktemp("job")
    text = save_tiny_text(root / "text.jsonl")
    teacher = save_tiny_teacher(root / "teacher", tiny_folders["llama"], text)
    small = {"type": (3, 2), "steps": 12, "batch_tokens": 64, "train_tokens": 600, "eval_tokens": 256}
    return Settings.model_validate({"teacher": str(teacher), "text": str(text), "controls": ("native",), **small})


def result(out: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not re.match("report", name)}


def measured(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in ("rows", "differences", "data", "settings", "warnings")}


def test_an_upgrade_has_the_same_bits_with_the_cache_and_without_and_resumed_with_either(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cache = settings.model_copy(update={"cache": tmp_path / "cache"})
    expected = run(settings, tmp_path / "plain")
    reports = {"cold": run(with_cache, tmp_path / "cold")}
    forwards: list[torch.Tensor] = []
    residual = Host.residual
    monkeypatch.setattr(Host, "residual", lambda self, ids, hook: forwards.append(ids) or residual(self, ids, hook))
    reports["warm"] = run(with_cache, tmp_path / "warm")
    assert forwards == []
    for name, first, then in (("on", settings, with_cache), ("off", with_cache, settings)):
        with pytest.raises(DiedError):
            run(first, tmp_path / name, dies_at=6)
        reports[name] = run(then, tmp_path / name, resume=True)
    for name, report in reports.items():
        assert result(tmp_path / name) == result(tmp_path / "plain"), name
        assert measured(report) == measured(expected), name
    assert "cache" not in (tmp_path / "warm" / "settings.yaml").read_text()
