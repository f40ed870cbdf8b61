"""Control records: what auditors and SREs did, in the same log as the predictions and bound into the same chains.

The control process has a journal of its own for them. Whoever looks a record up, exports, replays, erases or prunes,
and every revision of the rules, leaves one; the recorder ships it like any other.

Belongs here: making such a record and appending it. Never here: what an action does, or HTTP.
"""

import time
from collections.abc import Mapping
from typing import Any

from gateway.identity import new_record_id
from gateway.journal import Journal
from gateway.record import Outcome, Payload, Record

PROTOCOL = "admin"
_NOTHING = Payload(0)


class ControlRecords:
    """Appends control records. Belongs to the event loop of the control process."""

    def __init__(self, journal: Journal, gateway: str) -> None:
        self._journal = journal
        self._gateway = gateway

    @property
    def failed(self) -> bool:
        """Whether nothing can be recorded any more; the control process has to be replaced then."""
        return self._journal.failed

    async def keep(
        self,
        action: str,
        actor: str,
        details: Mapping[str, Any],
        *,
        comment: str = "",
        model: str = "",
        outcome: Outcome = "served",
        request_id: str | None = None,
    ) -> str:
        """Return the record id of a new control record once it is as safe as the record of a prediction.

        `details` is what JSON can say. Raises `AuditUnavailable`: then what it is about must not be done.
        """
        record = control_record(
            action,
            actor,
            details,
            gateway=self._gateway,
            comment=comment,
            model=model,
            outcome=outcome,
            request_id=request_id,
        )
        waiting = self._journal.append(record, b"", b"")
        if waiting is not None:
            await waiting
        return record.record_id


def control_record(
    action: str,
    actor: str,
    details: Mapping[str, Any],
    *,
    gateway: str,
    worker: str = "control",
    comment: str = "",
    model: str = "",
    outcome: Outcome = "served",
    request_id: str | None = None,
) -> Record:
    """Return a control record of now; its request id is its record id unless one is given."""
    now = time.time_ns()
    record_id = new_record_id(now)
    return Record(
        record_id=record_id,
        request_id=request_id or record_id,
        role="control",
        received_ns=now,
        model=model,
        protocol=PROTOCOL,
        outcome=outcome,
        status=200 if outcome == "served" else 500,
        request=_NOTHING,
        response=_NOTHING,
        gateway=gateway,
        worker=worker,
        action=action,
        actor=actor,
        comment=comment,
        details=details,
    )


def loss_record(gateway: str, worker: str, count: int, first_ns: int, last_ns: int) -> Record:
    """Return the record of predictions that were served without one, because the disk was full and serving was
    wanted.
    """
    details = {"count": count, "first_ns": first_ns, "last_ns": last_ns}
    return control_record("records.lost", worker, details, gateway=gateway, worker=worker, outcome="failed")
