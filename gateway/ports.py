"""The sockets of the house: what the first floor needs from the second, as protocols.

Belongs here: the shape of each outside thing as our code wants it. Never here: an implementation, or a name of
the library behind it. Every port has one behaviour suite in `tests/contracts/`, run over every implementation.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct
from numpy.typing import NDArray

from gateway.catalog import Manifest, Signature
from gateway.errors import GatewayError
from gateway.messages import Headers, Readiness, Rendered, Result, Tensors, Work
from gateway.record import Frame, Record

Kind = Literal["route", "cohort", "version"]
"""The kinds of documents of the rules. Names: the model, the cohort's name, and `model/version`."""


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
    """One change of the rules: who, why, when (Unix ns), and every document before and after."""

    revision: int
    actor: str
    comment: str
    operation_id: str
    at_ns: int
    changes: tuple[DocumentChange, ...]


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
    still be in force, for changes whose check looked at every document.
    """

    operation_id: str
    actor: str
    comment: str
    at_ns: int
    writes: tuple[Write, ...]
    requires: tuple[tuple[Kind, str], ...] = ()
    expect_head: int | None = None


class Acknowledgement(Struct, frozen=True):
    """What one worker says of the rules it has: `problems` maps a model to why its newest route is not in force there.

    `age_ms` is how long ago it said so, by the store's own clock (0 when it is being written).
    """

    worker: str
    head: Head
    problems: Mapping[str, str] = {}
    age_ms: int = 0


class RulesSource(Protocol):
    """What a worker needs of the rules store. Every call raises `RulesUnavailable` when the store does not answer."""

    async def head(self) -> Head | None:
        """Return the present head, or None when the store has none (never written, or lost)."""

    async def load(self) -> RulesState:
        """Return every document, consistent with one head. Raises `RulesUnavailable` also when there is no head."""

    async def revisions(self, after: int, upto: int) -> Sequence[Revision] | None:
        """Return the revisions after+1 … upto in order, or None when the store no longer has all of them."""

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


class UpstreamClient(Protocol):
    """A pooled HTTP client. Raises `BackendUnreachable`, `BackendProtocolError` or `DeadlineExceeded`."""

    async def request(
        self, *, method: str, url: str, headers: Headers, body: bytes, deadline_ns: int, lane: str
    ) -> UpstreamReply:
        """Send one request and return the whole answer before `deadline_ns` (monotonic)."""

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

    def close(self) -> None:
        """Close the store."""
