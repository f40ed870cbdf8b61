"""What is taken out of PostgreSQL is out of its files, and days come and go while others read and write."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
import structlog

from gateway.errors import AuditUnavailable
from gateway.ports import Filter
from gateway.stores.audit_postgres import PostgresAudit
from gateway.stores.audit_postgres_privacy import UPKEEP_LOCK
from tests.contracts.audit_store import frames_of, rows_of, scanned
from tests.postgres_server import PostgresServer
from tests.records import DAY, JOURNAL, NEXT_DAY, ChainedJournal, batch, new_record, place_of

SECRETS = [b"canary-4111-1111-1111-1111", b"canary-of-the-answer"]


@pytest.fixture
def store(postgres: PostgresServer, database: str) -> Iterator[PostgresAudit]:
    with closing(PostgresAudit(postgres.url(database))) as opened:
        yield opened


def _files_with(postgres: PostgresServer, secret: bytes) -> list[Path]:
    """Return the files of tables and indexes that hold these bytes, once everything in memory is written out."""
    postgres.execute("CHECKPOINT")
    found = []
    for path in (postgres.data / "base").rglob("*"):
        try:
            if path.is_file() and secret in path.read_bytes():
                found.append(path)
        except FileNotFoundError:
            continue  # it went away while we looked
    return found


def _write_secrets(store: PostgresAudit) -> list[tuple[str, int]]:
    chain = ChainedJournal()
    frames = [chain.frame(new_record(1), b'{"card": "%s"}' % SECRETS[0], b'{"said": "%s"}' % SECRETS[1])]
    # Large ones are kept out of line, in a table of their own, and compressed; so this one cannot be.
    long = b"".join(number.to_bytes(3, "big") for number in range(20_000))
    frames.append(chain.frame(new_record(2), long + SECRETS[0], long + SECRETS[1]))
    frames += chain.frames(*(new_record(number) for number in range(3, 200)))
    store.write(batch(frames))
    return [(frame.journal, frame.sequence) for frame in frames[:2]]


def test_erased_bytes_are_in_no_file_of_a_table_any_more(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    _write_secrets(store)
    assert all(_files_with(postgres, secret) for secret in SECRETS)
    places = [place_of(kept.frame) for kept in scanned(store)[:2]]
    assert store.erase(places, "e-1") == 2
    assert [_files_with(postgres, secret) for secret in SECRETS] == [[], []]
    rows = rows_of(store, JOURNAL)
    assert [row.erasure for row in rows[:3]] == ["e-1", "e-1", None]
    assert all(row.request for row in rows[2:])
    assert postgres.execute("SELECT * FROM pointsman.rewrites", database) == []


def test_a_plain_vacuum_would_leave_the_bytes_where_they_were(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    """Why a rewrite is needed. Should this fail one day, a vacuum may be enough."""
    chain = ChainedJournal()
    store.write(batch([*chain.frames(new_record(1)), chain.frame(new_record(2), SECRETS[0] * 40)]))
    postgres.execute("UPDATE pointsman.parts SET request = '', response = '' WHERE number = 2", database)
    postgres.execute("VACUUM pointsman.parts_20261125", database)
    assert _files_with(postgres, SECRETS[0])


def test_the_contents_of_thinned_and_dropped_records_are_in_no_file_either(
    store: PostgresAudit, postgres: PostgresServer
) -> None:
    chain = ChainedJournal()
    store.write(
        batch(
            [
                chain.frame(new_record(1, model="old", client="canary-client"), SECRETS[0], SECRETS[1]),
                *chain.frames(new_record(2)),
            ]
        )
    )
    store.write(batch([chain.frame(new_record(3), SECRETS[0], SECRETS[1])], NEXT_DAY))
    store.thin(DAY, ["old"], "p-1")
    assert not _files_with(postgres, b"canary-client")
    store.write(batch(chain.frames(new_record(4)), "2026-11-27"))
    store.drop(NEXT_DAY, "p-2")
    assert [_files_with(postgres, secret) for secret in SECRETS] == [[], []]


def test_erasing_says_so_while_a_transaction_still_sees_what_was_there_and_can_be_done_again(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    _write_secrets(store)
    places = [place_of(kept.frame) for kept in scanned(store)[:2]]
    with psycopg.connect(postgres.socket_url(database)) as backup:
        backup.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        backup.execute("SELECT count(*) FROM pointsman.positions")
        with pytest.raises(AuditUnavailable, match=r"parts_20261125 is still on the disk.*do the same again"):
            store.erase(places, "e-1")
        assert [row.erasure for row in rows_of(store, JOURNAL)[:2]] == ["e-1", "e-1"]
        assert _files_with(postgres, SECRETS[0])
    assert store.erase(places, "e-2") == 0
    assert [_files_with(postgres, secret) for secret in SECRETS] == [[], []]
    assert [row.erasure for row in rows_of(store, JOURNAL)[:2]] == ["e-1", "e-1"]


def test_a_rewrite_that_a_gateway_did_not_live_to_do_is_done_by_the_next_one(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    _write_secrets(store)
    postgres.execute(
        "UPDATE pointsman.parts SET request = '', response = '', erasure = 'e' WHERE number <= 2", database
    )
    postgres.execute("INSERT INTO pointsman.rewrites VALUES ('parts_20261125')", database)
    PostgresAudit(postgres.url(database)).close()
    assert [_files_with(postgres, secret) for secret in SECRETS] == [[], []]
    assert postgres.execute("SELECT * FROM pointsman.rewrites", database) == []


def test_a_gateway_starts_while_another_one_takes_things_out(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    _write_secrets(store)
    postgres.execute("INSERT INTO pointsman.rewrites VALUES ('parts_20261125')", database)
    with psycopg.connect(postgres.socket_url(database), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (UPKEEP_LOCK,))
        with structlog.testing.capture_logs() as logged:
            PostgresAudit(postgres.url(database)).close()
        assert logged == []
    assert len(postgres.execute("SELECT * FROM pointsman.rewrites", database)) == 1


def test_partitions_are_there_two_days_ahead_of_what_is_written(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    def days() -> set[object]:
        rows = postgres.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = 'pointsman.records'::regclass AND relkind = 'r'",
            database,
        )
        return {name for (name,) in rows}

    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1))))
    assert days() == {"records_20261125", "records_20261126", "records_20261127"}
    store.write(batch(chain.frames(new_record(2)), "2027-01-31"))
    assert {"records_20270131", "records_20270201", "records_20270202"} < days()
    assert [day.day for day in store.days()] == [DAY, "2027-01-31"]


def test_a_batch_for_a_day_that_another_gateway_has_dropped_is_kept_all_the_same(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1))))
    store.write(batch(chain.frames(new_record(2)), NEXT_DAY))
    with closing(PostgresAudit(postgres.url(database))) as other:
        other.drop(DAY, "p")
    late = chain.frames(new_record(3))
    store.write(batch(late))
    assert frames_of(store.find(late[0].record.record_id)) == late
    assert [day.day for day in store.days()] == [DAY, NEXT_DAY]


def test_days_are_made_while_others_read_and_dropped_once_they_have_read(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    """A partition is attached under a lock that reading and writing do not meet; only dropping waits for readers."""
    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1))))
    store.write(batch(chain.frames(new_record(2)), NEXT_DAY))
    dropped = threading.Event()

    def drop() -> None:
        store.drop(DAY, "p")
        dropped.set()

    dropping = threading.Thread(target=drop)
    with psycopg.connect(postgres.socket_url(database)) as reader:
        reader.execute("SELECT count(*) FROM pointsman.records JOIN pointsman.parts USING (day, number)")
        store.write(batch(chain.frames(new_record(3)), "2027-01-31"))
        dropping.start()
        deadline = time.monotonic() + 20
        waiting = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
        while not postgres.execute(waiting):
            assert time.monotonic() < deadline, "nothing waits for the reader"
            time.sleep(0.005)
        assert not dropped.is_set()
    dropping.join(30)
    assert dropped.is_set()
    assert [day.day for day in store.days()] == [NEXT_DAY, "2027-01-31"]


def test_many_days_are_looked_through_whatever_the_server_allows_in_locks(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    """A statement over all of these days would need more locks than a server has by default."""
    chain = ChainedJournal()
    frames = []
    for number in range(40):
        day = str(date(2026, 1, 1) + timedelta(days=2 * number))
        frames += chain.frames(new_record(number, request_id="q", oip_id=f"o-{number}"))
        store.write(batch(frames[-1:], day))
    assert frames_of(store.find("q")) == frames
    assert frames_of(store.find("o-3")) == frames[3:4]
    assert frames_of(store.find("o-39")) == frames[39:]
    assert [row.sequence for row in store.rows(JOURNAL, 5, 33)] == list(range(5, 34))
    assert len(store.page(Filter(), None, 100).records) == 40
    most = postgres.execute("SHOW max_locks_per_transaction")
    assert most == [("64",)]


def test_a_row_that_was_put_where_no_row_can_be_is_shown_with_the_others(
    store: PostgresAudit, postgres: PostgresServer, database: str
) -> None:
    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1), new_record(2))))
    store.write(batch(chain.frames(new_record(3)), NEXT_DAY))
    postgres.execute(
        "CREATE TEMP TABLE copied AS SELECT * FROM pointsman.records WHERE sequence = 1; "
        "UPDATE copied SET day = '2026-11-27', sequence = 2; INSERT INTO pointsman.records SELECT * FROM copied",
        database,
    )
    with closing(PostgresAudit(postgres.url(database), read_only=True)) as reading:
        assert [row.sequence for row in reading.rows(JOURNAL, 1, 9)] == [1, 2, 2, 3]
        assert [(one.day, one.first, one.last) for one in reading.holdings()] == [
            (DAY, 1, 2),
            (NEXT_DAY, 3, 3),
            ("2026-11-27", 2, 2),
        ]


@pytest.mark.parametrize(
    ("change", "damage"),
    [
        ("SET model = 'other'", "not what its sealed part says: model"),
        ("SET sealed = '\\x00'", "its sealed part is no record"),
        ("SET sealed = NULL", "its sealed part is not there"),
        ("SET unit = NULL, received_ns = 1", "not what its sealed part says: received_ns, unit"),
    ],
)
def test_edited_rows_are_shown_with_what_is_wrong_with_them(
    store: PostgresAudit, postgres: PostgresServer, database: str, change: str, damage: str
) -> None:
    store.write(batch(ChainedJournal().frames(new_record(1), new_record(2), new_record(3))))
    postgres.execute(f"UPDATE pointsman.records {change} WHERE sequence = 2", database)
    rows = rows_of(store, JOURNAL)
    assert [row.sequence for row in rows] == [1, 2, 3]
    assert [row.damage for row in (rows[0], rows[2])] == ["", ""]
    assert damage in rows[1].damage
