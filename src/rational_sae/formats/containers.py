"""Files of tensors, opened without trusting them: safetensors, NumPy's .npz and PyTorch's .pt.

What a file is, its first bytes say; its name does not count. Nothing in a file is ever executed. What a header claims
is checked against the size of the file, and the whole against the memory there is, before anything is allocated.
"""

from __future__ import annotations

import math
import os
import pickletools
import stat
import struct
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import psutil
import torch
from safetensors import safe_open
from torch import Tensor

from rational_sae.errors import SourceError

ZIP_MAGIC = b"PK\x03\x04"

MAX_HEADER = 16 << 20
"""Bytes of a header, a pickle or a JSON file. Those of SAEs take kilobytes."""

MAX_EXPANSION = 8
"""Unpacked over packed size of an .npz. Trained float32 weights give 1.1, bfloat16 numbers kept as float32 about 2."""

BYTES_A_NUMBER = 12
"""Memory that loading takes for each number: float32, as read, as kept, and once in between."""

PLAIN = (str, bool, int, float)
"""Python values that are read from a .pt, beside tensors and dictionaries of them."""

STORAGES = {
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch DoubleStorage": 8,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
}
"""What a pickle calls the numbers of a tensor, and the bytes of one number."""

HARMLESS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", *STORAGES}
)
"""What the pickle of a dictionary of tensors names. torch.load(weights_only=True) allows more, some of which can
allocate any amount (bytearray)."""


@dataclass(frozen=True)
class Contents:
    """An open file of tensors. Nothing is in memory yet."""

    path: Path
    container: str
    """safetensors, npz or torch."""
    shapes: Mapping[str, tuple[int, ...]]
    get: Callable[[str], Tensor]
    """The tensor of a name in `shapes`, in its own dtype. Raises SourceError if the file is damaged."""
    plain: Mapping[str, Any] = field(default_factory=dict)
    """What a .pt holds beside tensors: text, numbers, and dictionaries of those."""


def looks_like_tensors(path: Path) -> bool:
    """Whether the first bytes of a file are those of a container that is read here."""
    try:
        start, _ = _start(path)
    except SourceError:
        return False
    return start.startswith(ZIP_MAGIC) or _is_safetensors(start)


def open_tensors(path: Path) -> Contents:
    """The tensors of a file. Raises SourceError if it is missing, damaged, unsafe, or larger than memory."""
    start, size = _start(path)
    if start.startswith(ZIP_MAGIC):
        contents = _guarded(path, "truncated or not a zip archive", lambda: _zip(path, size))
    elif _is_safetensors(start):  # before pickles: a header of 128, 384, … bytes begins as they do
        contents = _guarded(path, "truncated or not safetensors", lambda: _safetensors(path, size))
    elif start.startswith(b"\x80"):
        raise SourceError(
            f"{path}: a bare pickle, which can run code when it is loaded",
            "save it again with torch.save of PyTorch 1.6 or newer, or as safetensors",
        )
    else:
        raise SourceError(
            f"{path}: truncated, or not the weights of an SAE (neither safetensors, .npz nor .pt)",
            "download it again, or name the file that holds the weights",
        )
    _check_memory(contents)
    return contents


def _start(path: Path) -> tuple[bytes, int]:
    """The first bytes of a file, and its size."""
    with _opened(path) as file:
        try:
            return file.read(9), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path}: cannot be read ({one_line(error)})", "check the file and the disk")


