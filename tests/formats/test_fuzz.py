"""Damaged and hostile files: a typed error of one line, quickly and in bounded memory; never a silent wrong load.

Each case of `format_cases` is built once and damaged in memory. A damaged copy that still loads must hold exactly the
numbers of the original. Nothing in a file may run: the hostile pickles would leave a mark if they did.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pickle
import random
import resource
import shutil
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from format_cases import CASES, CONFIG_SUFFIXES, Case, Shape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rational_sae.errors import SourceError
from rational_sae.formats import containers, load
from rational_sae.sae.model import SAE

SECONDS = 5.0
EXAMPLES = 100
"""Damaged copies of each case: 33 kinds of SAE make 3 300."""

PER_CASE = [case for case in CASES if not case.kind.startswith("topk, rescaled")]


def same(one: SAE, other: SAE) -> bool:
    """Whether two SAEs compute the same, bit for bit."""
    flags = ("apply_b_dec_to_input", "normalisation")
    if type(one.gate) is not type(other.gate) or any(getattr(one, flag) != getattr(other, flag) for flag in flags):
        return False
    if getattr(one.gate, "k", None) != getattr(other.gate, "k", None):
        return False
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def refused_or_same(path: Path, original: SAE) -> bool:
    """Load, within the time allowed. True if it was refused; otherwise it must be the original."""
    started, message, found = time.process_time(), "", None
    try:
        found = load(str(path))
    except SourceError as error:
        message = str(error)
    assert time.process_time() - started < SECONDS
    assert "\n" not in message
    assert len(message) < 2000
    assert found is None or same(found, original), "a damaged file was loaded, with other numbers"
    return found is None


# Damage that any file may suffer. Each takes the bytes of a file and a source of choices.

Damage = Callable[[bytes, random.Random], bytes]


def truncated(content: bytes, choice: random.Random) -> bytes:
    return content[: choice.randrange(len(content))]


def flipped(content: bytes, choice: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(choice.randint(1, 4)):
        damaged[choice.randrange(len(damaged))] ^= 1 << choice.randrange(8)
    return bytes(damaged)


def overwritten(content: bytes, choice: random.Random) -> bytes:
    start = choice.randrange(len(content))
    length = choice.randint(1, 64)
    return content[:start] + choice.randbytes(length) + content[start + length :]


def cut_out(content: bytes, choice: random.Random) -> bytes:
    start = choice.randrange(len(content))
    return content[:start] + content[start + choice.randint(1, 200) :]


def doubled(content: bytes, choice: random.Random) -> bytes:
    return content + content[choice.randrange(len(content)) :]


def grown_header(content: bytes, choice: random.Random) -> bytes:
    """A length or a count that claims far more than there is."""
    place = choice.choice([0, 8, 18, 22, len(content) - 12, len(content) - 22])
    huge = struct.pack("<Q", choice.choice([2**31, 2**40, 2**63 - 1, 2**64 - 1]))
    return content[: max(0, place)] + huge + content[max(0, place) + 8 :]


BYTES: tuple[Damage, ...] = (truncated, flipped, overwritten, cut_out, doubled, grown_header)

# Damage to what the file says: tensors of the wrong shape, type and name, and NaN.


OPTIONAL = ("W_skip", "activation_function.threshold", "dataset_average_activation_norm.blocks.8.hook_resid_post")
"""Tensors of circuit-tracer's that nothing else says are there: without one it is another, sound transcoder. OpenMOSS'
norm is published without, too: then x is read as it is, with a warning."""


def wrong_tensor(named: dict[str, Any], choice: random.Random) -> dict[str, Any]:
    name = choice.choice([key for key, value in named.items() if isinstance(value, torch.Tensor)])
    tensor = named[name]
    bad = tensor.clone().float().reshape(-1)
    bad[choice.randrange(len(bad))] = choice.choice([float("nan"), float("inf"), float("-inf")])
    ways: list[Any] = [
        bad.reshape(tensor.shape) if name in OPTIONAL else None,
        bad.reshape(tensor.shape),
        tensor.to(torch.int32),
        tensor.to(torch.bool),
        tensor.float()[None],
        tensor.float().reshape(-1)[:-1],
        torch.cat([tensor.float().reshape(-1)] * 2),
        torch.zeros(0),
        torch.zeros(tensor.shape, dtype=torch.complex64),
    ]
    damaged = dict(named)
    damaged[name] = ways[choice.randrange(len(ways))]
    if damaged[name] is None:
        del damaged[name]
    elif choice.random() < 0.3:  # under another name as well, so that one is missing and one too many
        damaged[choice.choice(["extra", name + "_", "W_skip", "scaling_factor", "group_sizes"])] = damaged.pop(name)
    return damaged


def rewritten(name: str, content: bytes, folder: Path, choice: random.Random) -> None:
    """Write a file of weights with one tensor damaged."""
    path = folder / name
    path.write_bytes(content)
    opened = containers.open_tensors(path)
    named: dict[str, Any] = {key: opened.get(key).clone() for key in opened.shapes} | dict(opened.plain)
    container = opened.container
    del opened
    damaged = wrong_tensor(named, choice)
    path.unlink()
    if container == "npz":
        with path.open("wb") as file:
            np.savez(file, **{key: value.numpy() for key, value in damaged.items()})
    elif container == "torch":
        torch.save(damaged, path)
    else:
        save_file({key: value.contiguous() for key, value in damaged.items()}, path)


def odd_value(value: Any, choice: random.Random) -> Any:
    odd = (None, -1, 0, 2**70, 1e308, float("nan"), "", "x" * 5000, [], {}, [[]], True, "../../etc/passwd", "\x00")
    return choice.choice([other for other in odd if other != value])


def odd_config(content: bytes, choice: random.Random) -> bytes:
    """A config with one entry changed, gone, or of another type; or text that is no config. JSON is YAML, too."""
    config = yaml.safe_load(content)
    if choice.random() < 0.15:
        return choice.choice([b"[" * 100_000, b"{" * 1000, b"null", b"\xff\xfe", b'{"a": 1' + b"0" * 100_000 + b"}"])
    inside = config
    while inside and choice.random() < 0.6 and any(isinstance(value, dict) and value for value in inside.values()):
        inside = choice.choice([value for value in inside.values() if isinstance(value, dict) and value])
    key = choice.choice(sorted(inside))
    if choice.random() < 0.3:
        del inside[key]
    else:
        inside[key] = odd_value(inside[key], choice)
    return json.dumps(config).encode()


NOT_IN_THE_FORMULA = ("metadata", "buffer", "dtype", "device", "lm_name", "layer", "submodule_name", "trainer_class")
"""Entries of configs that can change without another formula meant."""


def safetensors_numbers(content: bytes) -> int:
    """Where the numbers of a safetensors file begin. They have no checksum, so a flip in them is what the file says."""
    return 8 + int.from_bytes(content[:8], "little")


@pytest.mark.parametrize("case", PER_CASE, ids=lambda case: f"{case.format}-{case.kind}".replace(" ", "_"))
def test_damaged_files_are_refused(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    case.make(folder, Shape(5, 9, 3))
    files, original = {path.name: path.read_bytes() for path in folder.iterdir()}, load(str(folder))
    refused = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.integers(0, 2**32 - 1), st.integers(0, 9))
    def damage(seed: int, way: int) -> None:
        choice = random.Random(seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        weights = next(name for name in files if not name.endswith(CONFIG_SUFFIXES))
        configs = [name for name in files if name.endswith(CONFIG_SUFFIXES)]
        another_formula = False
        if way < len(BYTES):
            content = files[weights]
            if weights.endswith(".safetensors"):
                start = safetensors_numbers(content)
                changed = BYTES[way](content[:start], choice) + (b"" if way == 0 else content[start:])
            else:
                changed = BYTES[way](content, choice)
            (folder / weights).write_bytes(changed)
        elif way < 8 or not configs:
            rewritten(weights, files[weights], folder, choice)
        else:
            name = choice.choice(configs)
            changed = odd_config(files[name], choice)
            (folder / name).write_bytes(changed)
            another_formula = names_another(files[name], changed)
        if another_formula:  # then the owner, too, may read it otherwise: only crashes are ruled out
            with contextlib.suppress(SourceError):
                load(str(folder))
            return
        refused.append(refused_or_same(folder, original))

    damage()
    assert sum(refused) >= 0.5 * len(refused)


def names_another(before: bytes, after: bytes) -> bool:
    """Whether a config differs from what it was in entries that choose the formula."""
    try:
        old, new = yaml.safe_load(before), yaml.safe_load(after)
    except (ValueError, RecursionError, yaml.YAMLError):
        return False
    return isinstance(new, dict) and _formula(old) != _formula(new)


def _formula(config: dict[str, Any]) -> dict[str, Any]:
    trainer = config.get("trainer")
    if isinstance(trainer, dict):
        config = config | {"trainer": _formula(trainer)}
    return {key: value for key, value in config.items() if key not in NOT_IN_THE_FORMULA}


# Hostile files


class Marks:
    """Unpickling an instance runs a command that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class Allocates:
    """Unpickling an instance takes 10 GB, by a call that torch.load(weights_only=True) allows."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**10,)


MEBI = 1 << 20


def torch_zip(path: Path, pickled: bytes, numbers: bytes = b"", method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", numbers)
        archive.writestr("archive/version", "3\n")


def tensors_pickle() -> bytes:
    """The pickle of a plain dictionary of tensors, as torch.save writes it."""
    file = io.BytesIO()
    torch.save({"W_enc": torch.zeros(4, 4)}, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


def npy(shape: tuple[int, ...], numbers: bytes, padding: int = 0) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode() + b" " * padding + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + numbers


def npz(path: Path, content: bytes, method: int = zipfile.ZIP_STORED, name: str = "W_enc.npy") -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
        archive.writestr("W_dec.npy", npy((2,), bytes(8)))


def objects(path: Path, mark: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, W_enc=np.array([Marks(mark)], dtype=object), W_dec=np.zeros(2))


def sparse_file(path: Path) -> None:
    """A header that fits, and a tebibyte of nothing."""
    entry = {"dtype": "F32", "shape": [2**19, 2**19], "data_offsets": [0, 2**40]}
    header = json.dumps({"W_enc": entry}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2**40)


def twice(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("W_enc.npy", npy((2,), bytes(8)))


HOSTILE: dict[str, Callable[[Path, Path], Any]] = {
    "code in a .pt": lambda path, mark: torch_zip(path, pickle.dumps(Marks(mark), 2)),
    "code in a .pt, protocol 4": lambda path, mark: torch_zip(path, pickle.dumps(Marks(mark), 4)),
    "code among tensors": lambda path, mark: torch.save({"W_enc": torch.zeros(2, 2), "run": Marks(mark)}, path),
    "a bare pickle": lambda path, mark: path.write_bytes(pickle.dumps(Marks(mark), 2)),
    "a bare pickle, protocol 0": lambda path, mark: path.write_bytes(pickle.dumps(Marks(mark), 0)),
    "code in an .npz": objects,
    "an allocation in a pickle": lambda path, _: torch_zip(path, pickle.dumps(Allocates(), 2)),
    "a packed .pt": lambda path, _: torch_zip(path, tensors_pickle(), bytes(200 * MEBI), zipfile.ZIP_DEFLATED),
    "a packed pickle": lambda path, _: torch_zip(path, bytes(200 * MEBI), b"", zipfile.ZIP_DEFLATED),
    "a large pickle": lambda path, _: torch_zip(path, tensors_pickle() + bytes(17 * MEBI)),
    "a packed .npz": lambda path, _: npz(path, npy((50 * MEBI,), bytes(200 * MEBI)), zipfile.ZIP_DEFLATED),
    "an .npz that claims more": lambda path, _: npz(path, npy((10**9, 10**9), bytes(64))),
    "an .npz with a negative shape": lambda path, _: npz(path, npy((-1, -4), bytes(16))),
    "an .npz with a huge header": lambda path, _: npz(path, npy((2,), bytes(8), padding=20 * MEBI)),
    "an .npz of nowhere": lambda path, _: npz(path, npy((2,), bytes(8)), name="../../evil.npy"),
    "two members of one name": lambda path, _: twice(path),
    "a tensor larger than its numbers": lambda path, _: torch.save(
        {"W_enc": torch.zeros(1).expand(10**6, 10**6), "W_dec": torch.zeros(1), "threshold": torch.zeros(1)}, path
    ),
    "a sparse tensor": lambda path, _: torch.save({"W_enc": torch.eye(3).to_sparse()}, path),
    "a list": lambda path, _: torch.save([torch.zeros(2)], path),
    "a header of 2^60 bytes": lambda path, _: path.write_bytes(struct.pack("<Q", 2**60) + b"{" + bytes(100)),
    "a header of 20 MiB": lambda path, _: path.write_bytes(
        struct.pack("<Q", 20 * MEBI) + b"{" + b" " * (20 * MEBI - 2) + b"}"
    ),
    "a tebibyte of nothing": lambda path, _: sparse_file(path),
    "an empty zip": lambda path, _: zipfile.ZipFile(path, "w").close(),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a folder of that name": lambda path, _: path.mkdir(),
}


@pytest.mark.parametrize("named", [True, False], ids=["file", "folder"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, kind: str, named: bool) -> None:
    folder, mark = tmp_path / "sae", tmp_path / "mark"
    folder.mkdir()
    HOSTILE[kind](folder / "ae.pt", mark)
    inside = sorted(tmp_path.rglob("*"))
    gc.collect()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(SourceError) as caught:
        load(str(folder / "ae.pt" if named else folder))
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB
    assert "\n" not in str(caught.value)
    assert not mark.exists(), "code in the file ran"
    assert sorted(tmp_path.rglob("*")) == inside


def test_the_marks_would_show(tmp_path: Path) -> None:
    """The hostile pickles do run when they are unpickled: the tests above can fail."""
    pickle.loads(pickle.dumps(Marks(tmp_path / "mark"), 2))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "name",
    ["", "nowhere", "a\0b", "x" * 5000, "/dev/zero", "~nobody-by-this-name/sae", "hub:", "hub:one", "hub:a/../b",
     "hub:a/b/../../c", "hub:a/b//c", "hub:a b/c", "saelens:", "saelens:nowhere/x", "saelens:gpt2-small-res-jb/x"],
)  # fmt: skip
def test_names_that_are_no_sae_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        load(name)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
