"""What is wrong with a stretch that is not sound: which record is missing, was edited, or does not belong there.

A record binds the chain before it (`previous`) and its sealed part to the chain after it, which the next record
repeats. So an edited sealed part breaks one joint, the one behind it; an edited `previous`, or a row that was put in
the place of another, breaks two, the ones before and behind it. A row that is faulty by itself (its columns contradict
its sealed part, a part is not the one recorded) is named for that, and explains the joints beside it.

Belongs here: reading a stretch again and naming the rows. Never here: checkpoints, or how often this is needed.
"""

from collections.abc import Iterator

from msgspec import Struct

from gateway.chain import link
from gateway.evidence.findings import Finding
from gateway.evidence.glance import UNREADABLE, decode_glance, read_record_id, wrong_parts
from gateway.evidence.statements import Stretch
from gateway.ports import AuditStore, Row

_REWRITTEN = "its sealed part is not the one that was recorded (or it was rewritten with records before it)"
_REPLACED = "it, or the chain before it, is not the one that was recorded"


class _Seen(Struct, frozen=True):
    """A row as far as it is needed: the chain before it as it says, the one after it that follows from that, and the
    one that follows from the row before. `fault` is what is wrong with it by itself."""

    sequence: int
    previous: bytes
    after: bytes
    after_row_before: bytes
    fault: str
    record_id: str


def diagnose(store: AuditStore, stretch: Stretch, day: str, *, root_holds: bool) -> list[Finding]:
    """Return what is wrong with the rows of a stretch, in order; nothing when they are sound.

    `root_holds` says that the records give the root that was signed. Then every sealed part and every stub is the one
    that was recorded, and only what stands beside them can be wrong.
    """
    found: list[Finding] = []
    run: list[_Seen] = []
    expected = stretch.first

    def missing(upto: int) -> None:
        if upto >= expected:
            what = "it is missing" if upto == expected else f"it is missing, with all up to {upto}"
            found.append(Finding(what, journal=stretch.journal, sequence=expected, day=day))

    def close(after: bytes | None) -> None:
        before = bytes.fromhex(stretch.start) if run and run[0].sequence == stretch.first else None
        faults = _beside(run, before) if root_holds else _faults(run, before, after)
        found.extend(_named(one, stretch.journal, day, what) for one, what in faults)
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


def _seen(row: Row, before: bytes) -> _Seen:
    if row.sealed is None:
        return _Seen(row.sequence, row.previous, row.chain, row.chain, row.damage, "")
    after = link(row.previous, row.sequence, row.sealed)
    other = link(before, row.sequence, row.sealed)
    fault = row.damage
    try:
        record = decode_glance(row.sealed)
    except UNREADABLE:
        return _Seen(row.sequence, row.previous, after, other, fault or "its sealed part is no record", "")
    return _Seen(row.sequence, row.previous, after, other, fault or wrong_parts(row, record), record.record_id)


def _faults(run: list[_Seen], before: bytes | None, after: bytes | None) -> Iterator[tuple[_Seen, str]]:
    """Yield the faulty rows of a run without a missing one; `before` and `after` it are the chains that are known."""
    if not run:
        return
    broken = _broken_joints(run, before, after)
    named: dict[int, str] = {index: one.fault for index, one in enumerate(run) if one.fault}
    # Joint i is the one behind row i; what a faulty row explains is not blamed on its neighbours.
    open_joints = [joint for joint in broken if joint not in named and joint + 1 not in named]
    at = 0
    while at < len(open_joints):
        joint = open_joints[at]
        if at + 1 < len(open_joints) and open_joints[at + 1] == joint + 1:
            named[joint + 1] = _REPLACED
            at += 2
        elif joint < 0 or (joint + 1 < len(run) and _is_behind(run, joint + 1, after)):
            named[joint + 1] = _REPLACED
            at += 1
        else:
            named[joint] = _REWRITTEN
            at += 1
    for index in sorted(named):
        yield run[index], named[index]


def _broken_joints(run: list[_Seen], before: bytes | None, after: bytes | None) -> list[int]:
    broken = [-1] if before is not None and run[0].previous != before else []
    broken += [at for at in range(len(run) - 1) if run[at].after != run[at + 1].previous]
    if after is not None and run[-1].after != after:
        broken.append(len(run) - 1)
    return broken


def _is_behind(run: list[_Seen], index: int, after: bytes | None) -> bool:
    """Tell whether it is the row behind a broken joint that is wrong.

    Because it fits in when its own word for the chain before it is not believed; or because nothing vouches for it,
    the one behind it being missing.
    """
    known = run[index + 1].previous if index + 1 < len(run) else after
    return known is None or run[index].after_row_before == known != run[index].after


def _beside(run: list[_Seen], before: bytes | None) -> Iterator[tuple[_Seen, str]]:
    """Yield the rows of a run whose sealed parts are sound, but not what stands beside them."""
    for one in run:
        if one.fault:
            yield one, one.fault
        elif before is not None and one.previous != before:
            yield one, "the chain before it is not the one that was recorded"
        before = one.after if before is None or one.previous == before else one.after_row_before


def _named(one: _Seen, journal: str, day: str, what: str) -> Finding:
    return Finding(what, journal=journal, sequence=one.sequence, record_id=one.record_id, day=day)
