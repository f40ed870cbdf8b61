"""Versions and what they are made of: the manifest, its metadata contract, and the signature of a loaded version.

Belongs here: the manifest's type, strict codec and identity. Never here: reading files or loading models.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from gateway.errors import InvalidDocument
from routing.codec import DocumentError, convert, encode_document, read_object
from routing.types import ModelName, Text, VersionName

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?\Z", max_length=2048)]
METADATA_CONTRACT = ("code.git_commit", "data.version", "metrics", "owner")
"""What a manifest must say so that an auditor can answer "from what code and data": DESIGN, the metadata contract."""


class OnnxBackend(Struct, frozen=True, forbid_unknown_fields=True):
    """An ONNX file. `path` is relative to the manifest in a file, absolute once registered."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    sha256: Sha256


class HttpBackend(Struct, frozen=True, forbid_unknown_fields=True):
    """A server that speaks the Open Inference Protocol v2 at each of `urls`.

    `model` and `version` are the names *it* knows; by default the model's own name and no version.
    """

    urls: Annotated[tuple[Url, ...], Meta(min_length=1, max_length=64)]
    model: ModelName | None = None
    version: VersionName | None = None
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None


class Backend(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a version runs: exactly one of the kinds."""

    onnx: OnnxBackend | None = None
    http: HttpBackend | None = None


class CodeOrigin(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The code that made the version."""

    git_commit: Annotated[str, Meta(pattern=r"^[0-9a-f]{7,64}\Z")] | None = None
    repository: Text | None = None
    path: Text | None = None


class DataOrigin(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The data that the version was trained on."""

    version: Text | None = None
    sha256: Sha256 | None = None


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """One immutable version of a model."""

    model: ModelName
    version: VersionName
    backend: Backend
    code: CodeOrigin = CodeOrigin()
    data: DataOrigin = DataOrigin()
    hyperparameters: Mapping[str, Any] = {}
    metrics: Mapping[str, float] = {}
    owner: Text | None = None
    created: Annotated[datetime, Meta(tz=True)] | None = None
    description: Annotated[str, Meta(max_length=16_384)] = ""
    tags: Mapping[str, Text] = {}

    @property
    def digest(self) -> str | None:
        """The sha256 (hex) of the artifact, for versions that run in process."""
        return self.backend.onnx.sha256 if self.backend.onnx else None

    @property
    def missing(self) -> tuple[str, ...]:
        """The paths of the metadata contract that this manifest does not fill; empty for a complete one."""
        filled = (self.code.git_commit, self.data.version, self.metrics, self.owner)
        return tuple(path for path, value in zip(METADATA_CONTRACT, filled, strict=True) if not value)


class TensorSpec(Struct, frozen=True):
    """One input or output. `shape` has -1 for a free dimension; `symbols` names free dimensions that must agree."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...] = ()


class Signature(Struct, frozen=True):
    """What a version takes and gives, as it says itself. `platform` is an Open Inference Protocol platform name."""

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def parse_manifest(document: bytes | Mapping[str, Any]) -> Manifest:
    """Return the manifest of a JSON text or of an already decoded object.

    Raises:
        InvalidDocument: with the path of the first field that does not fit.
    """
    try:
        manifest = convert(read_object(document), Manifest)
    except DocumentError as error:
        raise InvalidDocument(error.path, error.message) from None
    if (manifest.backend.onnx is None) == (manifest.backend.http is None):
        raise InvalidDocument("backend", "expected exactly one of onnx and http")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the canonical JSON of a manifest."""
    return encode_document(manifest)


def same_content(one: Manifest, other: Manifest) -> bool:
    """Tell whether two manifests are the same version: equal but for where the artifact lies, which is no content."""
    return _without_place(one) == _without_place(other)


def _without_place(manifest: Manifest) -> bytes:
    onnx = manifest.backend.onnx
    if onnx is None:
        return encode_manifest(manifest)
    placeless = msgspec.structs.replace(onnx, path="-")
    return encode_manifest(msgspec.structs.replace(manifest, backend=Backend(onnx=placeless)))
