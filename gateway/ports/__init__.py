"""The sockets of the house: what the first floor needs from the second, as protocols.

    rules.py     rules store and revision archive
    serving.py   wire protocols, executors, the client for backends
    records.py   journals, audit store

Belongs here: the shape of each outside thing as our code wants it. Never here: an implementation, or a name of
the library behind it. Every port has one behaviour suite in `tests/contracts/`, run over every implementation.
"""

from gateway.ports.records import (
    FIND_LIMIT,
    AuditStore,
    Batch,
    Day,
    Dropped,
    Filter,
    Gap,
    Holding,
    JournalPosition,
    Kept,
    Page,
    Place,
    PublicKey,
    RecordSink,
    Row,
    Sampled,
    SignedCheckpoint,
    Thinned,
)
from gateway.ports.rules import (
    Acknowledgement,
    ChangeSet,
    DocumentChange,
    DocumentName,
    Head,
    Kind,
    Resettlement,
    Revision,
    RevisionArchive,
    RulesSource,
    RulesState,
    RulesStore,
    StoredDocument,
    Unconfirmed,
    Write,
)
from gateway.ports.serving import (
    Executor,
    ExecutorFactory,
    Flows,
    InferProtocol,
    UpstreamClient,
    UpstreamReply,
    UpstreamStream,
)

__all__ = [
    "FIND_LIMIT",
    "Acknowledgement",
    "AuditStore",
    "Batch",
    "ChangeSet",
    "Day",
    "DocumentChange",
    "DocumentName",
    "Dropped",
    "Executor",
    "ExecutorFactory",
    "Filter",
    "Flows",
    "Gap",
    "Head",
    "Holding",
    "InferProtocol",
    "JournalPosition",
    "Kept",
    "Kind",
    "Page",
    "Place",
    "PublicKey",
    "RecordSink",
    "Resettlement",
    "Revision",
    "RevisionArchive",
    "Row",
    "RulesSource",
    "RulesState",
    "RulesStore",
    "Sampled",
    "SignedCheckpoint",
    "StoredDocument",
    "Thinned",
    "Unconfirmed",
    "UpstreamClient",
    "UpstreamReply",
    "UpstreamStream",
    "Write",
]
