"""Residual streams kept on disk, so that a model reads the same sequences once, whatever is computed from them.

DIR/activations/MODEL/manifest.json and KEY.safetensors. A shard is the stream of one batch of sequences in the model's
own dtype, so a result is the same to the bit with the cache and without. MODEL is the hash of what decides the
forward: weights, config, hook, precision, device, versions. KEY is that of the token ids (they hold what text,
tokenizer, context and BOS do to the model) and of the number of threads, on which sums depend. So nothing stale can be
found: what differs has another name.

A shard is written aside and renamed, and holds a sha256 of its key and content: one that is damaged or out of place is
noticed when it is read, and made again. Processes may read and write at once, because two writers of one name write the
same; the lock is for eviction alone. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rational_sae.data.language_model import Hook, Host
from rational_sae.errors import HostError, OutputError
from rational_sae.kernels.products import onednn_gains
from rational_sae.support.digests import digest
from rational_sae.support.files import write_whole
from rational_sae.support.locks import locked

SCHEMA = 1
MAX_GB = 50.0
DTYPES = (torch.float32, torch.bfloat16)

LOOK_SHARE = 0.05
"""A process looks at the folder's size again after writing this share of the limit."""
FULL_SHARE = 0.9
"""Of the limit, after eviction: one writer then never exceeds it, and two at once hardly."""

SHARD = re.compile(r"[0-9a-f]{64}\.safetensors")
MODEL = re.compile(r"[0-9a-f]{32}")
PARTIAL = re.compile(r"\.[0-9a-f]{64}\.safetensors\.\d+\.tmp")
"""What a writer that was killed leaves behind."""
PARTIAL_SECONDS = 3600.0
"""After which nobody is still writing it."""


