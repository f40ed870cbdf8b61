"""One control record that accounts for something, found by its id and proven to be covered by a checkpoint.

Belongs here: that proof, for records that are not walked. Never here: what a record accounts for (`accounts`).
"""

import time

from gateway.columns import made_in, packed_id
from gateway.errors import AuditUnavailable, EvidenceError
from gateway.evidence.accounts import Control, control_of
from gateway.evidence.inclusion import include
from gateway.evidence.statements import is_signed_by
from gateway.evidence.trust import Trust
from gateway.ports import AuditStore, Place
from gateway.record import decode_record

_AGAIN_SECONDS = 0.25


def proven_control(store: AuditStore, trust: Trust, record_id: str, patience_seconds: float) -> Control | str:
    """Return the control record of this id, or say in words why it accounts for nothing.

    Of one that was made less than `patience_seconds` ago, as its id tells, it is waited until a checkpoint covers it.
    """
    made = made_in(packed_id(record_id))
    while isinstance(found := _proven(store, trust, record_id), str):
        age = time.time() - made / 1000 if made is not None else patience_seconds
        if not 0 <= age < patience_seconds:
            break
        time.sleep(_AGAIN_SECONDS)
    return found


def _proven(store: AuditStore, trust: Trust, record_id: str) -> Control | str:
    try:
        kept = [one for one in store.find(record_id) if one.frame.record.record_id == record_id]
    except AuditUnavailable as error:
        return f"the record of it cannot be read: {error.message}"
    if not kept or kept[0].frame.record.role != "control":
        return "no control record tells of that"
    try:
        found = include(store, Place(kept[0].frame.journal, kept[0].frame.sequence))
    except EvidenceError as error:
        return f"the record of it proves nothing: {error.message}"
    key = trust.key(found.checkpoint.gateway, found.checkpoint.key)
    if isinstance(key, str):
        return f"the record of it proves nothing: {key}"
    if not is_signed_by(key, found.checkpoint.statement, found.checkpoint.signature):
        return "the record of it proves nothing: the signature of its checkpoint does not hold"
    return control_of(decode_record(found.row.sealed or b""))
