"""Files whose sizes do not fit together, with sound checksums: the same numbers, or a refusal."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from rational_sae.errors import SourceError
from rational_sae.formats import containers, load

EXAMPLES = 300


def tensors() -> dict[str, Tensor]:
    """Of several types, two of them views of the same numbers, one with strides of its own, one a single number."""
    numbers = torch.Generator().manual_seed(0)
    wide = torch.randn(6, 10, generator=numbers)
    return {
        "wide": wide,
        "part": wide[2:4, 1:9:2],
        "turned": torch.randn(5, 3, generator=numbers).T,
        "half": torch.randn(33, generator=numbers).bfloat16(),
        "k": torch.tensor(7),
    }


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, parts: dict[str, bytes]) -> None:
    """Members as they are given, each with its right size and checksum."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def resized(content: bytes, choice: random.Random) -> bytes:
    size = choice.choice([0, 1, len(content) - 4, len(content) - 1, len(content) + 1, choice.randrange(2000)])
    return content[: max(0, size)] + choice.randbytes(max(0, size - len(content)))


def other_numbers(content: bytes, choice: random.Random) -> bytes:
    """One of the small integers of a pickle changed: a count of numbers, an offset, a length or a stride."""
    places = [at for at in range(len(content) - 1) if content[at : at + 1] == b"K"]
    damaged = bytearray(content)
    damaged[choice.choice(places) + 1] = choice.choice([0, 1, 2, 59, 61, 120, 255, choice.randrange(256)])
    return bytes(damaged)


def loaded(path: Path) -> dict[str, Tensor] | None:
    message = ""
    try:
        opened = containers.open_tensors(path)
        return {name: opened.get(name).clone() for name in opened.shapes}
    except SourceError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 2000
    return None


def tried(path: Path, damage: Any) -> int:
    """How many of the damaged files were refused; the others must give the same numbers."""
    expected = tensors()
    refused = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.integers(0, 2**32 - 1))
    def one(seed: int) -> None:
        path.unlink(missing_ok=True)
        damage(random.Random(seed))
        found = loaded(path)
        refused.append(found is None)
        if found is not None:
            assert found.keys() == expected.keys()
            # A pickle may say another shape or place inside its own numbers: then it is those numbers.
            own = {round(float(value), 6) for tensor in expected.values() for value in tensor.flatten()}
            for name, tensor in found.items():
                assert {round(float(value), 6) for value in tensor.flatten()} <= own, f"{name} holds foreign numbers"

    one()
    return sum(refused)


def test_members_of_another_size_than_the_pickle_says_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ae.pt"
    torch.save(tensors(), path)
    sound = members(path.read_bytes())
    names = [name for name in sound if "/data/" in name]
    assert len(names) == 4

    def damage(choice: random.Random) -> None:
        name = choice.choice(names)
        zipped(path, sound | {name: resized(sound[name], choice)})

    assert tried(path, damage) >= 0.9 * EXAMPLES


def test_a_pickle_that_says_other_sizes_gives_no_foreign_numbers(tmp_path: Path) -> None:
    path = tmp_path / "ae.pt"
    torch.save(tensors(), path)
    sound = members(path.read_bytes())
    name = next(name for name in sound if name.endswith("data.pkl"))
    assert tried(path, lambda choice: zipped(path, sound | {name: other_numbers(sound[name], choice)})) > 0


def test_members_of_an_npz_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    with path.open("wb") as file:
        np.savez(file, **{name: tensor.float().numpy() for name, tensor in tensors().items()})  # type: ignore[arg-type]
    sound = members(path.read_bytes())

    def damage(choice: random.Random) -> None:
        name = choice.choice(sorted(sound))
        zipped(path, sound | {name: resized(sound[name], choice)})

    assert tried(path, damage) >= 0.9 * EXAMPLES


def test_a_safetensors_header_of_other_offsets_or_shapes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sae.safetensors"
    content = save({name: tensor.contiguous() for name, tensor in tensors().items()})
    (length,) = struct.unpack("<Q", content[:8])
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]

    def damage(choice: random.Random) -> None:
        changed = json.loads(json.dumps(header))
        entry = changed[choice.choice(sorted(changed))]
        if choice.random() < 0.5 and entry["shape"]:
            entry["shape"][choice.randrange(len(entry["shape"]))] += choice.choice([-1, 1, 2**40, 2**62])
        else:
            entry["data_offsets"][choice.randrange(2)] += choice.choice([-4, 4, 1, -1, 2**40])
        written = json.dumps(changed).encode()
        path.write_bytes(struct.pack("<Q", len(written)) + written + numbers)

    assert tried(path, damage) == EXAMPLES


