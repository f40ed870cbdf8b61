"""Versions and what they are made of: the manifest, its metadata contract, and the signature of a loaded version.

Belongs here: the manifest's type, strict codec and identity. Never here: reading files or loading models.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from gateway.errors import InvalidDocument
from routing.codec import DocumentError, encode_document, parse_as, recognised, refuse_repeats
from routing.faults import find_json_fault
from routing.types import ModelName, Text, VersionName

_LARGEST = 1.7976931348623157e308

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="64 lower-case hex digits")]
Url = Annotated[
    str,
    Meta(
        pattern=r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
        r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?(/[^\s?#@]*)?\Z",
        max_length=2048,
        description="an http or https URL of host, port and path, such as http://10.0.0.7:8080, without user name, "
        "password or query (everyone who may read the rules could read a secret in it)",
    ),
]
Repository = Annotated[
    str,
    Meta(
        pattern=r"(?i)^(?![a-z+]*https?://[^/?#]*@)(?![a-z+.-]+://[^/?#]*:[^/?#]*@)",
        max_length=1024,
        description="the name or URL of a repository, of at most 1024 characters, without password or token (everyone "
        "who may read the rules could read it)",
    ),
]
FilePath = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]{1,4096}\Z", description="a path of 1 to 4096 printable characters"),
]
Metric = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST, description="a finite number")]
METADATA_CONTRACT = ("code.git_commit", "data.version", "metrics", "owner")
"""What a manifest must say so that an auditor can answer "from what code and data": DESIGN, the metadata contract."""


class Batching(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests that may share a run of a slow model: at most `max_batch` rows, which wait at most `max_wait_ms`."""

    max_batch: Annotated[int, Meta(ge=2, le=65_536, description="a number of rows from 2 to 65536")]
    max_wait_ms: Annotated[float, Meta(ge=0, le=1_000, description="a time from 0 to 1000 ms")] = 2.0


class OnnxBackend(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An ONNX file. `path` is relative to the manifest in a file, absolute once registered.

    Without `batching` every request has a run of its own.
    """

    path: FilePath
    sha256: Sha256
    batching: Batching | None = None


class Ejection(Struct, frozen=True, forbid_unknown_fields=True):
    """When a URL that fails gets no traffic: `after` so many failures in a row (0: never), for `for_ms` times how often
    it has happened, `most_ms` at most.
    """

    after: Annotated[int, Meta(ge=0, le=1_000)] = 5
    for_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 30_000
    most_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 300_000


class Health(Struct, frozen=True, forbid_unknown_fields=True):
    """How each URL is asked whether it is well: every `interval_ms`, at `path` behind the URL.

    Without `path` it is the readiness of the model, as the protocol has it.
    """

    path: (
        Annotated[
            str,
            Meta(
                pattern=r"^/[^\s?#]*\Z",
                max_length=1024,
                description="a path that begins with /, without query, of at most 1024 characters",
            ),
        ]
        | None
    ) = None
    interval_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 10_000
    timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] = 2_000
    unhealthy_after: Annotated[int, Meta(ge=1, le=100)] = 3
    healthy_after: Annotated[int, Meta(ge=1, le=100)] = 2


class HttpBackend(Struct, frozen=True, forbid_unknown_fields=True):
    """A server that speaks the Open Inference Protocol v2 at each of `urls`.

    `model` and `version` are the names *it* knows; by default the model's own name and no version. Without `ejection`
    its defaults hold; without `health` nothing is asked.
    """

    urls: Annotated[tuple[Url, ...], Meta(min_length=1, max_length=64)]
    model: ModelName | None = None
    version: VersionName | None = None
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None
    ejection: Ejection | None = None
    health: Health | None = None


class Backend(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a version runs: exactly one of the kinds."""

    onnx: OnnxBackend | None = None
    http: HttpBackend | None = None


class CodeOrigin(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The code that made the version."""

    git_commit: (
        Annotated[str, Meta(pattern=r"^[0-9a-f]{7,64}\Z", description="a commit of 7 to 64 lower-case hex digits")]
        | None
    ) = None
    repository: Repository | None = None
    path: Text | None = None


class DataOrigin(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The data that the version was trained on."""

    version: Text | None = None
    sha256: Sha256 | None = None


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """One immutable version of a model."""

    model: ModelName
    version: VersionName
    backend: Annotated[
        Backend, Meta(description='{"onnx": {"path": …, "sha256": …}} or {"http": {"urls": […]}}, where it runs')
    ]
    code: CodeOrigin = CodeOrigin()
    data: DataOrigin = DataOrigin()
    hyperparameters: Mapping[str, Any] = {}
    metrics: Mapping[str, Metric] = {}
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
        """The paths of the metadata contract that this manifest does not fill; empty for a complete one.

        Blank is missing: a text of spaces answers no auditor.
        """
        filled = (
            self.code.git_commit,
            (self.data.version or "").strip(),
            self.metrics,
            (self.owner or "").strip(),
        )
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
        manifest = recognised(document, Manifest) or parse_as(document, Manifest)
        if fault := find_json_fault(manifest.hyperparameters, "hyperparameters"):
            raise DocumentError(*fault)
        if manifest.backend.http is not None:
            refuse_repeats(manifest.backend.http.urls, "backend.http.urls[{}]")
    except DocumentError as error:
        raise InvalidDocument(error.path, error.message) from None
    if (manifest.backend.onnx is None) == (manifest.backend.http is None):
        raise InvalidDocument("backend", "expected exactly one of onnx and http")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the canonical JSON of a manifest."""
    return encode_document(manifest)


def same_content(one: Manifest, other: Manifest) -> bool:
    """Tell whether two manifests are the same version: equal but for where the artifact lies, which is no content.

    The same instant in another time zone is the same `created`.
    """
    return one.created == other.created and _without_place(one) == _without_place(other)


def _without_place(manifest: Manifest) -> bytes:
    # Compared as JSON because Python takes True, 1 and 1.0 for equal, and hyperparameters do not.
    timeless = msgspec.structs.replace(manifest, created=None)
    onnx = manifest.backend.onnx
    if onnx is None:
        return encode_manifest(timeless)
    nowhere = msgspec.structs.replace(onnx, path="-")
    return encode_manifest(msgspec.structs.replace(timeless, backend=Backend(onnx=nowhere)))
