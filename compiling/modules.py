"""What is compiled: the modules that a request passes in a worker, and those that its record passes on to the store.

Belongs here: the list. Never here: how it is done.

Whoever adds a module finds out from mypyc what it does not take (generators that are async, multiple assignment in a
class body). A struct in such a module becomes a class: it may be neither decoded nor encoded by msgspec, nor given to
`msgspec.structs`. Those that are belong into modules that are not compiled: mypyc keeps no annotations to decode by.
"""

from collections.abc import Sequence
from typing import Final

MODULES: Final[Sequence[str]] = (
    "gateway/arrival.py",
    "gateway/attempt.py",
    "gateway/book.py",
    "gateway/capture.py",
    "gateway/chain.py",
    "gateway/columns.py",
    "gateway/concurrency.py",
    "gateway/dataplane.py",
    "gateway/draws.py",
    "gateway/evidence/checkpointing.py",
    "gateway/executors/http.py",
    "gateway/executors/http_endpoints.py",
    "gateway/executors/onnx.py",
    "gateway/executors/onnx_inline.py",
    "gateway/executors/onnx_pace.py",
    "gateway/executors/onnx_runs.py",
    "gateway/flight.py",
    "gateway/guards.py",
    "gateway/identity.py",
    "gateway/journal/appending.py",
    "gateway/journal/frames.py",
    "gateway/journal/tail.py",
    "gateway/messages.py",
    "gateway/metrics.py",
    "gateway/ports/serving.py",
    "gateway/protocols/oip_v2.py",
    "gateway/protocols/oip_v2_paths.py",
    "gateway/protocols/oip_v2_tensors.py",
    "gateway/request_lines.py",
    "gateway/sealing.py",
    "gateway/sink.py",
    "gateway/snapshot/frozen_map.py",
    "gateway/snapshot/shapes.py",
    "gateway/stores/audit_sqlite_day.py",
    "gateway/stores/audit_sqlite_writing.py",
    "gateway/timeouts.py",
    "gateway/times.py",
    "gateway/together.py",
    "gateway/wire/alarm.py",
    "gateway/wire/client.py",
    "gateway/wire/connection.py",
    "gateway/wire/deadlines.py",
    "gateway/wire/departures.py",
    "gateway/wire/exchange.py",
    "gateway/wire/flowing.py",
    "gateway/wire/heads.py",
    "gateway/wire/pool.py",
    "gateway/wire/port.py",
    "gateway/wire/receiving.py",
    "gateway/wire/relaying.py",
    "gateway/wire/replies.py",
    "gateway/wire/reply.py",
    "gateway/wire/sending.py",
    "gateway/wire/server.py",
    "gateway/wire/streamed.py",
    "gateway/wire/target.py",
    "routing/facts.py",
    "routing/hashing.py",
    "routing/resolve.py",
)
