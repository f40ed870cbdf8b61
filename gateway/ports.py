"""The sockets of the house: what the first floor needs from the second, as protocols.

Belongs here: the shape of each outside thing as our code wants it. Never here: an implementation, or a name of
the library behind it. Every port has one behaviour suite in `tests/contracts/`, run over every implementation.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

from msgspec import Struct
from numpy.typing import NDArray

from gateway.catalog import Manifest, Signature
from gateway.errors import GatewayError
from gateway.messages import Headers, Readiness, Rendered, Result, Tensors, Work
from gateway.record import Frame, Record

Kind = Literal["route", "cohort", "version"]
"""The kinds of documents of the rules. Names: the model, the cohort's name, and `model/version`."""
DocumentName = tuple[Kind, str]


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Head(Struct, frozen=True):
    """Where the rules are: `epoch` names one life of the store, `revision` counts its changes from 0."""

    epoch: str
    revision: int


class StoredDocument(Struct, frozen=True):
    """A document in force: the revision that last changed it, and its canonical JSON."""

    revision: int
    json: bytes


class DocumentChange(Struct, frozen=True):
    """One document of a revision. `before` None means that it is new, `after` None that it is deleted."""

    kind: Kind
    name: str
    before: bytes | None
    after: bytes | None


class Revision(Struct, frozen=True):
    """One change of the rules: who, why, when (Unix ns), and every document before and after.

    `preview` is the JSON of what the change was expected to move, when that was worked out before it was made.
    """

    revision: int
    actor: str
    comment: str
    operation_id: str
    at_ns: int
    changes: tuple[DocumentChange, ...]
    preview: bytes | None = None


class RulesState(Struct, frozen=True):
    """All documents as of one head."""

    head: Head
    documents: Mapping[tuple[Kind, str], StoredDocument]


class Write(Struct, frozen=True):
    """One document of a change to be made. `expect` is the revision it must have now (0: must not exist).

    `json` None deletes it.
    """

    kind: Kind
    name: str
    json: bytes | None
    expect: int


class ChangeSet(Struct, frozen=True):
    """Documents to be written together or not at all.

    `requires` are documents that must exist when the change is made; `expect_head` is the global revision that must
    still be in force, for changes whose check looked at every document. `floor` is the newest head that the caller
    knows: a store that is behind it, or of another life, has lost changes and takes no more. `confirm_within_ms` makes
    the change an unconfirmed one, which nobody may build upon before it is settled; `settles` names the unconfirmed
    revision whose documents this change may overwrite, and which is settled by it.
    """

    operation_id: str
    actor: str
    comment: str
    at_ns: int
    writes: tuple[Write, ...]
    requires: tuple[tuple[Kind, str], ...] = ()
    expect_head: int | None = None
    floor: Head | None = None
    confirm_within_ms: int | None = None
    settles: int | None = None
    preview: bytes | None = None


class Unconfirmed(Struct, frozen=True):
    """A revision that is to be taken back unless somebody confirms it within `remaining_ms` (0: it is due).

    `documents` are those that it changed; until it is settled, no other change may touch them.
    """

    revision: int
    remaining_ms: int
    documents: tuple[tuple[Kind, str], ...]


class Resettlement(Struct, frozen=True):
    """An operator's word on which rules are right after the store lost some: a new life of the store begins with them.

    `seen` is the head that the store must still have (None: none at all); the new revision is greater than `beyond`,
    than that of `seen` and than every one in the store's history. `follows` maps the epochs that end here to the last
    revision of each that the new life follows on. Of `writes`, `expect` does not count.
    """

    operation_id: str
    actor: str
    comment: str
    at_ns: int
    epoch: str
    seen: Head | None
    beyond: int
    follows: Mapping[str, int]
    writes: tuple[Write, ...]


class Acknowledgement(Struct, frozen=True):
    """What one worker says of the rules it has: `problems` maps a model to why its newest route is not in force there.

    `since_ms` (Unix ms, the worker's clock) is since when it has them, `alarms` what is wrong with the store's rules
    as it sees them. `age_ms` is how long ago it said so, by the store's own clock (0 when it is being written).
    """

    worker: str
    head: Head
    problems: Mapping[str, str] = {}
    age_ms: int = 0
    since_ms: int = 0
    alarms: Mapping[str, str] = {}
    ready: bool = True


