"""The rules as a worker has them: following the store, preparing versions, one immutable snapshot, the last good files.

Belongs here: what is in force in one process. Never here: changing rules, or I/O on the path of a request.
"""

from gateway.snapshot.history import History
from gateway.snapshot.lastgood import LastGood, last_known_revision
from gateway.snapshot.lastgood_base import Saved
from gateway.snapshot.prepared import PreparedVersion
from gateway.snapshot.rules import Rules
from gateway.snapshot.shapes import RouteEntry, Snapshot

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
