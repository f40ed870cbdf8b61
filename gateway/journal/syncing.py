"""When a journal is synced: in the background every 50 ms, or in groups that replies wait for (durability `power`).

Group commit: what is appended while the disk is busy with one sync forms the next group, so the number of syncs a
second is bounded by the disk and never by the requests.

Belongs here: the thread that syncs, and telling those who wait. Never here: what is synced (`appending`).
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from gateway.errors import AuditUnavailable
from gateway.logs import logger

SYNC_SECONDS = 0.05
Waiting = asyncio.Future[None]


class Syncer:
    """Calls `sync` in a thread of its own until it raises `AuditUnavailable` or `close` is called.

    With `groups`, a sync follows at once on every `join`; else it comes within `SYNC_SECONDS` of a `touch`. `tick` is
    called about every `SYNC_SECONDS` in either case; what it raises is logged.
    """

    def __init__(self, name: str, sync: Callable[[], None], tick: Callable[[], None], *, groups: bool) -> None:
        self._sync = sync
        self._tick = tick
        self._tick_failed = False
        self._touched = False
        self._waiting: list[Waiting] = []
        self._stopping = False
        self._changed = threading.Condition()
        work = self._commit_groups if groups else self._follow
        self._thread = threading.Thread(target=work, name=f"journal-sync-{name}", daemon=True)
        self._thread.start()

    def touch(self) -> None:
        """Note that there is something to sync."""
        self._touched = True

    def join(self) -> Waiting:
        """Return what is done when everything appended so far is on the disk, or has failed to get there.

        Called in the event loop that will wait. Raises `AuditUnavailable` when nobody syncs any more.
        """
        waiting = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._stopping:
                raise AuditUnavailable("the journal is being closed, so nobody would say when this is on the disk")
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting

    def close(self) -> None:
        """Sync for those who wait already, and end the thread. May be called again."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _follow(self) -> None:
        while not self._nap():
            self._tend()
            if self._touched:
                self._touched = False
                if self._failure() is not None:
                    return

    def _nap(self) -> bool:
        with self._changed:
            return self._stopping or self._changed.wait_for(lambda: self._stopping, SYNC_SECONDS)

    def _commit_groups(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting, SYNC_SECONDS)
                group, self._waiting = self._waiting, []
                if self._stopping and not group:
                    return
            if group:
                failure = self._failure()
                with suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
                    group[0].get_loop().call_soon_threadsafe(_tell, group, failure)
            self._tend()

    def _failure(self) -> AuditUnavailable | None:
        """Sync, and return why that failed, or None."""
        try:
            self._sync()
        except AuditUnavailable as error:
            return error
        return None

    def _tend(self) -> None:
        try:
            self._tick()
        except Exception as defect:  # noqa: BLE001 - without this thread all who wait would wait for ever
            if not self._tick_failed:
                logger().error("defect", task="watch of a journal", exc_info=defect)
            self._tick_failed = True


def _tell(group: list[Waiting], failure: AuditUnavailable | None) -> None:
    for waiting in group:
        if waiting.done():
            continue  # its caller hung up; the record is kept all the same
        if failure is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(AuditUnavailable(failure.message))
