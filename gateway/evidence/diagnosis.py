"""What is wrong with a stretch that is not sound: which record is missing, was edited, or does not belong there.

The marks of a signed listing tell of each row whether it is the one that was recorded (`marks`). Where there are none,
or the listing is not the one that was signed, the rows have to tell by themselves (`joints`).

Belongs here: reading a stretch again and naming the rows. Never here: checkpoints, or how often this is needed.
"""

from gateway.chain import link
from gateway.evidence.findings import Finding
from gateway.evidence.glance import UNREADABLE, decode_glance, read_record_id, wrong_parts
from gateway.evidence.joints import Seen, faults, faults_beside
from gateway.evidence.marks import Marks
from gateway.evidence.statements import Stretch
from gateway.ports import AuditStore, Row


def diagnose(store: AuditStore, stretch: Stretch, day: str, *, root_holds: bool, signed: bool) -> list[Finding]:
    """Return what is wrong with the rows of a stretch, in order; nothing when they are sound.

    `root_holds` says that the records give the root that was signed. Then every sealed part and every stub is the one
    that was recorded, and only what stands beside them can be wrong. `signed` says that the stretch is as it was
    signed.
    """
    found: list[Finding] = []
    marks = Marks(stretch) if signed and stretch.marks else None
    run: list[Seen] = []
    expected = stretch.first

    def missing(upto: int) -> None:
        if upto >= expected:
            what = "it is missing" if upto == expected else f"it is missing, with all up to {upto}"
            found.append(Finding(what, journal=stretch.journal, sequence=expected, day=day))

    def close(after: bytes | None) -> None:
        before = bytes.fromhex(stretch.start) if run and run[0].sequence == stretch.first else None
        if root_holds:
            faulty = faults_beside(run, before)
        else:
            faulty = marks.faults(run, before) if marks is not None else faults(run, before, after)
        found.extend(_named(one, stretch.journal, day, what) for one, what in faulty)
        run.clear()

    for row in store.rows(stretch.journal, stretch.first, stretch.last):
        if row.sequence < expected:
            found.append(
                Finding("it stands there twice", "", row.journal, row.sequence, read_record_id(row.sealed), day)
            )
            continue
        if row.sequence > expected:
            close(None)
            missing(row.sequence - 1)
        run.append(_seen(row, run[-1].after if run else row.previous))
        expected = row.sequence + 1
    close(bytes.fromhex(stretch.end) if expected == stretch.last + 1 else None)
    missing(stretch.last)
    return found


def _seen(row: Row, before: bytes) -> Seen:
    if row.sealed is None:
        return Seen(row.sequence, row.previous, row.chain, row.chain, row.damage, "")
    after = link(row.previous, row.sequence, row.sealed)
    other = link(before, row.sequence, row.sealed)
    fault = row.damage
    try:
        record = decode_glance(row.sealed)
    except UNREADABLE:
        return Seen(row.sequence, row.previous, after, other, fault or "its sealed part is no record", "")
    return Seen(row.sequence, row.previous, after, other, fault or wrong_parts(row, record), record.record_id)


def _named(one: Seen, journal: str, day: str, what: str) -> Finding:
    return Finding(what, journal=journal, sequence=one.sequence, record_id=one.record_id, day=day)
