"""A version as it is held once it has been prepared, or could not be.

Belongs here: that shape. Never here: preparing.
"""

from msgspec import Struct, field

from gateway.catalog import Manifest
from gateway.concurrency import Limit
from gateway.errors import GatewayError
from gateway.ports import Executor


class PreparedVersion(Struct, frozen=True, weakref=True, eq=False):
    """One version as snapshots hold it. When `problem` is set it could not be prepared, and must not be executed.

    `limit` is how much of it may run at once, for whoever lets it run.

    Who runs the executor must hold this object (or a snapshot with it) meanwhile: its end is what releases the
    executor.
    """

    manifest: Manifest
    executor: Executor
    problem: GatewayError | None = None
    limit: Limit = field(default_factory=Limit)
