"""What can be asked about a decision, and the answer: the shapes of `explain`.

Belongs here: the question, the answer, and what of a record is set beside it. Never here: finding rules or records.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from gateway.record import Record
from routing import Explanation

Moment = Literal["now", "record", "revision", "time"]
"""Which moment a pin's `expires` is held against: the present, the record's, the revision's, or the one asked for."""


class Question(Struct, frozen=True):
    """About which request, under which rules. Without anything else: the rules of now.

    The request is described (`key`, `headers`, `version`, `record_id`), or it is a recorded one: `request_id` is its
    request id, record id or OIP id, and the facts are those of its newest primary record. The rules are those of now,
    of `revision`, or of a time (`at_ns`, Unix ns); for a recorded request and neither of them, those it was decided by.
    """

    key: str | None = None
    headers: Mapping[str, str] = {}
    version: str | None = None
    record_id: str | None = None
    request_id: str | None = None
    revision: int | None = None
    at_ns: int | None = None


class Recorded(Struct, frozen=True):
    """What the record of a request says of its decision; `version` is the one that was chosen, None when refused."""

    record_id: str
    received_ns: int
    version: str | None
    reason: str | None
    rule: str | None
    cohort: str | None
    revision: int | None
    rules_revision: int | None
    error_code: str | None


class Explained(Struct, frozen=True):
    """How a route decides about a request. `revision` is the route's, `rules_revision` that of all the rules looked at.

    Expiry was held against `moment_ns` (Unix ns), which is the one that `moment` says. For a recorded request,
    `recorded` is what its record says and `agrees` whether the explanation comes to the same; `unknown_headers` are
    those that these rules look at and its record does not tell, so that they counted as missing.
    """

    model: str
    revision: int
    rules_revision: int
    moment: Moment
    moment_ns: int
    explanation: Explanation
    recorded: Recorded | None = None
    agrees: bool | None = None
    unknown_headers: tuple[str, ...] = ()


def recorded_of(record: Record) -> Recorded:
    """Return what a record says of its decision."""
    return Recorded(
        record_id=record.record_id,
        received_ns=record.received_ns,
        version=record.intended,
        reason=record.reason,
        rule=record.rule,
        cohort=record.cohort,
        revision=record.revision,
        rules_revision=record.rules_revision,
        error_code=record.error_code,
    )


def agrees(explanation: Explanation, record: Record) -> bool:
    """Tell whether an explanation comes to what the record says. A refusal agrees with a refusal."""
    decision = explanation.decision
    if record.reason is None:
        # A version that the caller named and that is not loaded is refused after the decision, and leaves no reason.
        return decision is None or (record.error_code == "unknown_version" and decision.reason == "explicit")
    if decision is None:
        return False
    found = (decision.intended, decision.reason, decision.rule, decision.cohort)
    return found == (record.intended, record.reason, record.rule, record.cohort)
