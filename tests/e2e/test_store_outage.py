"""PostgreSQL is cut off, killed, away and back under load: no client notices, no record is lost or doubled."""

from collections.abc import Callable
from pathlib import Path

from tests.e2e.outage import check, suffer
from tests.postgres_server import PostgresServer


def test_no_record_is_lost_or_doubled_while_the_audit_store_is_cut_off_killed_and_back(
    tmp_path: Path, start_postgres: Callable[[], PostgresServer]
) -> None:
    gateway, outage = suffer(tmp_path / "gateway", start_postgres(), seconds=3, rate=200)
    try:
        check(gateway, outage)
    finally:
        gateway.close()
