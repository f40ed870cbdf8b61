"""A gateway's records as months of running leave them: real journals, a real store, checkpoints, erasures, prunings.

    house = House(folder)                one gateway `g` with its journals, its SQLite store and its keys
    house.serve("w0", 20)                records in a worker's journal
    house.ship(day)                      what the recorder does: journals → store, under that day
    house.seal()                         a checkpoint of what was shipped
    house.against()                      what verification holds the store against

A house can be left (`close`), copied as a folder, and opened again.
"""

import asyncio
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gateway.capture import capture
from gateway.control_records import ControlRecords
from gateway.evidence.checkpointing import Checkpointer
from gateway.evidence.erasure import Erased, Erasing
from gateway.evidence.exported import encode_line
from gateway.evidence.keys import open_key
from gateway.evidence.pruning import Pruning
from gateway.evidence.verification import Against
from gateway.evidence.witness import FILE
from gateway.identity import new_record_id
from gateway.journal import Journal
from gateway.journal.frames import frame_end
from gateway.journal.segment import Corruption, parse_header
from gateway.journal.tail import Budget, Tail
from gateway.metrics import Board
from gateway.ports import AuditStore, Batch, Gap, SignedCheckpoint
from gateway.record import Attempt, Payload, Record
from gateway.settings_audit import AuditSettings
from gateway.stores.audit_sqlite import SqliteAudit
from routing import unit_digest
from routing.types import Capture

GATEWAY = "g"
MODELS = ("fraud", "churn")
"""Records of `churn` are kept for 200 days, all others for 400."""
SETTINGS = AuditSettings(retention_days=400, retention={"churn": 200})
WORKERS = ("w0", "w1")
KEEP_ALL = Capture()


def days_ago(days: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


def dawn_ns(day: str) -> int:
    """Return when a day begins (Unix ns): at any hour of today that is past, as everything recorded has to be."""
    return int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()) * 10**9


