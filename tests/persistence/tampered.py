"""Model files with other content: bytes changed, parts exchanged, and sums made to fit again."""

import hashlib
import json
import zipfile

import numpy as np

from sk_momkd.persistence.own_objects import ModelWriter


def parts_of(path):
    """Content of each entry of a zip, by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_sums(parts):
    """The parts with a manifest that states their lengths and sums."""
    manifest = json.loads(parts["sk_momkd.json"])
    manifest["parts"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in parts.items()
        if name not in ("sk_momkd.json", "README.md")
    }
    return parts | {"sk_momkd.json": json.dumps(manifest).encode()}


def written(path, parts):
    """A zip of the parts; a part that is a ZipInfo with content keeps its attributes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def mutated(content, random):
    """Some bytes changed, a part zeroed, or the end cut off."""
    changed, kind = bytearray(content), random.integers(4)
    if kind == 0:
        return content[: random.integers(len(content))]
    if kind == 1:
        start = random.integers(len(content))
        length = int(random.integers(1, 600))
        changed[start : start + length] = bytes(len(changed[start : start + length]))
        return bytes(changed)
    for _ in range(random.integers(1, 5)):
        place = random.integers(len(content))
        flipped = changed[place] ^ (1 << random.integers(8))
        changed[place] = random.integers(256) if kind == 2 else flipped
    return bytes(changed)


def content_of(model):
    """All that a model holds, as something that can be compared."""
    writer = ModelWriter(include_omics=True, include_validation=True)
    described = writer.encode(model, "model")
    arrays = {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in writer.arrays.items()}
    return json.dumps([described, writer.objects]), arrays


def same(one, other):
    """Whether two models hold the same, bit for bit."""
    return content_of(one) == content_of(other)


def safetensors(header, data=b""):
    """A file of safetensors with any header."""
    text = json.dumps(header).encode()
    return np.uint64(len(text)).tobytes() + text + data
