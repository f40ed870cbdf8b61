"""The settings of records: where they are kept, how surely, for how long, and how they are sealed.

Belongs here: names, types, defaults and limits. Never here: reading them, or anything else of ours.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.settings_kinds import Decimal, Group, Whole

SIX_MONTHS_DAYS = 184
"""The longest six months have so many days; providers and deployers of high-risk AI systems in the EU keep logs at
least that long (Regulation (EU) 2024/1689, Articles 19 and 26)."""
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})
_AUDIT_SCHEMES = ("sqlite:///", "postgresql://", "postgres://")


def _audit_address(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(_AUDIT_SCHEMES):
        raise ValueError("expected sqlite:///path/to/folder or postgresql://user@host/database")
    return url


def _web_address(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("http://", "https://")):
        raise ValueError("expected a URL that begins with http:// or https://")
    return url


def _header_name(name: str) -> str:
    if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", name) is None:
        raise ValueError("expected the name of a header")
    if name.lower() in _SECRET_HEADERS:
        raise ValueError(f"{name.lower()} holds secrets and is never recorded")
    return name.lower()


HeaderName = Annotated[str, AfterValidator(_header_name)]


class AuditSettings(Group):
    """How records are kept."""

    url: Annotated[
        Annotated[SecretStr, AfterValidator(_audit_address)] | None,
        Field(description="audit store: `sqlite:///folder` or `postgresql://…`; without it SQLite in the data folder"),
    ] = None
    durability: Annotated[
        Literal["process", "power"],
        Field(description="what a record survives before its reply leaves: the end of the process, or of the machine"),
    ] = "process"
    on_full: Annotated[
        Literal["refuse", "serve"],
        Field(description="with a full disk: refuse requests, or serve without records and count them"),
    ] = "refuse"
    disk_warn_percent: Annotated[Decimal, Field(gt=0, le=100, description="fullness of the disk that is warned of")] = (
        80.0
    )
    disk_full_percent: Annotated[
        Decimal, Field(gt=0, le=100, description="fullness of the disk at which no new record is begun")
    ] = 90.0
    segment_bytes: Annotated[Whole, Field(ge=4096, description="a journal segment is closed at this size")] = 64 * 2**20
    keep_segments_seconds: Annotated[
        Decimal, Field(ge=0, description="shipped journal segments are deleted after this age")
    ] = 600.0
    record_headers: Annotated[
        tuple[HeaderName, ...], Field(description="headers whose values records keep; no others are, but for cohorts'")
    ] = ()
    retention_days: Annotated[
        Whole, Field(ge=1, le=36_500, description="how long records are kept; a day's records go together")
    ] = 400
    retention: dict[str, Annotated[Whole, Field(ge=1, le=36_500)]] = Field(
        default_factory=dict, description="the same for single models, by name"
    )
    retention_floor_days: Annotated[
        Whole, Field(ge=SIX_MONTHS_DAYS, le=36_500, description="no record is pruned earlier, whatever else is set")
    ] = SIX_MONTHS_DAYS
    checkpoint_seconds: Annotated[
        Decimal, Field(gt=0, le=3600, description="records are sealed by a signed checkpoint within this time")
    ] = 10.0
    checkpoint_file: Annotated[
        Path | None, Field(description="file to which every checkpoint is appended, best on another machine's disk")
    ] = None
    checkpoint_url: Annotated[
        Annotated[SecretStr, AfterValidator(_web_address)] | None,
        Field(description="URL to which every checkpoint is posted"),
    ] = None

    @model_validator(mode="after")
    def _check(self) -> "AuditSettings":
        shortest = min([self.retention_days, *self.retention.values()])
        if shortest < self.retention_floor_days:
            raise ValueError(
                f"retention of {shortest} days is below retention_floor_days ({self.retention_floor_days}); "
                "the floor can be raised, never passed under"
            )
        if self.disk_warn_percent > self.disk_full_percent:
            raise ValueError("disk_warn_percent is above disk_full_percent; warn before the disk counts as full")
        return self
