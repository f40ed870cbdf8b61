"""The look-ups on a bench, with real parts, and what they look at: changes at chosen times, and records."""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gateway.controlplane.lookups import Lookups
from gateway.ports import ChangeSet, Head, Resettlement, Write
from gateway.record import Payload, Record
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.revisions_sqlite import SqliteRevisions
from routing import (
    Facts,
    RouteRules,
    consulted_headers,
    encode_document,
    parse_cohort,
    parse_route,
    resolve,
    routing_key,
    unit_digest,
)
from tests.conftest import RunningValkey
from tests.gateway.conftest import Bench, Document, RunBench
from tests.records import ChainedJournal, batch

SECOND = 1_000_000_000
_KEYS = ("head", "routes", "cohorts", "versions", "changes")


def route(split: Mapping[str, int] | None = None, model: str = "fraud", **fields: Any) -> Document:
    return "route", model, encode_document(parse_route({"model": model, "split": split or {"1": 10_000}} | fields))


def cohort(name: str, **fields: Any) -> Document:
    return "cohort", name, encode_document(parse_cohort({"name": name} | fields))


class Copy:
    """The rules' keys as they are now, to be brought back as from an old backup."""

    def __init__(self, valkey: RunningValkey) -> None:
        self._valkey = valkey
        replies = {name: valkey.command("DUMP", f"{{pm}}:{name}") for name in _KEYS}
        self._dumps = {name: reply.partition(b"\r\n")[2][:-2] for name, reply in replies.items()}

    def restore(self) -> None:
        for name, dump in self._dumps.items():
            self._valkey.command("DEL", f"{{pm}}:{name}")
            if dump:
                assert self._valkey.command("RESTORE", f"{{pm}}:{name}", "0", dump).startswith(b"+OK")


class Looking:
    """Look-ups beside the archive and the audit store that they read."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.store = bench.store
        self.archive = SqliteRevisions(folder / "revisions.db")
        self.audit = SqliteAudit(folder / "audit")
        for part in (self.archive, self.audit):
            bench.opened.callback(part.close)
        self.lookups = Lookups(bench.store, self.audit, self.archive)
        self._sequence = 0
        self._journal = ChainedJournal()

    def again(self, archive: SqliteRevisions) -> Lookups:
        """Return look-ups of another control process, with an archive of its own."""
        self.bench.opened.callback(archive.close)
        return Lookups(self.store, self.audit, archive)

    async def change(self, *documents: Document, at_ns: int | None = None) -> int:
        """Make one change of the store's documents and return its revision."""
        writes = []
        for kind, name, json in documents:
            present = await self.store.read(kind, name)
            writes.append(Write(kind, name, json, present.revision if present is not None else 0))
        self._sequence += 1
        made_ns = at_ns if at_ns is not None else time.time_ns()
        return await self.store.apply(ChangeSet(f"op-{self._sequence}", "ann", "why", made_ns, tuple(writes)))

    async def resettle(self, beyond: int, *documents: Document) -> Head:
        """Begin a new life of the store, as an operator's word does."""
        self._sequence += 1
        return await self.store.resettle(
            Resettlement(
                operation_id=f"op-{self._sequence}",
                actor="operator",
                comment="",
                at_ns=time.time_ns(),
                epoch=f"life-{self._sequence}",
                seen=await self.store.head(),
                beyond=beyond,
                follows={},
                writes=tuple(Write(kind, name, json, 0) for kind, name, json in documents),
            )
        )

    async def rules(self, model: str = "fraud") -> tuple[RouteRules, int, int | None]:
        """Return the rules of now as a worker has them, with the revisions that its records name."""
        stored = await self.store.read("route", model)
        assert stored is not None
        parsed = parse_route(stored.json)
        found = {pin.cohort: await self.store.read("cohort", pin.cohort) for pin in parsed.pins}
        there = {name: one for name, one in found.items() if one is not None}
        newest = max((one.revision for one in there.values()), default=None)
        return (
            RouteRules(parsed, {name: parse_cohort(one.json) for name, one in there.items()}),
            stored.revision,
            newest,
        )

    async def serve(
        self, request_id: str, headers: Mapping[str, str] | None = None, *, asked: str | None = None, **fields: Any
    ) -> Record:
        """Have the record that a worker on the rules of now leaves of one request, and return it."""
        rules, revision, cohort_revision = await self.rules(fields.get("model", "fraud"))
        assert rules.route is not None
        head = await self.store.head()
        assert head is not None
        sent = headers or {}
        record_id = f"r-{self._journal.sequence + 1}"
        key = routing_key(rules.route, sent)
        consulted = {n: sent[n] for n in consulted_headers(rules.route, rules.cohorts) if n in sent}
        received_ns = fields.pop("received_ns", time.time_ns())
        unit = unit_digest(key if key is not None else record_id)
        decision = resolve(
            rules.route, rules.cohorts, Facts(unit, record_id, received_ns, key is not None, asked, consulted)
        )
        given: dict[str, Any] = {
            "record_id": record_id,
            "request_id": request_id,
            "role": "primary",
            "received_ns": received_ns,
            "model": "fraud",
            "protocol": "oip-v2",
            "outcome": "served",
            "status": 200,
            "request": Payload(0),
            "response": Payload(0),
            "asked_version": asked,
            "intended": decision.version,
            "served": decision.version,
            "reason": decision.reason,
            "rule": decision.rule,
            "cohort": decision.cohort,
            "revision": revision,
            "cohort_revision": cohort_revision,
            "rules_revision": head.revision,
            "unit": unit.hex(),
            "keyed": key is not None,
            "headers": consulted,
        }
        record = Record(**(given | fields))
        self.audit.write(batch(self._journal.frames(record)))
        return record


Scenario = Callable[[Looking], Awaitable[None]]
RunLooking = Callable[[Scenario], None]


def run_looking(run: RunBench, folder: Path) -> RunLooking:
    """Return what runs a scenario with look-ups on the bench that `run` makes."""

    async def whole(scenario: Scenario, bench: Bench) -> None:
        await scenario(Looking(bench, folder / "control"))

    return lambda scenario: run(partial(whole, scenario))
