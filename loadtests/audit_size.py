"""The audit store at size: what it takes in, what a record costs on disk, how fast it is looked up and listed.

    .venv/bin/python -m loadtests.audit_size [--store postgresql] [--records 1000000] [--days 20] [--look-ups 2000]

Fills a store of SQLite in a temporary folder, or of a PostgreSQL server of its own (Debian's, with its default settings
but for 256 MB of shared buffers and 4 GB of log between checkpoints), through `AuditStore.write`, in batches of the
recorder's size, spread over `--days` days: records of about 600 B sealed with two parts of 0.5 kB, callers' request ids
on all and OIP ids on half of them, one in ten with a shadow, 2 % failed, four journals. Making the records is not
timed; writing them is. Then look-ups by each kind of id, drawn at random over all days; pages of listings; a sample;
and the rows as verification reads them.
Pass marks, checked here: 20 000 records/s written, look-ups p99 ≤ 50 ms, pages ≤ 200 ms.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from gateway.capture import capture
from gateway.chain import genesis
from gateway.ports import AuditStore, Batch, Filter, JournalPosition, Page
from gateway.record import Attempt, Frame, Payload, Record, encode_record
from gateway.recorder import BATCH_FRAMES
from gateway.sealing import frame_of
from gateway.stores.audit_postgres import PostgresAudit
from gateway.stores.audit_sqlite import SqliteAudit
from routing.types import Capture
from tests.postgres_server import PostgresServer, find_binaries
from tests.records import record_id_at

LEAST_PER_SECOND = 20_000
MOST_LOOK_UP_MS = 50.0
MOST_PAGE_MS = 200.0
_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_MODELS = ("fraud", "digits", "churn", "ranking", "prices")
_JOURNALS = tuple(f"gw-a/w{number}.0123456789a{number}" for number in range(4))
_DIGEST = sha256(b"model").hexdigest()
_POLICY = Capture()
_BODY = bytes(random.Random(1).randbytes(450))

_CAPTURED = [capture(_BODY, "full", _POLICY) for _ in range(1_000)]
"""Captured beforehand: salts differ, and the making of ten million records should not take longer than storing them."""


class Traffic:
    """Makes the frames of a gateway's journals, day by day, and remembers some ids to look up."""

    def __init__(self, records: int, days: int, remembered: int) -> None:
        self.records = records
        self.days = days
        self._every = max(1, records // remembered)
        self._random = random.Random(2)
        self._chains = {journal: (0, genesis(journal)) for journal in _JOURNALS}
        self.ids: dict[str, list[str]] = {"record id": [], "request id": [], "OIP id": [], "shadow's record id": []}

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of every day in order."""
        for day in range(self.days):
            begin = _FIRST_DAY + timedelta(days=day)
            first, last = (self.records * at // self.days for at in (day, day + 1))
            step_ns = 86_400 * 10**9 // max(1, last - first)
            begin_ns = int(begin.timestamp()) * 10**9
            for at in range(first, last, BATCH_FRAMES):
                frames = [
                    self._frame(number, begin_ns + (number - first) * step_ns)
                    for number in range(at, min(at + BATCH_FRAMES, last))
                ]
                yield Batch(f"{begin:%Y-%m-%d}", frames, self._positions())

    def _frame(self, number: int, at_ns: int) -> Frame:
        drawn = self._random
        journal = _JOURNALS[number // 16 % len(_JOURNALS)]
        shadow = number % 11 == 10
        failed = drawn.random() < 0.02
        model = drawn.choice(_MODELS)
        (payload, request), (answered, response) = drawn.choice(_CAPTURED), drawn.choice(_CAPTURED)
        if not shadow:
            self._primary = Record(
                record_id=record_id_at(at_ns, number),
                request_id=str(UUID(int=drawn.getrandbits(128), version=4)),
                oip_id=str(UUID(int=drawn.getrandbits(128), version=4)) if drawn.random() < 0.5 else None,
                role="primary",
                received_ns=at_ns,
                model=model,
                protocol="oip-v2",
                outcome="failed" if failed else "served",
                status=500 if failed else 200,
                request=payload,
                response=answered,
                intended="1",
                served=None if failed else "1",
                digest=_DIGEST,
                revision=17,
                cohort_revision=9,
                rules_revision=4_711,
                reason="split",
                rule="split",
                unit=f"{drawn.randrange(100_000):032x}",
                keyed=True,
                attempts=(Attempt("1", "onnx", 120, 200),),
                route_us=12,
                queue_us=30,
                infer_us=120,
                total_us=190,
                client=f"10.0.{drawn.randrange(4)}.{drawn.randrange(250)}",
                gateway="gw-a",
                worker=journal[5:7],
                trace_id=f"{drawn.getrandbits(128):032x}",
            )
            record = self._primary
        else:
            record = _shadow(self._primary, record_id_at(self._primary.received_ns, number), answered)
            request = b""
        if number % self._every == 0 or (shadow and number % self._every < 11):
            self._remember(record)
        sequence, previous = self._chains[journal]
        frame = frame_of(journal, sequence + 1, previous, encode_record(record), request, response)
        self._chains[journal] = (sequence + 1, frame.chain)
        return frame

    def _remember(self, record: Record) -> None:
        if record.role == "shadow":
            self.ids["shadow's record id"].append(record.record_id)
            return
        self.ids["record id"].append(record.record_id)
        self.ids["request id"].append(record.request_id)
        if record.oip_id is not None:
            self.ids["OIP id"].append(record.oip_id)

    def _positions(self) -> list[JournalPosition]:
        return [
            JournalPosition(journal, 1, sequence * 1_700, sequence, chain)
            for journal, (sequence, chain) in self._chains.items()
        ]


def _shadow(primary: Record, record_id: str, response: Payload) -> Record:
    fields = {name: getattr(primary, name) for name in primary.__struct_fields__}
    changed = {"record_id": record_id, "primary_id": primary.record_id, "role": "shadow", "reason": "shadow"}
    return Record(**(fields | changed | {"response": response, "intended": "2", "served": "2"}))


def fill(store: AuditStore, traffic: Traffic) -> tuple[float, float]:
    """Write all batches and return the seconds that writing took, and those of them on a processor."""
    took, cpu, written, told = 0.0, 0.0, 0, time.monotonic()
    for batch in traffic.batches():
        begun, cpu_begun = time.perf_counter(), time.process_time()
        store.write(batch)
        took += time.perf_counter() - begun
        cpu += time.process_time() - cpu_begun
        written += len(batch.frames)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"  {written:>10,} written, {written / took:,.0f} a second so far", flush=True)
    return took, cpu


def timed_ms(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Return how long each call took (ms), sorted."""
    took = []
    for call in calls:
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1e3)
    return sorted(took)