def _opened(path: Path) -> IO[bytes]:
    """A regular file, open for reading; never a pipe or a device, on which reading may not end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SourceError(f"{path}: not a file", "name a file or a folder that holds an SAE")
        return open(path, "rb")
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file", "check the path") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """All of a small file, such as a config. Raises SourceError if it is missing or larger than MAX_HEADER."""
    with _opened(path) as file:
        try:
            content = file.read(MAX_HEADER + 1)
        except OSError as error:
            raise _unreadable(path, error) from error
    if len(content) > MAX_HEADER:
        raise SourceError(f"{path}: larger than {MAX_HEADER >> 20} MiB, so it is no config", "check the file")
    return content


def one_line(error: BaseException) -> str:
    """What an error of somebody else's says, on one line of bounded length."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _guarded(path: Path, state: str, read: Callable[[], Any]) -> Any:
    """Run a reader of somebody else's. What a damaged file makes it raise is nowhere listed, so all is caught."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except SourceError:
        raise
    except (Exception, MemoryError) as error:
        raise SourceError(f"{path}: {state} ({one_line(error)})", "download it again") from error


def _check_memory(contents: Contents) -> None:
    needed = BYTES_A_NUMBER * sum(math.prod(shape) for shape in contents.shapes.values())
    free = psutil.virtual_memory().available
    if needed > free:
        raise SourceError(
            f"{contents.path}: needs {needed / 2**30:.0f} GiB of memory, {free / 2**30:.0f} GiB are free",
            "use a machine with more memory",
        )


# safetensors: 8 bytes with the length of the header, the header in JSON, the numbers


def _is_safetensors(start: bytes) -> bool:
    return len(start) == 9 and start[8:] == b"{"


def _safetensors(path: Path, size: int) -> Contents:
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size, MAX_HEADER):
        raise SourceError(f"{path}: truncated or damaged (a header of {length} bytes)", "download it again")
    with safe_open(path, framework="pt", device="cpu") as file:
        # The library has checked by now that the tensors fill the file exactly.
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping

    def get(name: str) -> Tensor:
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.get_tensor(name)

    return Contents(
        path, "safetensors", shapes, lambda name: _guarded(path, "truncated or not safetensors", lambda: get(name))
    )


def _zip(path: Path, size: int) -> Contents:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len({name.casefold() for name in names}) != len(names):  # PyTorch's reader of zips knows no case
            raise SourceError(f"{path}: damaged (two members of one name)", "download it again")
        unpacked = sum(member.file_size for member in members)
        if all(name.endswith(".npy") for name in names):
            if unpacked > MAX_EXPANSION * size:
                raise SourceError(f"{path}: unpacks to {unpacked / size:.0f} times its size", "do not use it")
            return _npz(path, archive)
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1 or any(name.endswith("constants.pkl") for name in names):
            raise SourceError(f"{path}: a zip archive, but no .npz and no .pt with tensors", "name the file of weights")
        # torch.save stores members as they are; only a bomb has packed or overlapping ones.
        if unpacked > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise SourceError(f"{path}: unpacks to more than its size", "do not use it")
        pickled = _check_pickle(path, archive, pickles[0])
        _check_storages(path, archive, pickles[0].removesuffix("data.pkl"), pickled)
        # torch.load does not look at the checksums; reading a member to its end does.
        damaged = archive.testzip()
    if damaged is not None:
        raise SourceError(f"{path}: damaged (the checksum of {damaged} differs)", "download it again")
    return _torch(path)


# .npz: a zip of .npy, each a header in Python's literal syntax and the numbers


def _npz(path: Path, archive: zipfile.ZipFile) -> Contents:
    shapes = {member.filename[: -len(".npy")]: _npy_shape(path, archive, member) for member in archive.infolist()}

    def get(name: str) -> Tensor:
        with zipfile.ZipFile(path) as again, again.open(f"{name}.npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):  # reading to the end is what checks the checksum
                raise ValueError("numbers follow the array")
        # PyTorch knows no byte order but the machine's own.
        return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))

    return Contents(path, "npz", shapes, lambda name: _guarded(path, f"{name} is damaged", lambda: get(name)))


def _npy_shape(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        header = file.tell()
    if dtype.kind not in "fiu":
        raise SourceError(f"{path}: {member.filename} holds {dtype}, not numbers", "download it again")
    if min(shape, default=0) < 0 or header + math.prod(shape) * dtype.itemsize != member.file_size:
        raise SourceError(f"{path}: {member.filename} has not the size its header claims", "download it again")
    return shape


# .pt: a zip with a pickle that says how to put tensors together, and one member for each one's numbers


def _check_pickle(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """The pickle, or a refusal if it names anything but tensors, before it is given to an unpickler."""
    if archive.getinfo(name).file_size > MAX_HEADER:
        raise SourceError(f"{path}: a pickle of more than {MAX_HEADER >> 20} MiB", "do not use it")
    pickled = archive.read(name)
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and argument in HARMLESS:
            continue
        if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            called = str(argument or "something that is not a tensor").replace(" ", ".")[:80]
            raise SourceError(
                f"{path}: its pickle asks for {called}, which can run code, so it was not loaded",
                "take the SAE from a source you trust, as a plain dictionary of tensors",
            )
    return pickled


def _check_storages(path: Path, archive: zipfile.ZipFile, folder: str, pickled: bytes) -> None:
    """Refuse a file whose members of numbers are not as long as its pickle says.

    torch.load maps so many bytes from where a member begins, however long it is: those of its neighbours, too.
    """
    if not archive.namelist()[0].startswith(folder):  # from whose name torch.load takes the folder of all members
        raise SourceError(f"{path}: damaged (members of several folders)", "download it again")
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    for key, claimed in _storages(path, pickled):
        stored = sizes.get(f"{folder}data/{key}")
        if stored != claimed:
            found = "nothing" if stored is None else f"{stored} bytes"
            raise SourceError(
                f"{path}: damaged (of numbers {key!r} it says {claimed} bytes and holds {found})", "download it again"
            )


def _storages(path: Path, pickled: bytes) -> Iterator[tuple[str, int]]:
    """Key and bytes of all numbers that a pickle refers to.

    torch.save does so in one way: a tuple ("storage", class, key, device, count of numbers), each part spelled out or
    taken from the memo. A pickle that does it in another way is refused.
    """
    memo: dict[int, tuple[str, Any]] = {}
    recent = deque([_OTHER] * 7, maxlen=7)
    """What the latest instructions did."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            did, value = recent[-1]
            # Only what is known whatever else is on the stack.
            memo[cast(int, argument)] = (did, value) if did in ("literal", "class") else _OTHER
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            recent.append(memo.get(cast(int, argument), _OTHER))
        elif opcode.name == "BINPERSID":
            done, said = zip(*recent, strict=True)
            _, word, kind, key, device, count, _ = said
            usual = done == ("MARK", "literal", "class", "literal", "literal", "literal", "TUPLE")
            known = word == "storage" and kind in STORAGES and isinstance(device, str)
            if not (usual and known and isinstance(key, str) and isinstance(count, int)):
                raise SourceError(f"{path}: its pickle does not refer to numbers as torch.save does", "save it again")
            recent.append(_OTHER)
            yield key, count * STORAGES[kind]
        elif opcode.name == "GLOBAL":
            recent.append(("class", argument))
        elif opcode.name in ("MARK", "TUPLE"):
            recent.append((opcode.name, None))
        else:
            recent.append(("literal", argument) if opcode.name in LITERALS else _OTHER)


_OTHER: tuple[str, Any] = ("", None)
"""An instruction that has no part in a reference to numbers."""

LITERALS = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1")
"""Instructions that put text or an integer on the stack."""


def _torch(path: Path) -> Contents:
    # Mapped, not read: numbers stay in the file until they are used.
    loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise SourceError(f"{path}: holds a {type(loaded).__name__}, no dictionary of tensors", "save its state_dict")
    tensors = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    plain = {key: value for key, value in loaded.items() if key not in tensors}
    for key, value in plain.items():
        parts = value.values() if isinstance(value, dict) else [value]
        if not all(part is None or isinstance(part, PLAIN) for part in parts):
            raise SourceError(f"{path}: {key} is neither a tensor, text nor a number", "save its state_dict")
    for key, tensor in tensors.items():
        dense = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        if not dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise SourceError(f"{path}: {key} is larger than what is stored of it, or not dense", "do not use it")
    return Contents(
        path, "torch", {key: tuple(tensor.shape) for key, tensor in tensors.items()}, tensors.__getitem__, plain
    )