class House:
    """A gateway's data folder at work."""

    def __init__(
        self, folder: Path, *, gateway: str = GATEWAY, segment_bytes: int = 6_000, store: AuditStore | None = None
    ) -> None:
        self.folder = folder
        self.gateway = gateway
        self.journals = folder / "journal"
        self.journals.mkdir(parents=True, exist_ok=True)
        self.keys = folder / "keys"
        self.exported = folder / "exported.jsonl"
        self.store: AuditStore = store if store is not None else SqliteAudit(folder / "audit")
        self.key = open_key(self.keys)
        self.checkpoints = self.new_checkpointer()
        self.day = self.checkpoints.begin()
        self._segment_bytes = segment_bytes
        self._boards: dict[str, Board] = {}
        self._open: dict[str, Journal] = {}
        self._gaps: list[Gap] = []
        positions = self.store.positions()
        self._positions = dict(positions)
        self._tails: dict[str, Tail] = {}
        self._served = 0

    def new_checkpointer(self) -> Checkpointer:
        return Checkpointer(self.store, self.key, self.gateway, self.keys, journals=self.journals, sealed=self._export)

    def _export(self, checkpoint: SignedCheckpoint) -> None:
        with self.exported.open("ab") as file:
            file.write(encode_line(checkpoint) + b"\n")

    # ── serving ──────────────────────────────────────────────────────────────────────────────────────────────────

    def journal(self, worker: str) -> Journal:
        if worker not in self._open:
            (self.folder / "run").mkdir(exist_ok=True)
            self._boards[worker] = Board(self.folder / "run" / f"{worker}.board")
            self._open[worker] = Journal(
                self.journals, worker, self._segment_bytes, self._boards[worker], gateway=self.gateway
            )
        return self._open[worker]

    def serve(self, worker: str, count: int, chance: random.Random, day: str) -> list[Record]:
        """Append records of requests received on that day, some with a shadow; return them."""
        journal, made = self.journal(worker), []
        for _ in range(count):
            self._served += 1
            record, request, response = self.new_record(worker, chance, dawn_ns(day) + self._served * 1_000_000)
            journal.append(record, request, response)
            made.append(record)
            if chance.random() < 0.1:
                shadow, answer = self._shadow_of(record, chance)
                journal.append(shadow, b"", answer)
        return made

    def new_record(self, worker: str, chance: random.Random, at_ns: int) -> tuple[Record, bytes, bytes]:
        mode = chance.choice(["full", "full", "full", "digest"])
        policy = Capture(request=mode, response="full")  # type: ignore[arg-type]
        asked, request = capture(chance.randbytes(chance.randrange(5, 90)), policy.request, policy)
        answered, response = capture(b'{"outputs":[%d]}' % chance.randrange(10**6), policy.response, policy)
        if chance.random() < 0.1:
            asked, request = Payload(17), b""  # capture `none`
        key = f"u-{chance.randrange(8)}"
        record_id = new_record_id(at_ns)
        record = Record(
            record_id=record_id,
            request_id=chance.choice([record_id, f"order-{chance.randrange(40)}"]),
            role="primary",
            received_ns=at_ns,
            model=chance.choice(MODELS),
            protocol="oip-v2",
            outcome="served",
            status=200,
            request=asked,
            response=answered,
            intended="1",
            served="1",
            reason="split",
            rule="split",
            unit=unit_digest(key).hex(),
            keyed=True,
            revision=3,
            attempts=(Attempt("1", "onnx", 7, 200),),
            gateway=self.gateway,
            worker=worker,
            client="127.0.0.1",
        )
        return record, request, response

    def _shadow_of(self, primary: Record, chance: random.Random) -> tuple[Record, bytes]:
        answered, answer = capture(b'{"outputs":[%d]}' % chance.randrange(10**6), "full", KEEP_ALL)
        shadow = replace(
            primary,
            record_id=new_record_id(primary.received_ns),
            primary_id=primary.record_id,
            role="shadow",
            intended="2",
            served="2",
            reason="shadow",
            rule="shadows",
            response=answered,
        )
        return shadow, answer

    # ── the recorder's work ──────────────────────────────────────────────────────────────────────────────────────

    def ship(self, day: str) -> None:
        """Commit what the journals hold beyond their positions under a day, and seal the day before first."""
        if self.day and day != self.day:
            self.checkpoints.seal()
        self.day = day
        while True:
            batch = self._read(day)
            if not batch.frames and not batch.gaps and not batch.positions:
                return
            self.store.write(batch)
            self.checkpoints.committed(batch)
            if not batch.frames and not batch.gaps:
                return

    def _read(self, day: str) -> Batch:
        frames, positions, budget = [], [], Budget(200, 2**20)
        for folder in sorted(path for path in self.journals.iterdir() if path.is_dir()):
            if folder.name not in self._tails:
                self._tails[folder.name] = Tail(folder, self._positions, self._alarm)
            tail = self._tails[folder.name]
            frames += tail.read(budget)
            positions += tail.positions()
        gaps, self._gaps = self._gaps, []
        return Batch(day, frames, positions, gaps)

    def _alarm(self, _: Path, damage: Corruption) -> None:
        self._gaps.append(
            Gap(damage.journal, damage.sequence, damage.missing, damage.segment, damage.offset, damage.why, 1)
        )

    def seal(self) -> None:
        self.checkpoints.seal()

    # ── privacy ──────────────────────────────────────────────────────────────────────────────────────────────────

    def erase_caller(self, key: str, day: str) -> str:
        """Erase the contents of a caller's records; return the record id of the control record."""
        return self._shipped(self._erasing().erase_caller(key, "auditor", "asked to"), day)

    def erase_request(self, any_id: str, day: str) -> str:
        return self._shipped(self._erasing().erase_request(any_id, "auditor", "asked to"), day)

    def _erasing(self) -> Erasing:
        return Erasing(self.store, self._control(), self.journals, lambda: True)

    def _shipped(self, erasing: Coroutine[Any, Any, Erased], day: str) -> str:
        erased = asyncio.run(erasing)
        self.ship(day)
        return erased.erasure

    def prune(self, day: str) -> None:
        """Prune what is over by now, as the daily job does."""
        asyncio.run(Pruning(self.store, self._control(), SETTINGS).prune("retention", ""))
        self.ship(day)

    def _control(self) -> ControlRecords:
        return ControlRecords(self.journal("control"), self.gateway)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def against(self, **fields: object) -> Against:
        given: dict[str, object] = {
            "gateway": self.gateway,
            "own": self.key.public,
            "witness": self.keys / FILE,
            "journals": self.journals,
        }
        return Against(**(given | fields))  # type: ignore[arg-type]

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()
        for journal in self._open.values():
            journal.close()
        for board in self._boards.values():
            board.close()
        self.store.close()


def damage_a_frame(house: House, worker: str) -> None:
    """Spoil one byte in a frame that has not been shipped, with at least one good frame behind it, if there is one."""
    newest = max((house.journals / worker).glob("*.journal"))
    data = bytearray(newest.read_bytes())
    header, at = parse_header(bytes(data))
    position = house.store.positions().get(header.journal)
    if position is not None and position.segment == header.segment:
        at = position.offset
    frames = []
    while at < len(data):
        frames.append(at)
        at = frame_end(memoryview(data), at)
    if len(frames) > 1:
        data[frames[-2] + 60] ^= 0xFF
        newest.write_bytes(data)


def live(house: House, chance: random.Random) -> None:
    """Months of one gateway's life: several days, journals, erasures, gaps and prunings, all sealed at the end."""
    ages = sorted(chance.sample([460, 455, 300, 250, 230, 120, 60, 30, 3], chance.randrange(2, 6)), reverse=True)
    days = [days_ago(age) for age in ages] + [days_ago(0)]
    for day in days:
        for _ in range(chance.randrange(1, 4)):
            for worker in WORKERS:
                house.serve(worker, chance.randrange(1, 14), chance, day)
            if chance.random() < 0.15:
                damage_a_frame(house, chance.choice(WORKERS))
            house.ship(day)
            if chance.random() < 0.7:
                house.seal()
    today = days[-1]
    for _ in range(chance.randrange(3)):
        house.erase_caller(f"u-{chance.randrange(8)}", today)
    if chance.random() < 0.5:
        house.prune(today)
        house.seal()
    if chance.random() < 0.5:
        some = house.serve("w0", 3, chance, today)
        house.ship(today)
        house.erase_request(some[1].request_id, today)
    for worker in WORKERS:
        house.serve(worker, chance.randrange(6), chance, today)
    house.ship(today)
    house.seal()
