"""The same evidence over PostgreSQL: a clean log holds, what is changed by SQL is found and named.

What PostgreSQL answers is in the audit store's contract; every kind of mutation is tried on SQLite, in
`test_tampering`.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.evidence.completeness import completeness
from gateway.evidence.findings import Verdict
from gateway.evidence.receipts import receipt, verify_receipt
from gateway.evidence.verification import verify
from gateway.ports import Place
from gateway.stores.audit_postgres import PostgresAudit
from tests.gateway.evidence.sealed.world import House, days_ago, live
from tests.postgres_server import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer, database: str) -> str:
    return postgres.url(database)


@pytest.fixture
def house(url: str, tmp_path: Path) -> Iterator[House]:
    """A gateway whose records are in PostgreSQL: two days, four checkpoints, an erasure."""
    made, chance = House(tmp_path / "house", store=PostgresAudit(url)), random.Random(11)
    for day in (days_ago(1), days_ago(0)):
        for _ in range(2):
            made.serve("w0", 8, chance, day)
            made.ship(day)
            made.seal()
    made.erase_caller("u-3", days_ago(0))
    made.seal()
    yield made
    made.close()


def verdict_on(house: House, url: str) -> Verdict:
    """What verification says, as a process that only reads would."""
    store = PostgresAudit(url, read_only=True)
    try:
        return verify(store, house.against())
    finally:
        store.close()


def test_a_clean_log_holds_is_complete_and_gives_receipts(url: str, tmp_path: Path) -> None:
    house = House(tmp_path / "house", store=PostgresAudit(url))
    live(house, random.Random(11))

    verdict = verdict_on(house, url)

    assert verdict.findings == ()
    assert verdict.records > 0 < verdict.frames
    assert all(one.missing == 0 for one in completeness(house.store, "g", house.journals, {}).journals)
    for holding in house.store.holdings():
        place = Place(holding.journal, holding.last)
        if next(iter(house.store.rows(place.journal, place.sequence, place.sequence))).sealed is not None:
            made = receipt(house.store, place, house.key.public)
            assert verify_receipt(made, house.key.public).place == place
    house.close()


ERASED = "SELECT number FROM parts WHERE erasure IS NOT NULL"
ONE = f"(SELECT number FROM records WHERE role = 'primary' AND number NOT IN ({ERASED}) ORDER BY 1 LIMIT 1 OFFSET 5)"


@pytest.mark.parametrize(
    "sql",
    [
        f"UPDATE records SET sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) WHERE number = {ONE}",
        f"UPDATE records SET previous = set_byte(previous, 3, get_byte(previous, 3) # 1) WHERE number = {ONE}",
        f"UPDATE records SET version = '9' WHERE number = {ONE}",
        f"UPDATE records SET status = 500 WHERE number = {ONE}",
        f"DELETE FROM records WHERE number = {ONE}",
        f"UPDATE records SET sealed = NULL, chain = previous, pruning = 'x' WHERE number = {ONE}",
        f"UPDATE records SET sequence = sequence + 100000 WHERE number = {ONE}",
        f"UPDATE parts SET response = '\\x00'::bytea, erasure = NULL WHERE number = {ONE}",
        f"UPDATE parts SET erasure = 'nobody' WHERE number = {ONE}",
    ],
)
def test_what_is_changed_by_sql_is_found_and_named(house: House, url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True, options="-csearch_path=pointsman") as connection:
        row = connection.execute(f"SELECT journal, sequence FROM records WHERE number = {ONE}").fetchone()
        connection.execute(sql)
    assert row is not None

    verdict = verdict_on(house, url)

    assert verdict.first is not None
    assert (verdict.first.journal, verdict.first.sequence) == tuple(row)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM checkpoints WHERE number = 2",
        "DELETE FROM checkpoints WHERE number = (SELECT max(number) FROM checkpoints)",
        "UPDATE checkpoints SET signature = set_byte(signature, 3, get_byte(signature, 3) # 1) WHERE number = 3",
        "UPDATE positions SET sequence = sequence - 1 WHERE journal LIKE 'g/w0.%'",
        "DELETE FROM public_keys",
        "DELETE FROM covers",
    ],
)
def test_what_is_changed_of_checkpoints_positions_and_keys_is_found(house: House, url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True, options="-csearch_path=pointsman") as connection:
        assert connection.execute(sql).rowcount > 0

    assert not verdict_on(house, url).holds
