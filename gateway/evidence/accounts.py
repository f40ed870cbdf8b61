"""What accounts for contents and records that are no longer there: the control records of erasures and prunings.

An erasure is accounted for when its control record is covered by a checkpoint and it took just the places that record
tells of; where some of those are gone by now (pruned), or were erased earlier, when everything it took is of the
caller or request that it was asked to erase, from before it, and no more than it says. Stubs are accounted for when
they are the places that the record of their pruning tells of, in its day; a day that is gone, when the record of its
pruning tells how many records it held and which were its last checkpoints.

Belongs here: comparing what is gone with what accounts for it. Never here: reading all records, or chains.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from gateway.columns import made_in, packed_id
from gateway.evidence.findings import Finding, Findings
from gateway.evidence.glance import UNREADABLE
from gateway.evidence.places import ERASE, PRUNE
from gateway.ports import AuditStore, Dropped, Row
from gateway.record import Record, decode_record

ACCOUNTING_ACTIONS: Final = frozenset({ERASE, PRUNE})
_CLOCKS_NS = 300 * 10**9
"""How far the clocks of gateways that share a store may be apart."""


class Control(Struct, frozen=True):
    """A control record that accounts for something, as far as it is needed, and whether a checkpoint covers it."""

    action: str
    received_ns: int
    details: Mapping[str, Any]


class Gone(Struct, frozen=True):
    """A run of checkpoints of a gateway that are no longer there.

    `next_previous` is what the one after them says of the last; `since` and `until` are the days of the one before
    them ("": there is none) and of the one after.
    """

    gateway: str
    first: int
    last: int
    next_previous: str
    since: str
    until: str


Lookup = Callable[[str], Control | str]
"""Finds a control record by its record id, proven to be covered; or says in words why it cannot be had."""


class Accounts:
    """Collects what is gone, and the control records; `settle` compares them."""

    def __init__(self) -> None:
        self._controls: dict[str, Control] = {}
        self._fresh: list[tuple[str, Control]] = []
        self._erased: dict[str, dict[str, array[int]]] = {}
        self._stubs: dict[tuple[str, str], dict[str, array[int]]] = {}

    def note_stub(self, row: Row, day: str) -> None:
        """Note a stub that stands in a day."""
        _note(self._stubs.setdefault((row.pruning or "", day), {}), row)

    def note_erased(self, row: Row) -> None:
        """Note a record whose contents were erased."""
        _note(self._erased.setdefault(row.erasure or "", {}), row)

    def note_control(self, row: Row) -> None:
        """Note a control record; it counts when `confirm` is called after it."""
        try:
            record = decode_record(row.sealed or b"")
        except UNREADABLE:
            return
        if record.role == "control":
            self._fresh.append((record.record_id, control_of(record)))

    def confirm(self, *, covered: bool) -> None:
        """Let the control records noted since the last call count, if the checkpoint that covers them is sound."""
        if covered:
            self._controls.update(self._fresh)
        self._fresh.clear()

    def settle(
        self, store: AuditStore, gone: Iterable[Gone], dropped: Iterable[Dropped], lookup: Lookup, findings: Findings
    ) -> None:
        """Note a finding for whatever is not accounted for; stubs first, then erasures, days and checkpoints."""

        def find(record_id: str) -> Control | str:
            return self._controls.get(record_id) or lookup(record_id)

        # What nothing tells of comes first: it is sure then which records are concerned.
        told = {(pruning, day): find(pruning) for pruning, day in sorted(self._stubs)}
        for (pruning, day), control in sorted(told.items(), key=lambda one: isinstance(one[1], Control)):
            if why := _wrong_pruning(control, day, self._stubs[pruning, day]):
                what = f"it was pruned, but {why} (pruning {pruning})"
                findings.add(_first_of(self._stubs[pruning, day], day, what))
        for erasure, places in sorted(self._erased.items()):
            self._settle_erasure(store, erasure, places, find(erasure), findings)
        _settle_days(list(gone), list(dropped), find, findings)

    def _settle_erasure(
        self,
        store: AuditStore,
        erasure: str,
        places: Mapping[str, "array[int]"],
        control: Control | str,
        findings: Findings,
    ) -> None:
        if isinstance(control, str):
            findings.add(_first_of(places, "", f"its contents were erased, but {control} (erasure {erasure})"))
            return
        if control.action != ERASE:
            what = f"its contents were erased, but {erasure} is the record of another action"
            findings.add(_first_of(places, "", what))
            return
        count, digest = _counted(places)
        if count == control.details.get("count") and digest == control.details.get("places_sha256"):
            return
        for row in _rows_at(store, places):
            if not _was_asked_for(row, control):
                what = f"its contents were erased, but not by what {erasure} was asked to erase"
                findings.add(Finding(what, journal=row.journal, sequence=row.sequence))
                return
        if not count <= _number(control.details.get("count")):
            what = f"its contents were erased, with {count} records in all, but {erasure} tells of fewer"
            findings.add(_first_of(places, "", what))


def control_of(record: Record) -> Control:
    """Return what a control record accounts for."""
    return Control(record.action or "", record.received_ns, record.details)


def _note(places: dict[str, "array[int]"], row: Row) -> None:
    found = places.get(row.journal)
    if found is None:
        found = places[row.journal] = array("q")
    found.append(row.sequence)


def _counted(places: Mapping[str, "array[int]"]) -> tuple[int, str]:
    """Return how many places these are, and their digest as `places_digest` makes it, in little memory."""
    digest, count = sha256(), 0
    for journal in sorted(places):
        for sequence in sorted(set(places[journal])):
            digest.update(f"{journal} {sequence}\n".encode())
            count += 1
    return count, digest.hexdigest()


def _first_of(places: Mapping[str, "array[int]"], day: str, what: str) -> Finding:
    journal = min(places)
    return Finding(what, journal=journal, sequence=min(places[journal]), day=day)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _rows_at(store: AuditStore, places: Mapping[str, "array[int]"]) -> Iterator[Row]:
    for journal in sorted(places):
        for sequence in places[journal]:
            yield from store.rows(journal, sequence, sequence)


def _was_asked_for(row: Row, control: Control) -> bool:
    """Tell whether an erased record is of what was to be erased, from before the erasure; a stub may be."""
    if row.sealed is None:
        return True
    try:
        record = decode_record(row.sealed)
    except UNREADABLE:
        return False
    if record.received_ns > control.received_ns + _CLOCKS_NS:
        return False
    details = control.details
    if "unit" in details:
        return bool(record.unit == details["unit"])
    named = details.get("record_ids")
    if isinstance(named, list) and record.record_id in named:
        return True
    return details.get("request_id") in {record.record_id, record.request_id, record.oip_id}


def _wrong_pruning(control: Control | str, day: str, places: Mapping[str, "array[int]"]) -> str:
    if isinstance(control, str):
        return control
    if control.action != PRUNE or control.details.get("whole"):
        return "what it names is not the record of such a pruning"
    if control.details.get("day") != day:
        return "the record of it tells of another day"
    count, digest = _counted(places)
    if (count, digest) != (control.details.get("count"), control.details.get("places_sha256")):
        return f"the record of it tells of {control.details.get('count')} other records than these {count}"
    return ""


def _settle_days(
    gone: list[Gone], dropped: list[Dropped], find: Callable[[str], Control | str], findings: Findings
) -> None:
    held: dict[tuple[str, str], int] = {}
    for one in dropped:
        held[one.day, one.pruning] = held.get((one.day, one.pruning), 0) + one.records
    days = {day for day, _ in held}
    accounts: list[Control] = []
    beyond: list[str] = []
    for (day, pruning), count in sorted(held.items()):
        control = find(pruning)
        if isinstance(control, str) and day < _day_made(pruning) in days:
            beyond.append(day)  # the record of its pruning was pruned since, with the day that it was kept under
        elif why := _wrong_drop(control, day, count):
            findings.add(Finding(f"the day is gone, but {why} (pruning {pruning})", day=day))
        elif isinstance(control, Control):
            accounts.append(control)
    for run in gone:
        told = any(_accounts_for(control, run) for control in accounts)
        if not told and not any(run.since <= day < run.until for day in beyond):
            numbers = str(run.first) if run.first == run.last else f"{run.first} to {run.last}"
            what = f"checkpoint {numbers} is missing, and no pruning accounts for that"
            findings.add(Finding(what, gateway=run.gateway, checkpoint=run.first))


def _wrong_drop(control: Control | str, day: str, count: int) -> str:
    if isinstance(control, str):
        return control
    if control.action != PRUNE or control.details.get("day") != day or control.details.get("whole") is not True:
        return "what it names is not the record of that"
    if control.details.get("count") != count:
        return f"it held {count} records, and the record of it tells of {control.details.get('count')}"
    return ""


def _day_made(record_id: str) -> str:
    """Return the UTC day in which a record id (UUIDv7) was made; "" of any other id."""
    made = made_in(packed_id(record_id))
    try:
        return f"{datetime.fromtimestamp(made / 1000, UTC):%Y-%m-%d}" if made is not None else ""
    except (ValueError, OverflowError):
        return ""


def _accounts_for(control: Control, run: Gone) -> bool:
    last = control.details.get("checkpoints")
    said = last.get(run.gateway) if isinstance(last, dict) else None
    return said == {"number": run.last, "sha256": run.next_previous}
