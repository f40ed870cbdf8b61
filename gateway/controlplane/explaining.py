"""How a decision comes about: for a caller or for a recorded request, under the rules of now or of the past.

Belongs here: bringing rules, facts and records together for `routing.explain`. Never here: a decision of its own.
"""

import asyncio
import time
import uuid

from msgspec import Struct

from gateway.controlplane.documents import shown
from gateway.controlplane.past import Past, StoredRules, rules_now
from gateway.controlplane.questions import Explained, Moment, Question, agrees, recorded_of
from gateway.errors import AuditUnavailable, DocumentNotFound, InvalidDocument, RulesUnavailable
from gateway.ports import AuditStore, RulesStore
from gateway.record import Record
from routing import Facts, Looked, RouteRules, explain, looked_at, routing_key, unanswered, unit_digest


class _Scene(Struct, frozen=True):
    """The rules to explain with: as stored, of which revision, and against which moment expiry is held."""

    rules: StoredRules
    rules_revision: int
    moment: Moment
    moment_ns: int


class Explaining:
    """Answers `Question`s."""

    def __init__(self, store: RulesStore, audit: AuditStore, past: Past) -> None:
        self._store = store
        self._audit = audit
        self._past = past

    async def explain(self, model: str, question: Question) -> Explained:
        """Return how the route of a model decides, by the code that serves.

        Raises:
            DocumentNotFound: no such route, revision or record, or the record is of a request that was not decided.
            InvalidDocument: the question asks for two things at once.
            RulesUnavailable, AuditUnavailable: what it is about cannot be read.
        """
        _check(question)
        record = await self._record(model, question.request_id) if question.request_id is not None else None
        scene = await self._scene(model, question, record)
        rules = await asyncio.to_thread(scene.rules.parsed)
        assert rules.route is not None
        moment_ns = record.received_ns if record is not None else scene.moment_ns
        facts = _recorded_facts(record) if record is not None else _described_facts(rules, question, moment_ns)
        explanation = explain(rules.route, rules.cohorts, facts)
        return Explained(
            model=model,
            revision=scene.rules.route.revision,
            rules_revision=scene.rules_revision,
            moment="record" if record is not None else scene.moment,
            moment_ns=moment_ns,
            explanation=explanation,
            recorded=recorded_of(record) if record is not None else None,
            agrees=agrees(explanation, record) if record is not None else None,
            unknown_headers=await self._unknown(rules, record) if record is not None else (),
        )

    async def _scene(self, model: str, question: Question, record: Record | None) -> _Scene:
        if question.revision is not None:
            made = await self._past.made(question.revision)
            rules = await self._past.rules_at(model, made.revision)
            return _Scene(rules, made.revision, "revision", made.at_ns)
        if question.at_ns is not None:
            made = await self._past.at(question.at_ns)
            return _Scene(await self._past.rules_at(model, made.revision), made.revision, "time", question.at_ns)
        if record is not None and record.revision is not None:
            # A worker that cannot prepare a new route keeps the one before, so the route's own revision counts.
            rules = await self._past.rules_at(model, record.revision, record.cohort_revision)
            return _Scene(rules, record.rules_revision or record.revision, "record", record.received_ns)
        return await self._present(model)

    async def _present(self, model: str) -> _Scene:
        head = await self._store.head()
        rules = await rules_now(self._store, model)
        revision = max(head.revision if head is not None else 0, rules.route.revision)
        return _Scene(rules, revision, "now", time.time_ns())

    async def _record(self, model: str, request_id: str) -> Record:
        found = await asyncio.to_thread(self._audit.find, request_id)
        primaries = [kept.frame.record for kept in found if kept.frame.record.role == "primary"]
        ours = [record for record in primaries if record.model == model]
        if not ours:
            of = f"; the one of that id is of model {shown(primaries[-1].model)}" if primaries else ""
            raise DocumentNotFound(
                f"no request of model {shown(model)} has the request id, record id or OIP id {shown(request_id)}{of}"
            )
        record = next((one for one in ours if one.record_id == request_id), ours[-1])
        if record.unit is None:
            why = f" ({record.error})" if record.error else ""
            raise DocumentNotFound(f"request {shown(request_id)} was refused before anything was decided{why}")
        return record

    async def _unknown(self, rules: RouteRules, record: Record) -> tuple[str, ...]:
        """Return the headers that these rules look at and that those which decided the request did not."""
        if record.asked_version is not None:
            return ()
        looked = Looked(None, frozenset(record.headers))
        if record.revision is not None:
            try:
                then = await self._past.rules_at(record.model, record.revision, record.cohort_revision)
                looked = looked_at(await asyncio.to_thread(then.parsed))
            except (DocumentNotFound, InvalidDocument, RulesUnavailable, AuditUnavailable):
                pass  # then only what the record has is known
        return tuple(sorted(unanswered(looked_at(rules), looked, record.keyed)))


def _check(question: Question) -> None:
    described = question.key is not None or question.headers or question.version is not None
    if question.request_id is not None and (described or question.record_id is not None):
        raise InvalidDocument(
            "request_id", "a recorded request brings its own facts; leave out key, headers, version and record_id"
        )
    if question.revision is not None and question.at_ns is not None:
        raise InvalidDocument("at", "name a revision or a time, not both")


def _recorded_facts(record: Record) -> Facts:
    assert record.unit is not None
    return Facts(
        unit=bytes.fromhex(record.unit),
        record_id=record.record_id,
        received_ns=record.received_ns,
        keyed=record.keyed,
        asked_version=record.asked_version,
        headers=record.headers,
        braked=record.braked,
    )


def _described_facts(rules: RouteRules, question: Question, moment_ns: int) -> Facts:
    """Return the facts of a caller: the key given, else the one in the headers, else the decision hangs on an id."""
    assert rules.route is not None
    lower = {name.lower(): value for name, value in question.headers.items()}
    key = question.key if question.key is not None else routing_key(rules.route, lower)
    record_id = question.record_id if question.record_id is not None else str(uuid.uuid4())
    return Facts(
        unit=unit_digest(key if key is not None else record_id),
        record_id=record_id,
        received_ns=moment_ns,
        keyed=key is not None,
        asked_version=question.version,
        headers=lower,
    )
