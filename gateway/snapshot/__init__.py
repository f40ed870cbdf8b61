"""The rules as a worker has them: following the store, preparing versions, one immutable snapshot, the last good files.

Belongs here: what is in force in one process. Never here: changing rules, or I/O on the path of a request.
"""

from gateway.snapshot.documents import RouteEntry
from gateway.snapshot.history import History
from gateway.snapshot.inforce import Snapshot
from gateway.snapshot.lastgood import LastGood, last_known_revision
from gateway.snapshot.lastgood_base import Saved
from gateway.snapshot.preparation import PreparedVersion
from gateway.snapshot.rules import Rules

__all__ = [
    "History",
    "LastGood",
    "PreparedVersion",
    "RouteEntry",
    "Rules",
    "Saved",
    "Snapshot",
    "last_known_revision",
]
