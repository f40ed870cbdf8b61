"""The documents of the rules and the words of a decision, as frozen types.

Belongs here: shapes and their limits, which msgspec checks while it converts. Never here: a check that spans
two fields (that is `codec`), or anything that chooses a version (that is `resolve`).
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from routing.hashing import unit_digest

BASIS_POINTS = 10_000
"""The sum of every split, and the whole of every sample: 100 % in hundredths of a percent."""

ModelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
VersionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
CohortName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
HeaderName = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")]
Weight = Annotated[int, Meta(ge=0, le=BASIS_POINTS)]
Text = Annotated[str, Meta(max_length=1024)]
Reason = Literal["explicit", "pin", "split"]


class KeySource(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a routing key is read from. The first source that is present and not empty gives the key."""

    header: HeaderName


class Pin(Struct, frozen=True, forbid_unknown_fields=True):
    """Callers of one cohort are served by one version, until `expires` if that is given."""

    cohort: CohortName
    version: VersionName
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    owner: Text = ""
    reason: Text = ""


class Shadow(Struct, frozen=True, forbid_unknown_fields=True):
    """A version that gets a copy of `sample` basis points of the requests."""

    version: VersionName
    sample: Weight


class Capture(Struct, frozen=True, forbid_unknown_fields=True):
    """What a record keeps of the bodies. Size and sha256 are always kept; `redact` holds JSON pointers."""

    request: Literal["full", "digest", "none"] = "full"
    response: Literal["full", "digest", "none"] = "full"
    max_bytes: Annotated[int, Meta(ge=0, le=16 * 1024 * 1024)] = 65_536
    redact: tuple[Annotated[str, Meta(pattern=r"^(/([^~/]|~[01])*)+\Z", max_length=1024)], ...] = ()


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """The routing rules of one model. Weights and samples are integer basis points."""

    model: ModelName
    salt: Annotated[str, Meta(min_length=1, max_length=256)]
    split: Mapping[VersionName, Weight]
    key: tuple[KeySource, ...] = (KeySource(header="x-routing-key"),)
    pins: tuple[Pin, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    fallback: tuple[VersionName, ...] = ()
    client_versions: Literal["allow", "deny"] = "allow"
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 30_000
    capture: Capture = Capture()


class Clause(Struct, frozen=True, forbid_unknown_fields=True):
    """Holds when the header is present and its value is one of `values` (the field `in` of the document)."""

    header: HeaderName
    values: Annotated[tuple[Text, ...], Meta(min_length=1)] = field(name="in")


class Cohort(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """A named set of callers: listed routing keys, or every clause of `match` holds."""

    name: CohortName
    keys: tuple[Text, ...] = ()
    match: tuple[Clause, ...] = ()

    @cached_property
    def digests(self) -> frozenset[bytes]:
        """The unit digests (16 bytes each) of the listed keys, which is all that a decision compares."""
        return frozenset(unit_digest(key) for key in self.keys)


class Facts(Struct, frozen=True):
    """Everything about one request that a decision may look at.

    `unit` is the 16-byte digest of the routing key, or of the record id when the request has none (then `keyed` is
    False and no cohort lists it). `headers` has lower-case names. `received_ns` is Unix time in nanoseconds.
    """

    unit: bytes
    record_id: str
    received_ns: int
    keyed: bool = True
    asked_version: str | None = None
    headers: Mapping[str, str] = {}


class Decision(Struct, frozen=True):
    """The version chosen and the rule that chose it. `rule` is the path of that rule in the route document."""

    version: str
    reason: Reason
    rule: str
    cohort: str | None = None
