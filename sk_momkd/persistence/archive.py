"""The parts of a model as files of a folder or of one zip, with a list of their SHA-256 sums."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..exceptions import ModelFileError
from ..io.atomic import atomic_folder, atomic_write, moved_aside
from ..io.local_files import LARGEST_ARRAY, describe_content
from ..io.read_errors import PARSER_ERRORS
from ..messages import first_few

FORMAT = "sk_momkd model"
FORMAT_VERSION = 1
MANIFEST = "sk_momkd.json"
CARD = "README.md"
_OPTIONAL = {CARD, "LICENSE", "LICENSE.md", "LICENSE.txt"}  # not part of the model, so not checked
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}(\.[A-Za-z0-9_]{1,16}){0,2}")
_MOST_PARTS = 10_000
LARGEST_JSON = 16 * 2**20  # bytes; Python takes up to twenty times as many to read them
_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".dill", ".cloudpickle")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same file


def is_archive(path: Path) -> bool:
    """Whether a model is one zip file; a path without suffix is a folder."""
    return path.suffix.lower() == ".zip"


def require_new_or_model(path: Path, *, overwrite: bool) -> None:
    """Raise unless nothing is at `path`, or a model that may be replaced.

    Raises
    ------
    ModelFileError
        If the name is that of a pickle, which `load_model` would not open.
    FileExistsError
        If something else is there, or a model without `overwrite`.
    """
    if path.suffix.lower() in _PICKLES:
        raise ModelFileError(
            f"{path} has the suffix of a pickle, which load_model refuses, and a saved model is "
            f"none. Save it to {str(path.with_suffix('.zip'))!r}, or without suffix to a folder."
        )
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists. Choose another path, or pass overwrite=True.")
    if path.is_dir() == is_archive(path):
        kind = "folder" if path.is_dir() else "file"
        raise FileExistsError(f"{path} is a {kind}, which no model of this name replaces.")
    kind, names = _held(path)
    if MANIFEST not in names and (names or kind == "file"):
        raise FileExistsError(f"{path} is a {kind} that holds no model, so it is not replaced.")
    if other := [name for name, is_file in names.items() if not is_file or not _may_be_part(name)]:
        raise FileExistsError(
            f"{path} has files beside its model, which replacing it would remove: "
            f"{first_few(sorted(other))}. Move them, or choose another path."
        )


def _held(path: Path) -> tuple[str, dict[str, bool]]:
    """Kind of what is at `path`, and the names in it with whether each is a file."""
    if path.is_dir():
        return "folder", {inner.name: inner.is_file() for inner in path.iterdir()}
    with suppress(*PARSER_ERRORS):  # of a file that is no zip, or of a link that leads nowhere
        if path.is_file():  # a pipe would wait
            with zipfile.ZipFile(path) as archive:
                return "file", dict.fromkeys(archive.namelist(), True)
    return "file", {}


def _may_be_part(name: str) -> bool:
    own = {MANIFEST, *_OPTIONAL, "model.json", "model.safetensors"}
    return name in own or Path(name).suffix == ".skops"


def write_parts(path: Path, parts: Mapping[str, bytes], card: str, facts: dict[str, Any]) -> None:
    """Write the parts of a model with their sums and its card; all of them, or nothing."""
    sums = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in parts.items()
    }
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **facts, "parts": sums}
    files = {
        MANIFEST: json.dumps(manifest, indent=1).encode(),
        CARD: card.encode(),
        **parts,
    }
    if is_archive(path):
        with atomic_write(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
        return
    with atomic_folder(path) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)


def read_parts(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The checked parts of a model, and its manifest.

    Raises
    ------
    ModelFileError
        If this is no model, or one that is damaged, incomplete, or of a newer format.
    """
    _refuse_pickles(path)
    if path.is_dir():
        if not os.path.lexists(path / MANIFEST):
            inside = first_few(sorted(os.listdir(path))) or "nothing"
            raise ModelFileError(
                f"{path} is a folder without a model: it has no {MANIFEST}, but {inside}. Name the "
                "file or the folder that save_model wrote."
            )
        manifest = _manifest(_bytes_of(path / MANIFEST, LARGEST_JSON), path)
        return _checked(path, manifest, lambda name, _: _part_file(path, name)), manifest
    content = _whole_file(path)
    with model_errors(f"{path} is a damaged zip file"):
        archive = zipfile.ZipFile(io.BytesIO(content))
    with archive:
        entries = zip_entries(archive, len(content), path)
        if MANIFEST not in entries:
            raise ModelFileError(
                f"{path} holds no model: its zip has {first_few(entries)}, but no {MANIFEST}."
            )
        manifest = _manifest(_entry(archive, entries[MANIFEST], LARGEST_JSON, path), path)
        extra = entries.keys() - manifest["parts"].keys() - {MANIFEST} - _OPTIONAL
        if extra:
            raise ModelFileError(
                f"{path} has entries that are no part of its model: {first_few(sorted(extra))}. "
                "Take them out, or save the model again."
            )

        def read(name: str, most: int) -> bytes:
            if name not in entries:
                raise ModelFileError(f"{path} is incomplete: its part {name} is missing.")
            return _entry(archive, entries[name], most, path)

        return _checked(path, manifest, read), manifest


def _refuse_pickles(path: Path) -> None:
    """Raise, without opening it, for a file whose name is that of a pickle."""
    if path.suffix.lower() in _PICKLES:
        raise ModelFileError(
            f"{path} is a pickle by its name, and loading a pickle runs any code in it, so it was "
            "not opened. load_model reads what save_model wrote: a folder, or a file .zip. If you "
            "trust whoever made the pickle, load it there and save it with save_model."
        )


