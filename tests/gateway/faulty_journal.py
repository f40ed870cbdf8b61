"""Run by tests as a process of its own: lives of a journal that strace(1) attaches to and makes system calls fail.

    python -m tests.gateway.faulty_journal

It reads orders as lines of JSON, `{"folder": …, "durability": …, "opened": …}`, and answers each with the process id of
a life, which waits: with `opened` its journal is open already. Upon the next line the life goes on; its exit code is
the second answer. A life appends a few groups of records, tells in FOLDER/told what was acknowledged and what was not
(`journal_session.Teller`), and closes its journal.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.errors import AuditUnavailable
from gateway.journal import Journal
from gateway.metrics import Board
from tests.gateway.journal_session import Teller, append
from tests.journals import open_journal

SEGMENT_BYTES = 3_000
RECORDS = 9


def main() -> None:
    for line in sys.stdin:
        _run_one(json.loads(line))


def _run_one(order: dict[str, Any]) -> None:
    going, go = os.pipe()
    ready, waits = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.dup2(2, 1)  # what a life logs is no answer
        os._exit(_life(order, lambda: os.write(waits, b"."), lambda: os.read(going, 1)))
    os.close(going)
    os.read(ready, 1)
    print(child, flush=True)  # noqa: T201 - the answer
    sys.stdin.readline()
    os.write(go, b".")
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer
    for descriptor in (go, ready, waits):
        os.close(descriptor)


def _life(order: dict[str, Any], say_ready: Callable[[], object], wait: Callable[[], object]) -> int:
    try:
        asyncio.run(_live(order, say_ready, wait))
    except BaseException:  # noqa: BLE001 - told on stderr; the copy of the parent must not run on
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


async def _live(order: dict[str, Any], say_ready: Callable[[], object], wait: Callable[[], object]) -> None:
    folder = Path(order["folder"])
    teller, board = Teller(folder), Board(folder / "worker-0.board")
    journal = _open(order, board) if order["opened"] else None
    say_ready()
    wait()
    try:
        journal = journal or _open(order, board)
    except AuditUnavailable:
        teller.tell({"failed": "opening"})
        return
    for group in range(3):
        names = [f"r-{os.getpid()}-{group}-{number}" for number in range(2 + group)]
        await asyncio.gather(*(append(journal, teller, name) for name in names))
        if order["durability"] == "process":
            with suppress(AuditUnavailable):  # then the next group is told so
                await asyncio.to_thread(journal.sync)
    await asyncio.to_thread(journal.close)


def _open(order: dict[str, Any], board: Board) -> Journal:
    return open_journal(Path(order["folder"]) / "journal", board, SEGMENT_BYTES, durability=order["durability"])


if __name__ == "__main__":
    main()