class ActivationCache:
    """Streams of one model at one hook, in a folder that other models and hooks may share."""

    def __init__(self, folder: Path, host: Host, hook: Hook, max_gb: float = MAX_GB) -> None:
        """max_gb: of the whole folder, in 1e9 bytes.

        Raises OutputError if the folder cannot be made, and HostError if the model runs code of its own, whose changes
        no hash here would show.
        """
        if type(host.model).__module__.startswith("transformers_modules"):
            raise HostError(f"activations of {host.name} cannot be cached: it runs code of its own", "omit --cache")
        self.host, self.hook, self.max_bytes = host, hook, max_gb * 1e9
        self.root = folder / "activations"
        self.hits = self.misses = self.damaged = 0
        self._broken = ""
        """Why nothing is written any more."""
        self._unseen = self.max_bytes
        """Bytes written since the folder's size was looked at; at first nobody knows."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self.root} ({error.strerror})", "choose another --cache") from error

    def stream(self, input_ids: Tensor) -> Tensor:
        """What `Host.residual` gives, read if it is there. input_ids: [batch, context] int64.

        Returns [batch, context, d_in] in the model's dtype, on its device.
        """
        key = self._key(input_ids)
        path = self._folder / f"{key}.safetensors"
        found = self._read(path, key)
        if found is not None:
            self.hits += 1
            return found.to(self.host.device)
        self.misses += 1
        found = self.host.residual(input_ids, self.hook)
        self._write(path, key, found)
        return found

    def warnings(self) -> list[str]:
        """What went wrong without harm to the result."""
        found = [f"the activation cache was not written to: {self._broken}"] if self._broken else []
        if self.damaged:
            found.append(f"{self.damaged} damaged shards of the activation cache were harvested again")
        return found

    @cached_property
    def _folder(self) -> Path:
        about = forward_identity(self.host, self.hook)
        folder = self.root / _sha256(about)[:32]
        if not (folder / "manifest.json").exists():
            with self._harmless():
                folder.mkdir(exist_ok=True)
                named = {"model": self.host.name, "hook": self.hook.name}
                write_whole(folder / "manifest.json", json.dumps(named | about, indent=1))
        return folder

    def _key(self, input_ids: Tensor) -> str:
        """Of a batch. The number of threads may change while the cache is open: resuming sets it."""
        threads = torch.get_num_threads() if self.host.device.type == "cpu" else 0
        return _sha256([digest(input_ids), threads])

    def _read(self, path: Path, key: str) -> Tensor | None:
        """A shard; None if there is none, or what is there is not what was written."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        x = _unpacked(content, key)
        if x is None:
            self.damaged += 1
            return None
        with contextlib.suppress(OSError):  # it may be evicted just now, or belong to somebody else
            os.utime(path)
        return x

    def _write(self, path: Path, key: str, x: Tensor) -> None:
        """Keep a shard if that can be done. NaN may come from a fault that passes, so it is not kept."""
        if self._broken or x.dtype not in DTYPES or not bool(x.isfinite().all()):
            return
        content = _packed(x, key)
        with self._harmless():
            if self._has_room(len(content)):
                write_whole(path, content)

    @contextlib.contextmanager
    def _harmless(self):
        """A cache that cannot be written is no failure: the job goes on without it."""
        try:
            yield
        except OSError as error:
            self._broken = error.strerror or type(error).__name__

    def _has_room(self, size: int) -> bool:
        """Whether `size` bytes may be written; what was not used for longest is evicted for them."""
        if size > FULL_SHARE * self.max_bytes:
            return False
        self._unseen += size
        if self._unseen > LOOK_SHARE * self.max_bytes:
            # If another process holds the lock, it is making room.
            with contextlib.suppress(OutputError), locked(self.root / "lock", str(self.root)):
                self._evict(FULL_SHARE * self.max_bytes - size)
            self._unseen = size
        return True

    def _evict(self, most: float) -> None:
        """Remove the shards that were not used for longest until they take `most` bytes. Other files are left alone."""
        shards: list[tuple[float, int, Path]] = []
        for path in self.root.glob("*/*"):
            if not MODEL.fullmatch(path.parent.name) or path.parent.is_symlink():
                continue
            with contextlib.suppress(OSError):  # gone meanwhile
                stat = path.stat()
                if SHARD.fullmatch(path.name):
                    shards.append((stat.st_mtime, stat.st_size, path))
                elif PARTIAL.fullmatch(path.name) and time.time() - stat.st_mtime > PARTIAL_SECONDS:
                    path.unlink()
        total = sum(size for _, size, _ in shards)
        for _, size, path in sorted(shards):
            if total <= most:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def forward_identity(host: Host, hook: Hook) -> dict[str, Any]:
    """Everything that decides the bits of a stream, beside the token ids and the number of threads.

    Names of models and revisions are not in it: the weights themselves are hashed.
    """
    from importlib.metadata import version

    config = host.model.config.to_dict()
    config.pop("_name_or_path", None)
    gpu = host.device.type == "cuda"
    return {
        "schema": SCHEMA,
        "weights": digest(host.model.state_dict()),
        "config": _sha256(config),
        "class": type(host.model).__qualname__,
        "attention": host.model.config._attn_implementation,
        "boundary": hook.boundary,
        **({} if hook.spot is None else {"spot": repr(hook.spot)}),
        **({} if hook.out is None else {"out": [hook.out.boundary, repr(hook.out.spot)]}),
        "precision": str(host.model.dtype).removeprefix("torch."),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "device": torch.cuda.get_device_name(host.device) if gpu else host.device.type,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        **({} if gpu or not onednn_gains() else {"products": "oneDNN"}),
    } | {package: version(package) for package in ("rational-sae", "torch", "transformers")}


def _packed(x: Tensor, key: str) -> bytes:
    x = x.detach().cpu().contiguous()
    return save({"x": x}, {"sha256": digest({key: x})})


def _unpacked(content: bytes, key: str) -> Tensor | None:
    """The tensor of a shard, or None unless it is the one that was written under this key."""
    try:
        x = load(content)["x"]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        stated = header["__metadata__"]["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    return x if x.dtype in DTYPES and digest({key: x}) == stated else None


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
