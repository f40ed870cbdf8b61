"""Whether a version is what its manifest says: its artifact on disk, and a manifest against the one registered.

Belongs here: checks before a version is registered or named by a route. Never here: loading a model, or the store.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.catalog import Manifest, encode_manifest
from gateway.errors import ArtifactMissing, DigestMismatch, InvalidDocument

_PATH = "backend.onnx.path"


def check_artifact(manifest: Manifest) -> None:
    """Read the artifact and compare its digest. Blocks for as long as reading takes; call it in a thread.

    Raises:
        InvalidDocument: the path is not absolute.
        ArtifactMissing: no file is there, or it cannot be read.
        DigestMismatch: it is another file; the message has both digests.
    """
    onnx = manifest.backend.onnx
    if onnx is None:
        return
    path = Path(onnx.path)
    if not path.is_absolute():
        raise InvalidDocument(_PATH, "expected an absolute path; only beside its manifest file may it be relative")
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise ArtifactMissing(
            f"{_PATH}: cannot read {onnx.path}: {why}; the gateway reads the artifact itself, so it must be there"
        ) from None
    if actual != onnx.sha256:
        raise DigestMismatch(
            f"backend.onnx.sha256: the manifest of version {manifest.version} of model {manifest.model} says "
            f"{onnx.sha256}, but {onnx.path} has {actual}; put the registered file back, or register what is there as "
            "a new version"
        )


def differing_fields(one: Manifest, other: Manifest) -> tuple[str, ...]:
    """Return the paths of the fields in which two manifests of one version differ, but for the artifact's place."""
    paths = _differences(json.loads(encode_manifest(one)), json.loads(encode_manifest(other)), "")
    return tuple(path for path in paths if path != _PATH)


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if one == other:
        return
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        yield path
        return
    for name in sorted(one.keys() | other.keys()):
        yield from _differences(one.get(name), other.get(name), f"{path}.{name}" if path else name)
