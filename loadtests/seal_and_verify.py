"""How fast checkpoints are made and records are verified, on a SQLite store, in one process.

    .venv/bin/python -m loadtests.seal_and_verify --records 300000

Prints records per second of writing with checkpoints, of what the checkpoints alone take, of verification, and how
long a receipt takes. Figures depend on the machine; compare those of one run.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.capture import capture
from gateway.chain import genesis
from gateway.evidence.checkpointing import Checkpointer
from gateway.evidence.keys import open_key
from gateway.evidence.receipts import receipt
from gateway.evidence.verification import Against, verify
from gateway.evidence.witness import FILE
from gateway.identity import new_record_id
from gateway.ports import Batch, JournalPosition, Place
from gateway.record import Attempt, Frame, Record, encode_record
from gateway.sealing import frame_of
from gateway.stores.audit_sqlite import SqliteAudit
from routing.types import Capture

BATCH = 1_000
JOURNALS = ("bench/w0.000000000000", "bench/w1.000000000000")
BODY = b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[%s]}]}' % b",".join(
    b"0.125" for _ in range(64)
)
ANSWER = b'{"model_name":"fraud","outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[0.75]}]}'


def batches(records: int, day: str) -> Iterator[Batch]:
    """Yield the batches of a recorder that ships two workers' records in turn."""
    chains = {journal: genesis(journal) for journal in JOURNALS}
    sequences = dict.fromkeys(JOURNALS, 0)
    at_ns = time.time_ns()
    for start in range(0, records, BATCH):
        frames: list[Frame] = []
        for number in range(start, min(start + BATCH, records)):
            journal = JOURNALS[number % len(JOURNALS)]
            sequences[journal] += 1
            sealed, request, response = record(journal, number, at_ns + number * 1_000_000)
            frame = frame_of(journal, sequences[journal], chains[journal], sealed, request, response)
            chains[journal] = frame.chain
            frames.append(frame)
        positions = [JournalPosition(name, 1, 0, sequences[name], chains[name]) for name in JOURNALS]
        yield Batch(day, frames, positions)


def record(journal: str, number: int, at_ns: int) -> tuple[bytes, bytes, bytes]:
    """Return the sealed record of a request and its parts."""
    asked, request = capture(BODY, "full", Capture())
    answered, response = capture(ANSWER, "full", Capture())
    record_id = new_record_id(at_ns)
    made = Record(
        record_id=record_id, request_id=record_id, role="primary", received_ns=at_ns, model="fraud", protocol="oip-v2",
        outcome="served", status=200, request=asked, response=answered, intended="1", served="1", digest="5f" * 32,
        revision=3, cohort_revision=1, rules_revision=9, reason="split", rule="split", unit=f"{number % 5000:032x}",
        keyed=True, attempts=(Attempt("1", "onnx", 120, 200),), route_us=9, infer_us=120, total_us=240,
        client="127.0.0.1", gateway="bench", worker=journal[6:8],
    )  # fmt: skip
    return encode_record(made), request, response


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=200_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), arguments.records)


def measure(folder: Path, records: int) -> None:
    """Write, verify and prove in `folder`."""
    store, keys = SqliteAudit(folder / "audit"), folder / "keys"
    key = open_key(keys)
    checkpoints = Checkpointer(store, key, "bench", keys)
    checkpoints.begin()
    writing = sealing = 0.0
    for batch in batches(records, f"{time.strftime('%Y-%m-%d', time.gmtime())}"):
        started = time.perf_counter()
        store.write(batch)
        written = time.perf_counter()
        checkpoints.committed(batch)
        if checkpoints.due():
            checkpoints.seal()
        writing, sealing = writing + written - started, sealing + time.perf_counter() - written
    checkpoints.seal()
    print(f"writing       {records / writing:10,.0f} records/s")
    print(f"checkpoints   {sealing / records * 1e6:10.2f} µs a record beside that")
    started, cpu = time.perf_counter(), time.process_time()
    verdict = verify(store, Against(gateway="bench", own=key.public, witness=keys / FILE))
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert verdict.holds, verdict.first
    print(f"verification  {verdict.records / took:10,.0f} records/s ({verdict.records / cpu:,.0f} a second of CPU)")
    started = time.perf_counter()
    made = receipt(store, Place(JOURNALS[0], records // 4), key.public)
    print(f"a receipt     {time.perf_counter() - started:10.3f} s, {len(made)} bytes")
    store.close()
    size = sum(path.stat().st_size for path in (folder / "audit").iterdir())
    print(f"the store     {size / records:10.0f} bytes a record; {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
