"""Composition of a data worker: the data plane on the data port, its journal, and the rules that it follows.

Belongs here: connecting those and ending them in order. Never here: request logic, or parts that the control process
has too (`assembly`).
"""

import asyncio
import gc
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from time import monotonic_ns

from gateway import logs
from gateway.assembly import executor_factory, on_sigterm, redis_url, upstream_client
from gateway.config import Settings
from gateway.control_records import loss_record
from gateway.dataplane import DataPlane
from gateway.flight import Origin
from gateway.guards import Guards
from gateway.inquiries import Inquiries
from gateway.journal import Journal
from gateway.journal.space import Space
from gateway.metrics import Board, Slot, board_path
from gateway.profiling import permit_profiling
from gateway.promptness import ask_for_short_slices
from gateway.protocols.oip_v2 import OipV2Face
from gateway.request_lines import RequestLines
from gateway.shadow import Shadows
from gateway.siblings import Siblings
from gateway.sink import Sink
from gateway.snapshot import Rules
from gateway.standings import Standings, standings_path
from gateway.stores.rules_redis import RedisRules
from gateway.tasks import Tasks
from gateway.together import Row
from gateway.trips import trips_path, write_trips
from gateway.wire.asgi import AsgiFace
from gateway.wire.listening import Listening
from gateway.wire.port import Port
from gateway.wire.serving import serve_data_until

_SHADOW_DRAIN_SECONDS = 1.0
_READINESS_SECONDS = 0.02
_START_SECONDS = 2.0
"""How long a worker that starts leaves callers waiting, if nobody else serves them, before it says that it cannot."""


async def run_worker(settings: Settings, index: int, listening: Listening) -> int:
    """Run one data worker until SIGTERM; return its exit code, 1 when its journal failed and it must be replaced."""
    name = f"w{index}"
    logs.configure(settings.log_level, gateway=settings.gateway, worker=name)
    if settings.profile:
        permit_profiling()
    ask_for_short_slices()
    tasks = Tasks()
    async with AsyncExitStack() as stack:
        board = Board(board_path(settings.data_dir / "run", index))
        stack.callback(board.close)
        board.begin()
        siblings = Siblings(settings.data_dir / "run", index, settings.workers)
        stack.callback(siblings.close)
        row = Row()
        sink = _sink(settings, name, board, row)
        stack.callback(sink.close)
        source = RedisRules(redis_url(settings))
        stack.push_async_callback(source.close)
        client = upstream_client(settings)
        stack.push_async_callback(client.close)
        standings = Standings(standings_path(settings.data_dir / "run", index))
        stack.callback(standings.close)
        factory = executor_factory(settings, client, stack, standings)
        rules = Rules(source, factory, settings.data_dir / "rules", board, settings.rules, f"{settings.gateway}/{name}")
        stack.push_async_callback(rules.close)
        stack.push_async_callback(tasks.cancel)
        trips = trips_path(settings.data_dir / "run", f"worker-{index}")
        write_trips(trips, ())  # those of the process before ended with it
        guards = Guards(board, settings.overload, partial(write_trips, trips), standings.limit)
        shadows = Shadows(settings.shadow, sink, board, guards.overload)
        origin = Origin(settings.gateway, name, settings.audit.record_headers)
        lines = RequestLines(settings.log_level, gateway=settings.gateway, worker=name)
        stack.callback(lines.flush)
        plane = DataPlane(rules, sink, shadows, board, origin, lines, guards)
        inquiries = Inquiries(rules, sink)
        stop = asyncio.Event()
        begin_drain = _drain(inquiries, board, stop, settings.shutdown.notice_seconds)
        on_sigterm(begin_drain)
        tasks.start("rules", _follow(rules))
        tasks.start("readiness", _show_readiness(inquiries, plane, sink, board, begin_drain))
        guards.overload.start()
        stack.callback(guards.overload.stop)
        face = OipV2Face(plane, inquiries)
        port = Port(face, AsgiFace(face.handle, settings.limits.max_body_bytes), settings.limits, board, row)
        may_accept = _may_accept(board, siblings)
        await serve_data_until(
            stop, port, listening, settings.tls, settings.shutdown.drain_seconds, may_accept=may_accept
        )
        await shadows.drain(_SHADOW_DRAIN_SECONDS)
        return 1 if sink.failed else 0


def _sink(settings: Settings, name: str, board: Board, row: Row) -> Sink:
    audit = settings.audit
    journals = settings.data_dir / "journal"
    journals.mkdir(mode=0o700, parents=True, exist_ok=True)
    space = Space(journals, board, warn_percent=audit.disk_warn_percent, full_percent=audit.disk_full_percent)
    journal = Journal(
        journals,
        name,
        audit.segment_bytes,
        board,
        gateway=settings.gateway,
        durability=audit.durability,
        tick=space.look,
        telling=row,
    )
    return Sink(journal, space, board, partial(loss_record, settings.gateway, name), on_full=audit.on_full)


async def _follow(rules: Rules) -> None:
    # Rules of 10 000 models are a million objects that live long. Collections that look at all of them again and again
    # while they are made take half of a start, and each later one would stop requests for 0.4 s (measured).
    gc.disable()
    try:
        await rules.start()
    finally:
        gc.enable()
    gc.collect()
    gc.freeze()
    # A request makes some thirty objects that could be in a cycle, and none that are: to look at them after every
    # seven hundred, as is usual, costs it a twentieth of its time.
    gc.set_threshold(20_000, 20, 50)
    await rules.run()


def _may_accept(board: Board, siblings: Siblings) -> Callable[[], bool]:
    clock = asyncio.get_running_loop().time
    patient_until = clock() + _START_SECONDS

    def may() -> bool:
        """A worker that is not ready leaves callers to those that are, and answers them itself while nobody is."""
        return bool(board[Slot.READY]) or (clock() >= patient_until and not siblings.any_ready())

    return may


def _drain(inquiries: Inquiries, board: Board, stop: asyncio.Event, notice_seconds: float) -> Callable[[], None]:
    def begin() -> None:
        """Go not ready at once, and close the port when load balancers have had time to see it."""
        inquiries.stopping = True
        board[Slot.READY] = 0
        asyncio.get_running_loop().call_later(notice_seconds, stop.set)

    return begin


async def _show_readiness(
    inquiries: Inquiries, plane: DataPlane, sink: Sink, board: Board, begin_drain: Callable[[], None]
) -> None:
    """Keep the board's READY slot true; a worker whose journal failed makes way for a new one."""
    while not inquiries.stopping:
        board[Slot.READY] = int(inquiries.ready())
        board[Slot.LOOKED_NS] = monotonic_ns()
        plane.look()
        if sink.failed:
            begin_drain()
        await asyncio.sleep(_READINESS_SECONDS)