@contextmanager
def model_errors(what: str, errors: tuple[type[Exception], ...] = PARSER_ERRORS) -> Iterator[None]:
    """Raise a `ModelFileError` about `what` where reading it fails."""
    caught: tuple[type[Exception], ...] = (*errors, RecursionError)
    try:
        yield
    except ModelFileError:
        raise
    except caught as error:
        reason = (str(error) or repr(error)).rstrip(".")
        raise ModelFileError(f"{what}: {reason[:500]}.") from error


def _regular(path: Path) -> os.stat_result:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        aside = [folder for folder in moved_aside(path) if (folder / MANIFEST).exists()]
        if aside:
            raise ModelFileError(
                f"{path} does not exist. A process was killed while it replaced a model in this "
                f"folder: {first_few(aside)} is the model that was replaced. If it is the one that "
                "is missing, rename it."
            ) from error
        raise ModelFileError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be opened: {error}.") from error
    if not stat.S_ISREG(found.st_mode):
        raise ModelFileError(f"{path} is not a file, but a folder, a pipe or a device.")
    return found


def _bytes_of(path: Path, most: int) -> bytes:
    size = _regular(path).st_size
    if size > most:
        raise ModelFileError(f"{path} has {size:,} bytes, expected at most {most:,}.")
    with model_errors(f"{path} cannot be read"), open(path, "rb") as file:
        return file.read(size)


def _part_file(folder: Path, name: str) -> bytes:
    if not os.path.lexists(folder / name):
        raise ModelFileError(f"{folder} is incomplete: its part {name} is missing.")
    return _bytes_of(folder / name, LARGEST_ARRAY)


def _whole_file(path: Path) -> bytes:
    content_size = _regular(path).st_size
    with model_errors(f"{path} cannot be read"), open(path, "rb") as file:
        start = file.read(4)
    if start != b"PK\x03\x04":
        raise ModelFileError(
            f"{path} is not a model of save_model, which is a folder or a zip file."
            + describe_content(path, "model")
        )
    if content_size > LARGEST_ARRAY:
        raise ModelFileError(f"{path} has {content_size:,} bytes, more than any model.")
    return _bytes_of(path, LARGEST_ARRAY)


def zip_entries(archive: zipfile.ZipFile, size: int, path: Any) -> dict[str, zipfile.ZipInfo]:
    """Entries by name: stored as they are, not larger than the file, in no folder, each once.

    Raises
    ------
    ModelFileError
        For any other entry.
    """
    infos = archive.infolist()
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos[: _MOST_PARTS + 1]:
        name = info.filename
        if name in entries:
            raise ModelFileError(f"{path} has the entry {name!r} twice.")
        if not _NAME.fullmatch(name):
            raise ModelFileError(f"{path} has an entry {name[:100]!r}, which no model has.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ModelFileError(f"{path}: its entry {name!r} is a link.")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ModelFileError(
                f"{path}: its entry {name!r} is compressed, which save_model never does. Unpack it "
                "and load the folder."
            )
        entries[name] = info
    if len(infos) > _MOST_PARTS or sum(info.file_size for info in infos) > size:
        raise ModelFileError(f"{path} declares {len(infos)} entries, more than its bytes can hold.")
    return entries


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, path: Path) -> bytes:
    if info.file_size > most:
        raise ModelFileError(
            f"{path}: its entry {info.filename!r} has {info.file_size:,} bytes, expected at most "
            f"{most:,}."
        )
    with model_errors(f"{path} is damaged in its entry {info.filename!r}"):
        return archive.read(info)


def parsed_json(content: bytes, what: str) -> Any:
    """JSON as this package writes it, without numbers that JSON does not have."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number of JSON")

    with model_errors(f"{what} is not readable JSON"):
        return json.loads(content, parse_constant=refuse)


def _manifest(content: bytes, path: Path) -> dict[str, Any]:
    manifest = parsed_json(content, f"{path}: {MANIFEST}")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelFileError(f"{path} holds no model of save_model: {MANIFEST} does not say so.")
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise ModelFileError(f"{path} has format version {version!r}, expected a number from 1.")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}, but this sk_momkd reads up to "
            f"{FORMAT_VERSION}; it was written by sk_momkd {manifest.get('sk_momkd')!s:.40}. "
            "Upgrade sk_momkd."
        )
    parts = manifest.get("parts")
    names = parts if isinstance(parts, dict) else {}
    if not 0 < len(names) <= _MOST_PARTS or not all(map(_NAME.fullmatch, names)):
        raise ModelFileError(f"{path}: {MANIFEST} lists no parts of a model.")
    return manifest


def _checked(
    path: Path, manifest: dict[str, Any], read: Callable[[str, int], bytes]
) -> dict[str, bytes]:
    """Parts that have the length and the SHA-256 of the manifest."""
    parts = {}
    for name, stated in manifest["parts"].items():
        size, digest = _stated(stated, name, path)
        content = read(name, size)
        if len(content) != size:
            raise ModelFileError(
                f"{path} is damaged: {name} has {len(content):,} bytes, expected {size:,}. Copy it "
                "again, or save the model again."
            )
        if hashlib.sha256(content).hexdigest() != digest:
            raise ModelFileError(
                f"{path} is damaged or was changed: the SHA-256 of {name} is not that of "
                f"{MANIFEST}. Copy it again, or save the model again."
            )
        parts[name] = content
    return parts


def _stated(stated: Any, name: str, path: Path) -> tuple[int, str]:
    known = stated if isinstance(stated, dict) else {}
    size, digest = known.get("bytes"), known.get("sha256")
    if type(size) is not int or size < 0 or not isinstance(digest, str):
        raise ModelFileError(f"{path}: {MANIFEST} states no bytes and SHA-256 of {name}.")
    return min(size, LARGEST_ARRAY), digest
