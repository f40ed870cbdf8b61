"""Run by tests as a process of its own, under strace(1): a few lives of one journal, and what was promised meanwhile.

    python -m tests.gateway.journal_session power FOLDER     acknowledged records, an erasure, two sudden ends
    python -m tests.gateway.journal_session process FOLDER   a reader that ships beside the writer, two sudden ends

The journals are in FOLDER/journal. Each promise is one line of JSON in FOLDER/told, written with one writev(2), which
nobody else uses, when it is made; so a trace of the system calls has it in its place:

    {"acked": record id, "journal": name, "sequence": n}    the reply may leave
    {"failed": record id}                                   it may not
    {"erased": [record ids]}                                no byte of these contents is left
    {"shipped": {…position}, "records": [[sequence, record id], …]}   the store has these and that position
"""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import AuditUnavailable
from gateway.journal import Journal
from gateway.journal.erasing import erase_in_journals
from gateway.journal.tail import Budget, Tail
from gateway.metrics import Board
from gateway.ports import JournalPosition, Place
from tests.journals import made, open_journal

SEGMENT_BYTES = 5_000
BODY_BYTES = 700
GROUPS = 16 if os.environ.get("FULL_IMAGES") == "1" else 7


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    lives = POWER if kind == "power" else PROCESS
    for number, live in enumerate(lives):
        end_suddenly_after(lambda number=number, live=live: live(folder, number))  # type: ignore[misc]


def end_suddenly_after(life: Callable[[], None]) -> None:
    """Run a life in a process of its own that ends as by SIGKILL when it is over."""
    child = os.fork()
    if child == 0:
        try:
            life()
        except BaseException:  # noqa: BLE001 - told on stderr; the copy of the parent must not run on
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"a life ended with status {status}")


def secret_of(record_id: str) -> bytes:
    """Return bytes that stand in no record but this one."""
    return f"canary of {record_id}.".encode()


def new_record(record_id: str) -> tuple[Any, bytes, bytes]:
    record, request, response = made(record_id.removeprefix("r-"), secret_of(record_id).ljust(BODY_BYTES, b"."))
    return record, request, response


class Teller:
    """Writes down what was promised."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def tell(self, said: Mapping[str, Any]) -> None:
        os.writev(self._file, [json.dumps(said).encode() + b"\n"])


async def append(journal: Journal, teller: Teller, record_id: str) -> None:
    """Append a record, and tell that it was acknowledged, or that it was not."""
    try:
        waiting = journal.append(*new_record(record_id))
        sequence = journal.sequence
        if waiting is not None:
            await waiting
    except AuditUnavailable:
        teller.tell({"failed": record_id})
    else:
        teller.tell({"acked": record_id, "journal": journal.name, "sequence": sequence})


async def append_in_groups(journal: Journal, teller: Teller, life: int) -> None:
    for group in range(GROUPS):
        await asyncio.gather(
            *(append(journal, teller, f"r-{life}-{group}-{number}") for number in range(1 + group % 5))
        )


def _open(folder: Path, **fields: Any) -> Journal:
    return open_journal(folder / "journal", Board(folder / "worker-0.board"), SEGMENT_BYTES, **fields)


def _power_life(folder: Path, life: int) -> None:
    async def live() -> None:
        journal, teller = _open(folder, durability="power"), Teller(folder)
        await append_in_groups(journal, teller, life)
        for number in range(3):  # nobody waits for these any more
            journal.append(*new_record(f"r-{life}-unheard-{number}"))

    asyncio.run(live())


def _power_life_with_an_erasure(folder: Path, life: int) -> None:
    async def live() -> None:
        journal, teller = _open(folder, durability="power"), Teller(folder)
        await append_in_groups(journal, teller, life)
        taken = [f"r-{life}-6-0", "r-0-1-0", "r-0-1-1"]
        places = [Place(journal.name, sequence) for sequence in _sequences(folder, taken)]
        await asyncio.to_thread(erase_in_journals, folder / "journal", places)
        teller.tell({"erased": taken})
        await append(journal, teller, f"r-{life}-after")
        _append_short(journal, teller, f"r-{life}-short", max((folder / "journal" / "w0").glob("*.journal")))
        await append(journal, teller, f"r-{life}-too-late")

    asyncio.run(live())


def _append_short(journal: Journal, teller: Teller, record_id: str, segment: Path) -> None:
    """Append a record of which only 100 bytes are written, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + 100, hard))
    try:
        journal.append(*new_record(record_id))
    except AuditUnavailable:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        teller.tell({"failed": record_id})


def _sequences(folder: Path, wanted: list[str]) -> list[int]:
    lines = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
    return [line["sequence"] for line in lines if line.get("acked") in wanted]


def _process_life(folder: Path, life: int) -> None:
    journal, teller = _open(folder), Teller(folder)
    shipped = [json.loads(line)["shipped"] for line in _lines(folder) if "shipped" in line]
    positions = [msgspec.convert(said | {"chain": bytes.fromhex(said["chain"])}, JournalPosition) for said in shipped]
    tail = Tail(folder / "journal" / "w0", {one.journal: one for one in positions}, lambda *_: None)
    for group in range(GROUPS):
        for number in range(2):
            journal.append(*new_record(f"r-{life}-{group}-{number}"))
        frames = tail.read(Budget(2 + group % 2, 10**6))
        tail.sync()
        for position in tail.positions():
            said = msgspec.structs.asdict(position) | {"chain": position.chain.hex()}
            teller.tell({"shipped": said, "records": [[one.sequence, one.record.record_id] for one in frames]})
    journal.append(*new_record(f"r-{life}-last"))  # which nobody has synced when this life ends


def _lines(folder: Path) -> list[str]:
    told = folder / "told"
    return told.read_text().splitlines() if told.exists() else []


def _orderly_life(folder: Path, life: int) -> None:
    async def live() -> None:
        journal, teller = _open(folder, durability="power"), Teller(folder)
        await append_in_groups(journal, teller, life)
        await asyncio.to_thread(journal.close)

    asyncio.run(live())


POWER = (_power_life, _power_life_with_an_erasure, _orderly_life)
PROCESS = (_process_life, _process_life, _process_life)

if __name__ == "__main__":
    main()