class RulesSource(Protocol):
    """What a worker needs of the rules store. Every call raises `RulesUnavailable` when the store does not answer."""

    async def head(self) -> Head | None:
        """Return the present head, or None when the store has none (never written, or lost)."""

    async def load(self) -> RulesState:
        """Return every document, consistent with one head. Raises `RulesUnavailable` also when there is no head."""

    async def revisions(self, after: int, upto: int) -> Sequence[Revision] | None:
        """Return the revisions after+1 … upto in order, or None when the store no longer has all of them."""

    async def follows(self) -> Mapping[str, int]:
        """Return the earlier lives of the store that this one follows on: epoch → the last revision of it that counts.

        Empty unless an operator has resettled it (`Resettlement.follows`, accumulated).
        """

    def notices(self) -> AsyncIterator[None]:
        """Yield once when listening has begun, and whenever a change may have been made. A hint only.

        It can be silent though there are changes. Raises `RulesUnavailable` when the connection is lost.
        """

    async def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Tell the store what this worker has; repeated as a heartbeat."""

    async def withdraw(self, worker: str) -> None:
        """Take a worker that is stopping off the list."""

    async def close(self) -> None:
        """Close the connections."""


class RulesStore(RulesSource, Protocol):
    """What the control plane needs of the rules store."""

    async def initialise(self) -> Head:
        """Return the head, making epoch and revision 0 if the store has none."""

    async def read(self, kind: Kind, name: str) -> StoredDocument | None:
        """Return one document, or None."""

    async def read_all(self, kind: Kind, prefix: str = "") -> Mapping[str, StoredDocument]:
        """Return the documents of a kind by name, all of them or those whose names begin with `prefix`."""

    async def applied(self, operation_id: str) -> int | None:
        """Return the revision that an operation made, or None when there was none or it is long ago."""

    async def apply(self, change: ChangeSet) -> int:
        """Make a change, all or nothing, and return its revision; the same operation id again returns the same one.

        Raises:
            RevisionConflict: a document (or the head) does not have the expected revision.
            DocumentNotFound: a required document does not exist.
            UnconfirmedChange: it touches a document of an unconfirmed revision that it does not settle, or `settles`
                names a revision that is not unconfirmed (any more).
            RulesInDoubt: the store is behind `floor`, or of another life.
        """

    async def history(self, after: int, limit: int) -> Sequence[Revision]:
        """Return up to `limit` of the revisions that the store still has beyond `after`, oldest first.

        Unlike `revisions` it does not mind gaps: old revisions are dropped, and a resettlement skips numbers.
        """

    async def unconfirmed(self) -> Sequence[Unconfirmed]:
        """Return every revision that waits to be confirmed, oldest first."""

    async def confirm(self, revision: int) -> bool:
        """Let an unconfirmed revision stand; False when it is not unconfirmed (any more)."""

    async def resettle(self, resettlement: Resettlement) -> Head:
        """Begin a new life of the store with these documents, in one step, and return its head.

        It is a revision of the history like any other. The same operation id again returns the same head.

        Raises:
            RevisionConflict: the store's head is not the one that was seen.
        """

    async def acknowledgements(self) -> Sequence[Acknowledgement]:
        """Return what every worker said last."""


# ── serving ──────────────────────────────────────────────────────────────────────────────────────────────────────


class InferProtocol(Protocol):
    """One wire protocol's half of an inference: bodies to tensors and back, errors to bodies."""

    @property
    def name(self) -> str:
        """The name that records carry."""

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse what the protocol's headers announce and the gateway does not speak. Raises `RequestError`."""

    def peek(self, body: bytes) -> str | None:
        """Return the body's own id after checking that it is well-formed. Raises `MalformedBody`."""

    def decode(self, body: bytes, signature: Signature) -> Tensors:
        """Return the tensors of a body. Raises `MalformedBody` or `InvalidInput`."""

    def encode(
        self, model: str, version: str, oip_id: str | None, outputs: Sequence[tuple[str, str, NDArray[Any]]]
    ) -> bytes:
        """Return the body of an answer; `outputs` are (name, datatype, array)."""

    def render_error(self, error: GatewayError) -> Rendered:
        """Return an error with the protocol's status for its code."""


class Executor(Protocol):
    """One version, however it runs."""

    async def prepare(self) -> None:
        """Load, verify and warm up; afterwards `execute` may be called. Raises `ArtifactError`."""

    async def ready(self) -> Readiness:
        """Tell whether the version can serve now, with its signature."""

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:
        """Run one request. Raises `RequestError` or `ServingError` (with its `backend`)."""

    async def release(self) -> None:
        """Give back what `prepare` took. Called once, when no request can reach the version any more."""


ExecutorFactory = Callable[[Manifest], Executor]


class UpstreamReply(Struct, frozen=True):
    """A backend's whole answer. Header names are lower-case."""

    status: int
    headers: Headers
    body: bytes