def percentiles(took: Sequence[float]) -> str:
    """Return the median, the 99th percentile and the largest of sorted times (ms)."""
    at = took[min(len(took) - 1, int(len(took) * 0.99))]
    return f"p50 {statistics.median(took):.2f} ms, p99 {at:.2f} ms, most {took[-1]:.2f} ms"


def look_up(store: AuditStore, traffic: Traffic, count: int) -> float:
    """Look up ids of each kind, print how long it takes, and return the largest p99 (ms)."""
    drawn, worst = random.Random(3), 0.0
    for kind, ids in traffic.ids.items():
        chosen = [drawn.choice(ids) for _ in range(count)] if ids else []
        if not chosen:
            continue
        assert all(store.find(one) for one in chosen[:100])
        took = timed_ms([partial(store.find, one) for one in chosen])
        print(f"  by {kind:<20} {percentiles(took)}")
        worst = max(worst, took[int(len(took) * 0.99)])
    took = timed_ms([lambda: store.find("no such id")] * count)
    print(f"  by an id that is not there  {percentiles(took)}")
    return max(worst, took[int(len(took) * 0.99)])


LISTINGS = {
    "all": Filter(),
    "a model": Filter(model="fraud"),
    "failed": Filter(outcome="failed"),
    "status 500": Filter(status=500),
    "a model's version 2 by a caller": Filter(model="fraud", version="2", caller="10.0.1.17"),
    "a status that never was": Filter(status=418),
    "control records": Filter(role="control"),
    "shadows of a model": Filter(model="churn", role="shadow"),
}


