"""Which rows of a run are not the ones that were recorded, as far as the rows themselves tell.

A record binds the chain before it (`previous`) and its sealed part to the chain after it, which the next record
repeats. So an edited sealed part breaks one joint, the one behind it; an edited `previous`, or a row that was put in
the place of another, breaks two, the ones before and behind it. A row that is faulty by itself (its columns contradict
its sealed part, a part is not the one recorded) is named for that, and explains the joints beside it.

Belongs here: judging rows by the rows beside them. Never here: reading rows, or what was signed.
"""

from collections.abc import Iterator

from msgspec import Struct

OTHER_CHAIN_BEFORE = "the chain before it is not the one that was recorded"
_REWRITTEN = "its sealed part is not the one that was recorded (or it was rewritten with records before it)"
_REPLACED = "it, or the chain before it, is not the one that was recorded"


class Seen(Struct, frozen=True):
    """A row as far as it is needed: the chain before it as it says, the one after it that follows from that, and the
    one that follows from the row before. `fault` is what is wrong with it by itself."""

    sequence: int
    previous: bytes
    after: bytes
    after_row_before: bytes
    fault: str
    record_id: str


def faults(run: list[Seen], before: bytes | None, after: bytes | None) -> Iterator[tuple[Seen, str]]:
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


def faults_beside(run: list[Seen], before: bytes | None) -> Iterator[tuple[Seen, str]]:
    """Yield the rows of a run whose sealed parts are sound, but not what stands beside them."""
    for one in run:
        if one.fault:
            yield one, one.fault
        elif before is not None and one.previous != before:
            yield one, OTHER_CHAIN_BEFORE
        before = one.after if before is None or one.previous == before else one.after_row_before


def _broken_joints(run: list[Seen], before: bytes | None, after: bytes | None) -> list[int]:
    broken = [-1] if before is not None and run[0].previous != before else []
    broken += [at for at in range(len(run) - 1) if run[at].after != run[at + 1].previous]
    if after is not None and run[-1].after != after:
        broken.append(len(run) - 1)
    return broken


def _is_behind(run: list[Seen], index: int, after: bytes | None) -> bool:
    """Tell whether it is the row behind a broken joint that is wrong.

    Because it fits in when its own word for the chain before it is not believed; or because nothing vouches for it,
    the one behind it being missing.
    """
    known = run[index + 1].previous if index + 1 < len(run) else after
    return known is None or run[index].after_row_before == known != run[index].after
