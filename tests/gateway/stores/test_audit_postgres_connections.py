"""How the audit store in PostgreSQL lives with its server: settings, loss, time limits, versions, and many at once."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic, sleep

import psycopg
import pytest
import structlog

from gateway.errors import AuditUnavailable, SettingsError
from gateway.ports import AuditStore
from gateway.stores.audit_postgres import PostgresAudit
from gateway.stores.postgres_connection import Lend, connect
from gateway.stores.postgres_link import READERS, PostgresLink, Turns
from gateway.stores.postgres_url import parse_postgres_url
from tests.postgres_server import PASSWORD, PostgresServer
from tests.records import ChainedJournal, batch, new_record
from tests.redis_servers import free_port

Open = Callable[..., PostgresAudit]


@pytest.fixture
def open_store() -> Iterator[Open]:
    """Open stores; they are closed with the test."""
    with ExitStack() as opened:

        def open_one(url: str, *, read_only: bool = False) -> PostgresAudit:
            store = PostgresAudit(url, read_only=read_only)
            opened.callback(store.close)
            return store

        yield open_one


def test_the_store_writes_with_synchronous_commit_whatever_the_server_and_the_url_say(
    postgres: PostgresServer, database: str
) -> None:
    postgres.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    address = parse_postgres_url(postgres.url(database) + "?options=-csynchronous_commit%3Dlocal")
    with connect(address, read_only=False, seconds=7) as connection:
        assert connection.value("SHOW synchronous_commit") == "on"


def test_a_server_that_waits_for_its_replicas_to_apply_goes_on_doing_so(
    postgres: PostgresServer, database: str
) -> None:
    postgres.execute(f"ALTER DATABASE {database} SET synchronous_commit = remote_apply")
    with connect(parse_postgres_url(postgres.url(database)), read_only=False, seconds=7) as connection:
        assert connection.value("SHOW synchronous_commit") == "remote_apply"


def test_everything_that_a_session_can_wait_for_is_bounded(postgres: PostgresServer, database: str) -> None:
    with connect(parse_postgres_url(postgres.url(database)), read_only=False, seconds=7) as connection:
        assert connection.value("SHOW statement_timeout") == "7s"
        for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
            assert connection.value(f"SHOW {name}") not in {"0", ""}
        assert connection.patience_s > 7


def test_a_server_that_stops_answering_is_given_up(start_postgres: Callable[[], PostgresServer]) -> None:
    server = start_postgres()
    connection = connect(parse_postgres_url(server.url()), read_only=True, seconds=30)
    connection.patience_s = 0.5
    server.freeze()
    begun = monotonic()
    with pytest.raises(psycopg.OperationalError, match="not answered"), connection.transaction():
        connection.value("SELECT 1")
    assert monotonic() - begun < 20
    assert connection.closed
    server.thaw()


def test_a_statement_that_takes_too_long_says_so_and_leaves_the_connection_usable(
    postgres: PostgresServer, database: str
) -> None:
    link = PostgresLink(parse_postgres_url(postgres.url(database)), lambda _: None, lambda _: None, read_only=False)
    with link.writer() as connection:
        connection.execute("SET statement_timeout = '10ms'")
        pid = connection.value("SELECT pg_backend_pid()")
    with pytest.raises(AuditUnavailable, match="did not finish within its time"), link.writer() as connection:
        connection.value("SELECT count(*) FROM generate_series(1, 1000000000)")
    with link.writer() as connection:
        assert connection.value("SELECT pg_backend_pid()") == pid
    link.close()


def test_connections_that_the_server_closed_while_idle_are_replaced_unseen(
    postgres: PostgresServer, database: str, open_store: Open
) -> None:
    store, journal = open_store(postgres.url(database)), ChainedJournal()
    first, second = new_record(1), new_record(2)
    store.write(batch(journal.frames(first)))
    assert store.find(first.record_id)
    postgres.cut_all(database)
    assert [kept.frame.record.record_id for kept in store.find(first.record_id)] == [first.record_id]
    store.write(batch(journal.frames(second)))
    assert store.positions()[journal.name].sequence == 2


def test_a_connection_that_is_lost_in_the_middle_is_an_error_in_our_words_and_the_next_call_connects_again(
    postgres: PostgresServer, database: str
) -> None:
    link = PostgresLink(parse_postgres_url(postgres.url(database)), lambda _: None, lambda _: None, read_only=False)

    def lose(lend: Lend) -> None:
        with lend() as connection:
            postgres.cut_all(database)
            connection.value("SELECT 1")

    for lend in (link.reader, link.writer):
        with pytest.raises(AuditUnavailable, match=f"audit store at 127.0.0.1:{postgres.port}/"):
            lose(lend)
        with lend() as connection:
            assert connection.value("SELECT 1") == 1
    link.close()


def test_a_store_opens_while_its_server_is_away_and_works_once_it_is_there(
    start_postgres: Callable[[], PostgresServer], open_store: Open
) -> None:
    server = start_postgres()
    server.kill()
    with structlog.testing.capture_logs() as logged:
        store = open_store(server.url())
    assert [line["event"] for line in logged] == ["audit_store_away"]
    with pytest.raises(AuditUnavailable, match="cannot be reached"):
        store.positions()
    server.start()
    assert dict(store.positions()) == {}
    server.kill()
    with pytest.raises(AuditUnavailable):
        store.positions()
    server.start()
    assert dict(store.positions()) == {}


def test_no_message_repeats_the_password_whatever_is_wrong(postgres: PostgresServer, database: str) -> None:
    quoted = PASSWORD.replace("+", "%2B").replace("/", "%2F")
    urls = [
        postgres.url(database).replace(quoted, "wrong-s3cret"),
        postgres.url("no_such_database"),
        postgres.url(database, port=free_port()),
        postgres.url(database) + "?sslmode=require",
        postgres.url(database) + "?sslmode=sometimes",
        postgres.url(database) + "?sslrootcert=/nowhere&sslmode=verify-ca",
    ]
    for url in urls:
        with structlog.testing.capture_logs() as logged:
            store = PostgresAudit(url)
            with pytest.raises(AuditUnavailable) as refused:
                store.write(batch(ChainedJournal().frames(new_record(1))))
            store.close()
        told = repr(refused.value) + repr(refused.value.__context__ and "") + repr(logged)
        assert refused.value.__suppress_context__
        assert PASSWORD not in told
        assert quoted not in told
        assert "wrong-s3cret" not in told


def test_options_of_the_url_reach_the_server(postgres: PostgresServer, database: str, open_store: Open) -> None:
    open_store(postgres.url(database) + "?application_name=audit-of-berlin")
    names = postgres.execute(f"SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = '{database}'")
    assert names == [("audit-of-berlin",)]


def test_a_url_of_something_else_is_a_mistake_of_settings() -> None:
    with pytest.raises(SettingsError, match=r"audit\.url"):
        PostgresAudit("postgresql://h/d?no_such_option=1")


def test_a_newer_schema_is_refused_with_a_message_that_says_what_to_do(
    postgres: PostgresServer, database: str, open_store: Open
) -> None:
    open_store(postgres.url(database))
    postgres.execute("INSERT INTO pointsman.schema_versions VALUES (7)", database)
    for read_only in (False, True):
        with pytest.raises(AuditUnavailable, match="has schema 7 and this Pointsman knows schema 1; run the version"):
            open_store(postgres.url(database), read_only=read_only)


def test_who_only_reads_makes_no_tables_and_changes_nothing(
    postgres: PostgresServer, database: str, open_store: Open
) -> None:
    with pytest.raises(AuditUnavailable, match="has no records yet; start a gateway"):
        open_store(postgres.url(database), read_only=True)
    assert postgres.execute("SELECT to_regnamespace('pointsman')", database) == [(None,)]
    record = new_record(1)
    open_store(postgres.url(database)).write(batch(ChainedJournal().frames(record)))
    reader: AuditStore = open_store(postgres.url(database), read_only=True)
    assert len(reader.find(record.record_id)) == 1
    for change in (
        lambda: reader.write(batch(())),
        lambda: reader.erase((), "e"),
        lambda: reader.drop("2026-11-25", "p"),
    ):
        with pytest.raises(AuditUnavailable, match="for reading only"):
            change()


def test_a_database_of_another_encoding_is_refused(postgres: PostgresServer, database: str) -> None:
    name = f"{database}_latin"
    postgres.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(AuditUnavailable, match="encoding LATIN1; make one with ENCODING 'UTF8'"):
            PostgresAudit(postgres.url(name))
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_primary_that_became_read_only_is_left_and_said_so(
    postgres: PostgresServer, database: str, open_store: Open
) -> None:
    """As after a failover: the old primary still answers, and takes nothing."""
    store, journal = open_store(postgres.url(database)), ChainedJournal()
    store.write(batch(journal.frames(new_record(1))))
    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    postgres.cut_all(database)
    for call in (lambda: store.write(batch(journal.frames(new_record(2)))), store.positions):
        with pytest.raises(AuditUnavailable, match="read-only"):
            call()
    assert store.find(new_record(1).record_id)
    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = off")
    store.write(batch(ChainedJournal("gw-b/w0.0123456789ab").frames(new_record(3))))


def test_readers_beyond_the_connections_there_are_wait_for_their_turn(postgres: PostgresServer, database: str) -> None:
    link = PostgresLink(parse_postgres_url(postgres.url(database)), lambda _: None, lambda _: None, read_only=True)
    with ExitStack() as lent:
        for _ in range(READERS):
            lent.enter_context(link.reader())
        used = postgres.execute(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'")
        assert used == [(READERS,)]
    with link.reader() as connection:
        assert connection.value("SELECT 1") == 1
    used = postgres.execute(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'")
    assert used == [(READERS,)]
    link.close()


def test_who_waits_for_a_connection_gets_the_next_one_that_is_free_and_gives_up_in_time() -> None:
    turns = Turns(1)
    assert turns.take(0)
    assert not turns.take(0.01)
    got: list[str] = []

    def wait(name: str) -> None:
        assert turns.take(20)
        got.append(name)
        turns.give_back()

    waiting = []
    for name in ("first", "second"):
        waiting.append(threading.Thread(target=wait, args=(name,)))
        waiting[-1].start()
        deadline = monotonic() + 20
        while turns.waiting < len(waiting):
            assert monotonic() < deadline
            sleep(0.001)
    turns.give_back()
    for thread in waiting:
        thread.join()
    assert got == ["first", "second"]
    assert turns.take(0)


_OPENS = """
import sys
from gateway.stores.audit_postgres import PostgresAudit
from tests.records import ChainedJournal, batch, new_record
number = int(sys.argv[2])
sys.stdin.read(1)
store = PostgresAudit(sys.argv[1])
store.write(batch(ChainedJournal(f"gw-{number}/w0.0123456789ab").frames(new_record(number))))
"""


def test_four_gateways_that_start_at_once_make_the_tables_once(
    postgres: PostgresServer, database: str, open_store: Open
) -> None:
    starting = [
        subprocess.Popen([sys.executable, "-c", _OPENS, postgres.url(database), str(number)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for one in starting:
        assert one.stdin is not None
        one.stdin.write(b"!")
        one.stdin.close()
    assert [one.wait(60) for one in starting] == [0, 0, 0, 0]
    assert postgres.execute("SELECT version FROM pointsman.schema_versions", database) == [(1,)]
    assert len(open_store(postgres.url(database)).positions()) == 4