def list_pages(store: AuditStore, pages: int) -> float:
    """Go through the first pages of each listing, print how long they take, and return the longest (ms)."""
    worst = 0.0
    for name, wanted in LISTINGS.items():
        took: list[float] = []
        after: str | None = None
        records = 0
        while len(took) < pages:
            begun = time.perf_counter()
            page: Page = store.page(wanted, after, 100)
            took.append((time.perf_counter() - begun) * 1e3)
            records += len(page.records)
            after = page.next
            if after is None:
                break
        worst = max(worst, *took)
        print(f"  {name:<32} {len(took):>3} pages, {records:>5} records: {percentiles(sorted(took))}")
    return worst


def read_rows(store: AuditStore) -> None:
    """Read every row, as verification does, and print how fast that went."""
    begun, cpu_begun, rows = time.perf_counter(), time.process_time(), 0
    for journal in _JOURNALS:
        for row in store.rows(journal, 1, 2**62):
            assert not row.damage, row
            rows += 1
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    print(f"rows: {rows:,} in {seconds:.1f} s, {rows / seconds:,.0f} a second; {cpu / rows * 1e6:.1f} µs of CPU each")


def main() -> int:
    """Fill, measure, print; return 1 when a pass mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--look-ups", type=int, default=2_000)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--folder", type=Path, help="fill a store here and leave it (default: a temporary folder)")
    given = parser.parse_args()
    if given.store == "postgresql":
        binaries = find_binaries()
        assert binaries is not None, "no PostgreSQL 15 or newer is installed; on Debian: apt-get install postgresql"
        server = PostgresServer(binaries, given.folder, {"shared_buffers": "256MB", "max_wal_size": "4GB"})
        try:
            return measure(lambda: PostgresAudit(server.url()), lambda: _database_bytes(server), given)
        finally:
            server.stop()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        folder = Path(made) / "audit"
        return measure(
            lambda: SqliteAudit(folder), lambda: sum(file.stat().st_size for file in folder.iterdir()), given
        )


def _database_bytes(server: PostgresServer) -> int:
    ((used,),) = server.execute("SELECT pg_database_size(current_database())")
    return int(str(used))


def measure(open_store: Callable[[], AuditStore], used_bytes: Callable[[], int], given: argparse.Namespace) -> int:
    """Measure a new store; see `main`."""
    store = open_store()
    traffic = Traffic(given.records, given.days, given.look_ups)
    print(f"{given.records:,} records over {given.days} days, {os.cpu_count()} cores")
    seconds, cpu = fill(store, traffic)
    per_second = given.records / seconds
    each = f"{cpu / given.records * 1e6:.1f} µs of CPU each"
    print(f"written in {seconds:.1f} s: {per_second:,.0f} records a second; {each}")
    store.close()
    used = used_bytes()
    print(f"on disk {used / 1e6:,.0f} MB, {used / given.records:,.0f} B a record")
    store = open_store()
    print(f"look-ups, {given.look_ups} of each kind:")
    look_up_ms = look_up(store, traffic, given.look_ups)
    print("listings:")
    page_ms = list_pages(store, given.pages)
    took = timed_ms([lambda: store.sample("fraud", 0, 100_000)] * 3)
    print(f"sample of 100 000: {percentiles(took)}")
    took = timed_ms([store.days, store.holdings])
    print(f"days and holdings: {took[0]:.0f} ms and {took[1]:.0f} ms")
    read_rows(store)
    store.close()
    missed = []
    if per_second < LEAST_PER_SECOND:
        missed.append(f"written {per_second:,.0f} records/s, not {LEAST_PER_SECOND:,}")
    if look_up_ms > MOST_LOOK_UP_MS:
        missed.append(f"a look-up took {look_up_ms:.1f} ms (p99), not {MOST_LOOK_UP_MS:.0f}")
    if page_ms > MOST_PAGE_MS:
        missed.append(f"a page took {page_ms:.1f} ms, not {MOST_PAGE_MS:.0f}")
    print("\n".join(missed) if missed else "all pass marks met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