def test_a_short_member_once_gave_the_neighbours_bytes(tmp_path: Path) -> None:
    """What torch.load does with such a file, so that the refusal above is of something real."""
    path = tmp_path / "ae.pt"
    torch.save(tensors(), path)
    sound = members(path.read_bytes())
    name = next(name for name in sound if name.endswith("data/0"))
    zipped(path, sound | {name: sound[name][:-40]})
    given = torch.load(path, weights_only=True, mmap=True)["wide"]
    assert not torch.equal(given, tensors()["wide"])
    with pytest.raises(SourceError, match="it says 240 bytes and holds 200 bytes"):
        load(str(path))


# Pickles that hide from the check which numbers they refer to


def reference(key: str, count: int, middle: bytes = b"") -> bytes:
    text = lambda word: b"X" + struct.pack("<I", len(word)) + word.encode()  # noqa: E731
    return (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text(key)
        + text("cpu")
        + b"J"
        + struct.pack("<i", count)
        + middle
        + b"tQ"
    )


def tensor_pickle(number: bytes) -> bytes:
    """{"W_enc": a tensor of 16 numbers}"""
    body = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + number + b"K\x00K\x10\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02}X\x05\x00\x00\x00W_enc" + body + b"s."


@pytest.mark.parametrize(
    "number",
    [
        reference("0", 16),
        b"(K\x01tq\x05" + b"0" + reference("0", 2, b"0h\x05"),  # a tuple from the memo in place of the last part
        reference("0", 2, b"0J\x10\x00\x00\x00"),  # the count taken back and said again
        reference("0", 2, b"q\x07h\x07000J\x10\x00\x00\x00"),
    ],
    ids=["too few", "memo", "again", "popped"],
)
def test_a_pickle_cannot_say_two_sizes(tmp_path: Path, number: bytes) -> None:
    parts = {"a/data.pkl": tensor_pickle(number), "a/byteorder": b"little", "a/data/0": bytes(8), "a/version": b"3\n"}
    zipped(tmp_path / "ae.pt", parts)
    with pytest.raises(SourceError, match=r"of numbers '0' it says 64|does not refer to numbers"):
        containers.open_tensors(tmp_path / "ae.pt")


def test_the_plain_reference_is_read(tmp_path: Path) -> None:
    """The pickles above are refused for their sizes alone."""
    parts = {"a/data.pkl": tensor_pickle(reference("0", 16)), "a/byteorder": b"little", "a/data/0": bytes(64)}
    zipped(tmp_path / "ae.pt", parts | {"a/version": b"3\n"})
    assert containers.open_tensors(tmp_path / "ae.pt").shapes == {"W_enc": (16,)}


def test_members_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = {"a/data.pkl": tensor_pickle(reference("0", 16)), "a/DATA/0": b"\x01" * 64, "a/data/0": bytes(64)}
        zipped(tmp_path / "ae.pt", parts | {"a/version": b"3\n"})
    with pytest.raises(SourceError, match="two members of one name"):
        containers.open_tensors(tmp_path / "ae.pt")


def test_every_kind_of_dictionary_that_torch_saves_is_still_read(tmp_path: Path) -> None:
    shared = torch.randn(40, generator=torch.Generator().manual_seed(1))
    given = OrderedDict(
        a=shared, b=shared[3:9], c=torch.nn.Parameter(shared.clone()), d=torch.zeros(0), e=torch.zeros(300, 300).half()
    )
    given |= {f"n{i}": torch.full((2,), float(i)) for i in range(300)}  # more than one byte of memo
    given |= {dtype: torch.ones(3).to(getattr(torch, dtype)) for dtype in ("int8", "uint8", "int16", "int32", "bool")}
    torch.save(given, tmp_path / "ae.pt")
    opened = containers.open_tensors(tmp_path / "ae.pt")
    assert all(torch.equal(opened.get(name), tensor) for name, tensor in given.items())
    torch.save({f"n{i}": torch.zeros(1) for i in range(3)}, tmp_path / "other.pt")
    assert len(containers.open_tensors(tmp_path / "other.pt").shapes) == 3


def test_a_header_with_a_shape_of_300_000_characters_gives_a_short_message(tmp_path: Path) -> None:
    """The head and the tail of what is quoted stay."""
    shape = [1] * 100_000
    entries = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [4 * i, 4 * i + 4]}
        for i, name in enumerate(("W_enc", "b_enc", "W_dec", "b_dec"))
    }
    header = json.dumps(entries).encode()
    path = tmp_path / "sae_weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    (tmp_path / "cfg.json").write_text('{"architecture": "standard", "metadata": {"sae_lens_version": "6.20.0"}}')
    with pytest.raises(SourceError) as caught:
        load(str(tmp_path))
    assert len(str(caught.value)) < 2000
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("expected 2 dimensions; check the file")
