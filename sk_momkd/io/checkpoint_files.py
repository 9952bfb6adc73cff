"""Checkpoints in a folder: one process at a time, each file whole or absent, damage noticed.

The folder of one fit holds ``fit.json``, which describes what is fitted, and for each network that
is trained its newest checkpoints ``<name>.epoch<number>.<SHA-256>.safetensors``, or what it ended
with, ``<name>.finished.<SHA-256>.safetensors``. The sum in the name is that of the content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ..exceptions import CheckpointError, ModelFileError
from ..messages import first_few, warn
from .atomic import atomic_write, sweep_parts
from .read_errors import PARSER_ERRORS
from .values import ValueReader, ValueWriter

FORMAT_VERSION = 1
_FIT, _LOCK = "fit.json", "lock"
_FILE = re.compile(r"(?P<name>[a-z0-9_-]+)\.(?P<state>epoch\d{6}|finished)\.(?P<sum>[0-9a-f]{64})")
_SUFFIX = ".safetensors"
_FINISHED = "finished"
_KEPT = 2  # checkpoints of a network in training: the newest, and the one before it
_DAMAGE: tuple[type[Exception], ...] = (*PARSER_ERRORS, RecursionError, SafetensorError)
_TYPES = {  # of tensors that NumPy does not have
    torch.bfloat16: torch.int16,
}


class StateWriter(ValueWriter):
    """Encodes plain values, arrays and tensors."""

    def encode_object(self, value: Any, name: str) -> Any:
        """JSON of a tensor, whose numbers become an array."""
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise ModelFileError(f"{name} is a {kind}, which a checkpoint cannot hold.")
        numbers = value.detach().cpu()
        numbers = numbers.view(_TYPES.get(numbers.dtype, numbers.dtype))
        stored = self.encode(numbers.numpy(), name)
        return {"tensor": [str(value.dtype), str(value.device), stored]}


class _DryRun(StateWriter):
    """Looks at types alone: a tensor is neither copied nor moved."""

    def encode_object(self, value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.detach().new_empty(0, device="cpu")
        return super().encode_object(value, name)

    def _array(self, value: np.ndarray, name: str) -> Any:
        return super()._array(value if value.dtype == object else np.empty(0, value.dtype), name)


class StateReader(ValueReader):
    """Decodes what a `StateWriter` encoded; tensors are on the device that they were on."""

    def decode_object(self, kind: str, stored: Any) -> Any:
        """A tensor."""
        if kind != "tensor":
            raise ModelFileError(f"it holds a {kind!r:.100}.")
        dtype, device, numbers = stored
        tensor = torch.from_numpy(self.decode(numbers))
        return tensor.view(getattr(torch, dtype.removeprefix("torch."))).to(device)


def can_be_stored(value: Any) -> bool:
    """Whether a checkpoint can hold a value: numbers, text, containers, arrays and tensors."""
    try:
        _DryRun().encode(value, "value")
    except (ModelFileError, TypeError, RecursionError):
        return False
    return True


class CheckpointFiles:
    """Checkpoints of one network in the folder of a fit, which this process has locked.

    Parameters
    ----------
    folder : Path
    name : str
        Of the network.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._kept: list[Path] = []

    def of(self, name: str) -> CheckpointFiles:
        """Checkpoints of another network, whose name begins with this one."""
        return CheckpointFiles(self.folder, f"{self.name}-{name}" if self.name else name)

    def finished(self) -> dict[str, Any] | None:
        """What the network ended with; None if it has not ended.

        Raises
        ------
        CheckpointError
            If the file is damaged.
        """
        files = self._files()
        if _FINISHED not in files:
            return None
        state = _state_in(files[_FINISHED])
        if state is None:
            raise CheckpointError(
                f"{files[_FINISHED]} is damaged: its content is not that of its SHA-256. Copy the "
                "folder again, or delete this file to train its network again."
            )
        return state

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """Number of epochs that were run, and the state after them; None before the first.

        A damaged checkpoint is passed over with a warning.

        Raises
        ------
        CheckpointError
            If all are damaged.
        """
        files = self._files()
        for state_name in sorted(files, reverse=True):
            path = files[state_name]
            state = _state_in(path)
            if state is not None:
                self._kept = [path]
                return int(state_name.removeprefix("epoch")), state
            warn(
                f"{path} is damaged: its content is not that of its SHA-256. The checkpoint before "
                "it is used.",
                UserWarning,
            )
        if files:
            raise CheckpointError(
                f"All {len(files)} checkpoints of {self.name} in {self.folder} are damaged: their "
                "content is not that of their SHA-256. Copy the folder again, or delete them to "
                "train this network from the start."
            )
        return None

    def save(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Write the state after `epoch` epochs; the checkpoint before it is kept as well."""
        path = self._write(f"epoch{epoch:06d}", state)
        self._kept = [path, *(kept for kept in self._kept if kept != path)][:_KEPT]
        self._remove_others(self._kept)

    def finish(self, state: Mapping[str, Any]) -> None:
        """Write what the network ended with, which replaces its checkpoints."""
        self._remove_others([self._write(_FINISHED, state)])

    def _write(self, state_name: str, state: Mapping[str, Any]) -> Path:
        content = _packed(state)
        digest = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{self.name}.{state_name}.{digest}{_SUFFIX}"
        with _write_errors(path):
            _write_whole(path, content)
        return path

    def _files(self) -> dict[str, Path]:
        """Files of this network by the state that they hold."""
        found = {}
        for path in sorted(self.folder.glob(f"{self.name}.*{_SUFFIX}")):
            match = _FILE.fullmatch(path.name.removesuffix(_SUFFIX))
            if match and match["name"] == self.name:
                found[match["state"]] = path
        return found

    def _remove_others(self, kept: list[Path]) -> None:
        for path in self.folder.glob(f"{self.name}.*{_SUFFIX}"):
            if path not in kept and _FILE.fullmatch(path.name.removesuffix(_SUFFIX)):
                path.unlink(missing_ok=True)


@contextmanager
def open_checkpoints(
    folder: Path, identity: Mapping[str, Any]
) -> Iterator[tuple[CheckpointFiles, dict[str, Any] | None]]:
    """Lock the folder of a fit; yield its checkpoints, and the identity of its fit.

    Where it is new, it gets `identity`, and None is yielded.

    Raises
    ------
    CheckpointError
        If another process or thread fits there, or the folder holds something else.
    OSError
        If the folder cannot be written.
    """
    with _write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _require_own(folder)
        lock = FileLock(folder / _LOCK, timeout=0)
    try:
        with _write_errors(folder):
            lock.acquire()
    except NotImplementedError as error:
        raise CheckpointError(
            f"The file system of {folder} has no locks, so that two processes could write the same "
            "checkpoints. Choose a folder on another one."
        ) from error
    except Timeout as error:
        raise CheckpointError(
            f"Another process or thread fits into {folder} and has locked it. Wait until it ends, "
            "or choose another checkpoint_dir. The lock ends with its process."
        ) from error
    try:
        sweep_parts(folder)
        known = _read_identity(folder / _FIT)
        if known is None:
            with _write_errors(folder):
                _write_whole(folder / _FIT, _document(identity))
        yield CheckpointFiles(folder, ""), known
    finally:
        lock.release()


def _require_own(folder: Path) -> None:
    """Raise if a folder without `fit.json` holds what no fit has written."""
    names = [path.name for path in folder.iterdir()]
    other = [name for name in names if name != _LOCK and not name.startswith(".sk_momkd-")]
    if other and _FIT not in names:
        raise CheckpointError(
            f"checkpoint_dir={str(folder)!r} holds no checkpoints, but other files: "
            f"{first_few(sorted(other))}. Choose a new or empty folder."
        )


def _document(identity: Mapping[str, Any]) -> bytes:
    text = json.dumps(identity, sort_keys=True)
    known = {"format_version": FORMAT_VERSION, "sha256": _sum(text), "fit": identity}
    return json.dumps(known, indent=1, sort_keys=True).encode()


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_identity(path: Path) -> dict[str, Any] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = json.loads(content)
        version, identity = document["format_version"], document["fit"]
        sound = document["sha256"] == _sum(json.dumps(identity, sort_keys=True))
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is damaged: {error}. Copy the folder again.") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version!r:.20}, but this sk_momkd goes on from version "
            f"{FORMAT_VERSION}. Go on with the sk_momkd that wrote it."
        )
    if not sound or not isinstance(identity, dict):
        raise CheckpointError(
            f"{path} is damaged: its content is not that of its SHA-256. Copy the folder again."
        )
    return identity


def _packed(state: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    writer = StateWriter()
    document = json.dumps(writer.encode(dict(state), "state"), allow_nan=False)
    return save(writer.arrays, metadata={"state": document})


def _state_in(path: Path) -> dict[str, Any] | None:
    """The state in a file; None if its content has not the SHA-256 of its name."""
    from safetensors.numpy import load

    with _read_errors(path):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() not in path.name:
        return None
    try:
        length = int.from_bytes(content[:8], "little")
        document = json.loads(content[8 : 8 + length])["__metadata__"]["state"]
        return StateReader(dict(load(content))).decode(json.loads(document))
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is no checkpoint of this sk_momkd: {error}.") from error


def _write_whole(path: Path, content: bytes) -> None:
    with atomic_write(path) as part:
        Path(part).write_bytes(content)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Name what remains where a checkpoint cannot be written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, Timeout):
            raise
        reason = error.strerror or str(error)
        remedy = "Make the folder writable, or choose another checkpoint_dir."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "Free some space, then call fit as before."
        raise OSError(
            error.errno,
            f"The checkpoint {path} cannot be written: {reason}. {remedy} What was written before "
            "is whole, and the same fit goes on from it.",
        ) from error
