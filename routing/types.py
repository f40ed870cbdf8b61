"""The documents of the rules and the words of a decision, as frozen types.

Belongs here: shapes and their limits, which msgspec checks while it converts, and the plain words for each limit
(`Meta.description`), which a refusal quotes. Never here: a check that spans two fields (that is `codec`), or anything
that chooses a version (that is `resolve`), or by what (`facts`).
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from routing.hashing import unit_digest

BASIS_POINTS: Final = 10_000
"""The sum of every split, and the whole of every sample: 100 % in hundredths of a percent."""

_NAME = "of 1 to {} characters from A-Z a-z 0-9 . _ -, the first a letter or digit"

ModelName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z", description="a model name " + _NAME.format(128))
]
VersionName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", description="a version name " + _NAME.format(64))
]
CohortName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z", description="a cohort name " + _NAME.format(128))
]
HeaderName = Annotated[
    str,
    Meta(
        pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z",
        description="a header name of 1 to 128 characters from A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~",
    ),
]
JsonPointer = Annotated[
    str,
    Meta(
        pattern=r"^(/([^~/]|~[01])*)+\Z",
        max_length=1024,
        description="a JSON pointer of at most 1024 characters, such as /inputs/0/data (~0 for ~, ~1 for /)",
    ),
]
Weight = Annotated[
    int, Meta(ge=0, le=BASIS_POINTS, description="an integer from 0 to 10000 (basis points: 100 is 1 %)")
]
Text = Annotated[str, Meta(max_length=1024)]
Reason = Literal["explicit", "pin", "split", "brake"]
ListedKey = Annotated[str, Meta(min_length=1, max_length=1024)]


class KeySource(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a routing key is read from. Of a route's sources the first that is present and not empty gives the key.

    Header names mean the same in any case. A present but empty header does not count, so that a proxy which sets a
    header for everybody and fills it for some does not put all the others on one key.
    """

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
    redact: tuple[JsonPointer, ...] = ()


class Brake(Struct, frozen=True, forbid_unknown_fields=True):
    """A version that fails `failures` of its last `of` requests in one worker is diverted from by that worker."""

    failures: Annotated[int, Meta(ge=1, le=10_000)]
    of: Annotated[int, Meta(ge=1, le=10_000)]


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """The routing rules of one model. Weights and samples are integer basis points.

    A version of weight 0 serves nobody but stays loaded, so that raising it later takes effect at once. `retries` is
    how often a request may be tried again on the same version, `idempotent` that a backend may see it twice.
    """

    model: ModelName
    salt: Annotated[str, Meta(min_length=1, max_length=256)]
    split: Annotated[
        Mapping[VersionName, Weight],
        Meta(description='an object of versions and their weights in basis points, such as {"1": 9000, "2": 1000}'),
    ]
    key: Annotated[tuple[KeySource, ...], Meta(min_length=1)] = (KeySource(header="x-routing-key"),)
    pins: tuple[Pin, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    fallback: tuple[VersionName, ...] = ()
    client_versions: Literal["allow", "deny"] = "allow"
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 30_000
    idempotent: bool = False
    retries: Annotated[int, Meta(ge=0, le=3)] = 1
    capture: Capture = Capture()
    brake: Brake | None = None
    slowdown: Annotated[int, Meta(ge=2, le=1_000)] | None = None


class Clause(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Holds when the header is present and its value is one of `values` (the field `in` of the document)."""

    header: HeaderName
    values: Annotated[tuple[Text, ...], Meta(min_length=1)] = field(name="in")

    @cached_property
    def accepted(self) -> frozenset[str]:
        """The values as a set: a clause may list thousands of tenants, and every request asks."""
        return frozenset(self.values)


class Cohort(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """A named set of callers: listed routing keys, or every clause of `match` holds."""

    name: CohortName
    keys: tuple[ListedKey, ...] = ()
    match: tuple[Clause, ...] = ()

    @cached_property
    def digests(self) -> frozenset[bytes]:
        """The unit digests (16 bytes each) of the listed keys, which is all that a decision compares."""
        return frozenset(unit_digest(key) for key in self.keys)


class Decision(Struct, frozen=True):
    """The version chosen and the rule that chose it. `rule` is the path of that rule in the route document.

    `instead_of` is the version that the split had drawn, where the brake diverted from it.
    """

    version: str
    reason: Reason
    rule: str
    cohort: str | None = None
    instead_of: str | None = None

    @property
    def intended(self) -> str:
        """The version that was chosen first, before any diversion."""
        return self.version if self.instead_of is None else self.instead_of
