"""Rules whose every revision is known beforehand, for tests of the last good files; and processes that write them.

    python lastgood_rules.py killed FOLDER ROUNDS     writers of one folder, each killed at a random moment
    python lastgood_rules.py together FOLDER ROUNDS   three writers of one folder at once, up to revision ROUNDS

What every writer was told to be on the disk is written to FOLDER/../told.json.
"""

import json
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.ports import DocumentName, Head, StoredDocument
from gateway.snapshot import LastGood, Saved
from gateway.snapshot import lastgood_generation as generation
from gateway.snapshot.documents import Changed
from gateway.snapshot.lastgood_log import Step

EPOCH = "an epoch"
SHORT_LOG = 12


def main() -> None:
    what, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    generation._MOST_LINES = SHORT_LOG
    told = kill_writers(folder, rounds) if what == "killed" else write_together(folder, rounds)
    folder.with_name("told.json").write_text(json.dumps(told))


def changed_by(revision: int) -> Changed:
    """Return what a revision changes: one model that comes, changes or goes, and a cohort beside it now and then."""
    model: DocumentName = ("route", f"model-{revision % 4}")
    stored = StoredDocument(revision, f'{{"ü":"{revision}"}}'.encode())
    cohort: Changed = {("cohort", "beta"): stored} if revision % 3 == 0 else {}
    return {model: None if revision % 5 == 0 else stored, **cohort}


def rules_at(revision: int) -> Saved:
    """Return the rules as they are after a revision."""
    documents: dict[DocumentName, StoredDocument] = {}
    for number in range(1, revision + 1):
        for name, stored in changed_by(number).items():
            if stored is None:
                documents.pop(name, None)
            else:
                documents[name] = stored
    return Saved(Head(EPOCH, revision), f"operation {revision}", documents)


def step(since: int | None, revision: int, *, exact: bool = False) -> Step:
    """Return the step from one revision to another, or from nothing."""
    changed: dict[DocumentName, StoredDocument | None] = {}
    for number in range((since or 0) + 1, revision + 1):
        changed |= changed_by(number)
    documents = rules_at(revision).documents
    head = Head(EPOCH, since) if since is not None else None
    return Step(head, exact, Head(EPOCH, revision), f"operation {revision}", changed, len(documents))


def keep(files: LastGood, since: int | None, revision: int) -> None:
    """Have a revision on the disk, as a worker has."""
    if not files.append(step(since, revision)):
        files.write(rules_at(revision))
    if files.is_outgrown(Head(EPOCH, revision)):
        files.rewrite(rules_at(revision))


def kill_writers(folder: Path, rounds: int) -> list[tuple[int, int]]:
    """Return of each life the last revision that it was told is kept, and the newest that could be read afterwards."""
    told = []
    for _ in range(rounds):
        reading, writing = os.pipe()
        child = _fork(lambda writing=writing: _write_on(folder, writing))  # type: ignore[misc]
        os.close(writing)
        heard = os.read(reading, 8)
        time.sleep(random.uniform(0, 0.02))  # the moment of the kill, not a wait
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reading, 65_536):
            heard += more
        os.close(reading)
        saved = LastGood(folder).newest()
        assert saved == rules_at(saved.head.revision if saved is not None else 0)
        told.append((struct.unpack("<q", heard[-8:])[0], saved.head.revision))
    return told


def _write_on(folder: Path, telling: int) -> None:
    files = LastGood(folder)
    saved = files.newest()
    since = saved.head.revision if saved is not None else None
    for revision in range((since or 0) + 1, (since or 0) + 500):
        keep(files, since, revision)
        os.write(telling, struct.pack("<q", revision))
        since = revision
    signal.pause()


def write_together(folder: Path, last: int) -> list[int]:
    """Return how many writers did not end as they should."""
    children = [_fork(lambda: _write_up_to(folder, last)) for _ in range(3)]
    return [os.waitpid(child, 0)[1] for child in children]


def _write_up_to(folder: Path, last: int) -> None:
    """Go through the revisions at a pace of its own, seeing some and being late for others."""
    files, chance = LastGood(folder), random.Random(os.getpid())
    since, revision = None, 1
    while True:
        keep(files, since, revision)
        saved = LastGood(folder).newest()
        assert saved is not None
        assert saved.head.revision >= revision, f"revision {revision} was kept, and {saved.head.revision} is there"
        if revision == last:
            return
        since, revision = revision, min(last, revision + chance.randint(1, 4))


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - told on stderr; the copy of the parent must not run on
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


if __name__ == "__main__":
    main()