class UpstreamStream(Protocol):
    """A backend's answer that is read as it comes: iterate for the pieces of its body. Header names are lower-case.

    A backend that sends faster than it is read has to wait.
    """

    status: int
    headers: Headers

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return an iterator over the pieces that are still to come. It raises what `UpstreamClient` raises."""


class UpstreamClient(Protocol):
    """A pooled HTTP client. Raises `BackendUnreachable`, `BackendProtocolError`, `DeadlineExceeded` or `Stopping`."""

    async def request(
        self, *, method: str, url: str, headers: Headers, body: bytes, deadline_ns: int, lane: str
    ) -> UpstreamReply:
        """Send one request and return the whole answer before `deadline_ns` (monotonic)."""

    def stream(
        self,
        *,
        method: str,
        url: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
        deadline_ns: int,
        lane: str,
    ) -> AbstractAsyncContextManager[UpstreamStream]:
        """Send one request, its body whole or piece by piece, and give the answer as it comes.

        The whole answer has to come before `deadline_ns` (monotonic); leaving the block ends it.
        """

    async def close(self) -> None:
        """Close every connection."""


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


class RecordSink(Protocol):
    """Where the data plane puts a record before its reply leaves."""

    def append(self, record: Record) -> None:
        """Make the record survive the death of this process. Raises `AuditUnavailable`."""

    @property
    def failed(self) -> bool:
        """Whether records can no longer be kept here; it never becomes False again."""


class JournalPosition(Struct, frozen=True):
    """How far one journal has been shipped: the next byte to read in a segment, and the last sequence shipped."""

    journal: str
    segment: int
    offset: int
    sequence: int


class Sampled(Struct, frozen=True):
    """What a record says about who was decided for: the facts of a primary request, and the version that was chosen.

    `revision` and `cohort_revision` are the record's: they tell which headers the rules looked at then.
    """

    record_id: str
    received_ns: int
    unit: bytes
    keyed: bool
    headers: Mapping[str, str]
    asked_version: str | None
    intended: str | None
    revision: int | None = None
    cohort_revision: int | None = None


FIND_LIMIT = 1_000
"""How many records one look-up returns for an id that callers repeat: the newest so many of each kind of id."""


class AuditStore(Protocol):
    """Where records are kept. One writer; any number of readers. Every call raises `AuditUnavailable` when it fails.

    What `write` returned from survives the death of the machine.
    """

    def positions(self) -> Mapping[str, JournalPosition]:
        """Return the committed position of every journal."""

    def write(self, frames: Sequence[Frame], positions: Iterable[JournalPosition]) -> None:
        """Commit frames and positions in one transaction; a frame that is already there is left as it is."""

    def find(self, any_id: str) -> Sequence[Record]:
        """Return the records that a record id, request id or OIP id names, oldest first, each once.

        With them come the shadows of the primaries among them, and the primaries of the shadows. Of an OIP id or
        request id that many records carry, the newest `FIND_LIMIT`.
        """

    def sample(self, model: str, since_ns: int, limit: int) -> Sequence[Sampled]:
        """Return the newest primary records of a model received since then (Unix ns), newest first, at most `limit`.

        Only those for which a version was chosen by a rule.
        """

    def close(self) -> None:
        """Close the store."""


class RevisionArchive(Protocol):
    """Where every revision of the rules is kept for ever. Calls block, and raise `AuditUnavailable` when they fail.

    A store of rules that loses changes can make two revisions of one number; both are kept, and the one that was kept
    last is meant by the number.
    """

    def kept(self) -> Head | None:
        """Return the epoch and number of the revision that was kept last, or None."""

    def keep(self, epoch: str, revisions: Sequence[Revision]) -> None:
        """Commit revisions in their order; those already there (by number and operation id) are left as they are.

        Each follows on the one before it in `revisions`; the first, if it is new, on the one that was kept last when
        that has the same epoch and the number before. Otherwise what lies before it is unknown (`unbroken_since`).
        """

    def revision(self, number: int) -> Revision | None:
        """Return one revision, or None."""

    def history(self, documents: Collection[DocumentName] | None, before: int | None, limit: int) -> Sequence[Revision]:
        """Return up to `limit` revisions below `before` that changed one of `documents` (None: any), newest first."""

    def as_of(self, number: int, documents: Collection[DocumentName]) -> Mapping[DocumentName, StoredDocument]:
        """Return documents as they were at a revision; those that did not exist then are missing.

        Each with the revision that last changed it up to that one. What was lost before that revision does not count.
        A number that was skipped means the revision before it.
        """

    def unbroken_since(self, number: int) -> int | None:
        """Return the first of the revisions kept without a gap up to a number (1: all of them); None: nothing is kept.

        A document that was last changed before it is missing from `as_of` though it may have existed.
        """

    def revision_at(self, at_ns: int) -> int | None:
        """Return the number of the newest revision made at or before a time (Unix ns), or None."""

    def close(self) -> None:
        """Close the archive."""
