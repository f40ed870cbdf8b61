"""The rules as a worker has them: following the store, preparing versions, one immutable snapshot, the last good file.

Belongs here: what is in force in one process. Never here: changing rules, or I/O on the path of a request.
"""

from gateway.snapshot.documents import RouteEntry
from gateway.snapshot.inforce import Snapshot
from gateway.snapshot.lastgood import last_known_revision
from gateway.snapshot.preparation import PreparedVersion
from gateway.snapshot.rules import Rules

__all__ = ["PreparedVersion", "RouteEntry", "Rules", "Snapshot", "last_known_revision"]
