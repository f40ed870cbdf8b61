"""The audit stores that the contract runs over, and what its tests share.

A new implementation adds one entry to STORES: a function that takes the test's request (for fixtures, such as a server
that the session shares; `pytest.skip` with the reason if there can be none) and a folder that is the test's own, and
returns what opens the store: the same one each time. What it opens is closed by the fixture `open_audit`.

    OpenAudit           the fixture `open_audit`: open the test's store, as often as the test likes
    frames_of(kept)     what was found, without days and erasures
    fill(store, …)      write frames under days
    everything(store)   all that a store says, for comparing it with itself
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import pytest

from gateway.ports import AuditStore, Filter, Kept, Row
from gateway.record import Frame, Record
from gateway.stores.audit_postgres import PostgresAudit
from gateway.stores.audit_sqlite import SqliteAudit
from tests.postgres_server import PostgresServer
from tests.records import batch

WHOLE_JOURNAL = (1, 2**62)


class OpenAudit(Protocol):
    """Opens the test's store."""

    def __call__(self) -> AuditStore: ...


def _sqlite(_request: pytest.FixtureRequest, folder: Path) -> OpenAudit:
    return lambda: SqliteAudit(folder / "audit")


def _postgresql(request: pytest.FixtureRequest, _folder: Path) -> OpenAudit:
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.url(request.getfixturevalue("database"))
    return lambda: PostgresAudit(url)


STORES: dict[str, Callable[[pytest.FixtureRequest, Path], OpenAudit]] = {"sqlite": _sqlite, "postgresql": _postgresql}


def fill(store: AuditStore, frames: Iterable[Frame], day: str) -> None:
    """Write frames under a day, in one batch with their positions."""
    store.write(batch(frames, day))


def frames_of(kept: Iterable[Kept]) -> list[Frame]:
    """Return the frames of what was found."""
    return [one.frame for one in kept]


def scanned(store: AuditStore, wanted: Filter = Filter(), *, contents: bool = True) -> list[Kept]:  # noqa: B008 - it is frozen
    """Return all that a scan yields."""
    return [kept for chunk in store.scan(wanted, contents=contents) for kept in chunk]


def listed(store: AuditStore, wanted: Filter = Filter(), limit: int = 7) -> list[Record]:  # noqa: B008 - it is frozen
    """Return all records of a listing, page by page."""
    found: list[Record] = []
    after: str | None = None
    for _ in range(10_000):
        page = store.page(wanted, after, limit)
        assert len(page.records) <= limit
        found += page.records
        after = page.next
        if after is None:
            return found
    raise AssertionError("the listing does not end")


def rows_of(store: AuditStore, journal: str) -> list[Row]:
    """Return what stands in a journal."""
    return list(store.rows(journal, *WHOLE_JOURNAL))


def everything(store: AuditStore) -> dict[str, Any]:
    """Return all that a store says of what it has."""
    holdings = store.holdings()
    return {
        "positions": dict(store.positions()),
        "days": list(store.days()),
        "holdings": list(holdings),
        "gaps": list(store.gaps()),
        "dropped": list(store.dropped()),
        "keys": list(store.keys()),
        "checkpoints": list(store.checkpoints()),
        "rows": [row for journal in sorted({one.journal for one in holdings}) for row in rows_of(store, journal)],
        "scan": scanned(store),
        "list": listed(store, limit=100),
    }
